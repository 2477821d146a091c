from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.rebaseline import candidates, store
from perf_tests.harness.rebaseline.proposal import Proposal, commit_message, propose, write
from perf_tests.harness.runs.record import Process, Run, RunRecord, Status
from perf_tests.protocol.errors import BaselineError, RecordError, UsageError
from perf_tests.tables.platforms import H100, Noise
from perf_tests.unit.builders import (
    CPU_MODEL,
    FLUX_FP8,
    GPU,
    H100_UUID,
    MINI_BF16,
    MINI_INT8WO,
    make_build,
    make_case,
    make_environment,
    make_failure,
    make_process,
    make_record,
    make_reference,
    make_run,
    make_sample,
    make_telemetry,
    make_verdict,
)

ID = MINI_INT8WO.id


def _propose(
    root: Path,
    record: RunRecord,
    *,
    patterns: tuple[str, ...] = ("*",),
    reason: str = "because",
    platform: str | None = None,
    first_reason: str = "",
) -> Proposal:
    return propose(
        candidates.RunFile(record=record, sha256="f" * 64),
        root=root,
        patterns=patterns,
        reason=reason,
        platform=platform,
        first_reason=first_reason,
    )


def _refusal(root: Path, run: Run, platform: str | None = None) -> str:
    (refusal,) = _propose(root, make_record(run), platform=platform).refusals
    return refusal


def _with_bytes(value: float) -> Process:
    return make_process(build=make_build({"weight_bytes": value}))


def _text(root: Path) -> str:
    return files.path_of(root, "cpu", "flux-mini").read_text(encoding="utf-8")


# Entries


def test_a_first_recording_holds_every_metric_that_was_observed_one_value_per_process(tmp_path: Path) -> None:
    run = make_run(processes=(_with_bytes(5.0), _with_bytes(5.0)))
    write(_propose(tmp_path, make_record(run)))
    entry = files.load(tmp_path, "cpu")["flux-mini"].cases[ID]
    assert entry.metrics["weight_bytes"] == (5.0, 5.0)
    assert (entry.processes, entry.reference_processes, entry.samples) == (2, 1, 2)
    assert entry.digest == MINI_INT8WO.digest


def test_shown_metrics_are_recorded_beside_gated_ones(tmp_path: Path) -> None:
    write(_propose(tmp_path, make_record()))
    metrics = files.load(tmp_path, "cpu")["flux-mini"].cases[ID].metrics
    assert {"time_ratio_vs_fp32", "denoise_step_ms", "speedup_vs_bf16"} <= set(metrics)
    assert "compile_cold_s" not in metrics


def test_a_shown_metric_that_was_not_observed_is_left_out(tmp_path: Path) -> None:
    # Without references there is no speed-up, which the CPU platform only shows.
    write(_propose(tmp_path, make_record(references=())))
    assert "speedup_vs_bf16" not in files.load(tmp_path, "cpu")["flux-mini"].cases[ID].metrics


def test_a_reference_that_was_selected_as_a_case_is_found_among_the_cases(tmp_path: Path) -> None:
    slow = make_process(samples=(make_sample({"denoise_step_ms": [4.0]}),) * 2)
    record = make_record(make_run(), make_run(MINI_BF16, processes=(slow,)), references=())
    write(_propose(tmp_path, record))
    metrics = files.load(tmp_path, "cpu")["flux-mini"].cases[ID].metrics
    assert metrics["speedup_vs_bf16"] == (4.0,)


def test_provenance_says_where_the_numbers_come_from(tmp_path: Path) -> None:
    environment = make_environment(gpu=GPU)
    run = make_run(
        FLUX_FP8,
        H100,
        processes=(make_process(environment=environment, build=make_build({"compiled_graphs": 2.0})),),
    )
    record = make_record(run, references=(make_reference(FLUX_FP8, H100),))
    write(_propose(tmp_path, record, reason="  first H100 run "))
    (found,) = files.load(tmp_path, "h100")["flux1-dev"].provenance.values()
    assert (found.unit, found.gpu, found.power_limit_w) == (H100_UUID, "NVIDIA H100 80GB HBM3", 700.0)
    assert (found.reason, found.run_sha256) == ("first H100 run", "f" * 64)
    assert found.recorded_at == "2026-08-02T10:00:00+00:00"


def test_a_new_blessing_keeps_the_provenance_and_the_lines_of_other_cases(tmp_path: Path) -> None:
    write(_propose(tmp_path, make_record(make_run(), make_run(MINI_BF16)), reason="first"))
    before = files.load(tmp_path, "cpu")["flux-mini"]
    changed = make_record(make_run(processes=(_with_bytes(7.0),)), make_run(MINI_BF16))
    write(_propose(tmp_path, changed, patterns=(ID,), reason="second"))
    after = files.load(tmp_path, "cpu")["flux-mini"]
    assert after.cases[MINI_BF16.id] == before.cases[MINI_BF16.id]
    assert {each.reason for each in after.provenance.values()} == {"first", "second"}
    assert after.provenance[after.cases[ID].provenance].reason == "second"


def test_where_no_numbers_come_from_any_more_leaves_the_file(tmp_path: Path) -> None:
    write(_propose(tmp_path, make_record(), reason="first"))
    changed = make_record(make_run(processes=(_with_bytes(7.0),)))
    write(_propose(tmp_path, changed, reason="second"))
    (provenance,) = files.load(tmp_path, "cpu")["flux-mini"].provenance.values()
    assert provenance.reason == "second"


def test_blessing_the_same_run_twice_changes_nothing(tmp_path: Path) -> None:
    write(_propose(tmp_path, make_record()))
    before = _text(tmp_path)
    again = _propose(tmp_path, make_record(), reason="another reason")
    write(again)
    assert (again.changes, dict(again.files)) == ((), {})
    assert _text(tmp_path) == before


def _spending(*seconds: dict[str, float]) -> RunRecord:
    processes = tuple(make_process(build=make_build(seconds=each)) for each in seconds)
    return make_record(make_run(processes=processes))


def _seconds(root: Path) -> dict[str, float]:
    return files.load(root, "cpu")["flux-mini"].cases[ID].seconds


def test_an_entry_holds_the_median_seconds_of_the_processes_that_went_through_a_phase(tmp_path: Path) -> None:
    record = _spending(
        {"import": 7.04, "load": 24.0, "generate": 16.13},
        {"import": 2.0, "load": 12.06, "generate": 16.1},
        {"generate": 15.9, "turn": 1.26},
    )
    write(_propose(tmp_path, record))
    assert _seconds(tmp_path) == {"import": 4.5, "load": 18.0, "generate": 16.1, "turn": 1.3}


def test_seconds_are_no_metric_whose_change_is_shown(tmp_path: Path) -> None:
    write(_propose(tmp_path, _spending({"load": 1.0}), reason="first"))
    proposal = _propose(tmp_path, _spending({"load": 9.0}), reason="second")
    write(proposal)
    assert (proposal.changes, proposal.unshown) == ((), (ID,))
    assert commit_message(proposal, "second") == f"baseline(cpu): second\n\n- {ID}"
    assert _seconds(tmp_path) == {"load": 9.0}


def test_an_old_entry_gets_the_seconds_of_its_run_and_keeps_its_reason(tmp_path: Path) -> None:
    write(_propose(tmp_path, _spending({}), reason="first"))
    assert "seconds" not in _text(tmp_path)
    write(_propose(tmp_path, _spending({"load": 1.0}), reason="second"))
    assert _seconds(tmp_path) == {"load": 1.0}
    (provenance,) = files.load(tmp_path, "cpu")["flux-mini"].provenance.values()
    assert provenance.reason == "first"


def test_a_proposal_writes_nothing(tmp_path: Path) -> None:
    _propose(tmp_path, make_record())
    assert list(tmp_path.iterdir()) == []


def test_changes_name_old_new_and_percent_of_what_differs_only(tmp_path: Path) -> None:
    write(_propose(tmp_path, make_record(make_run(processes=(_with_bytes(4.0),)))))
    proposal = _propose(tmp_path, make_record(make_run(processes=(_with_bytes(5.0),))))
    (change,) = proposal.changes
    assert (change.case, change.metric, change.old, change.new) == (ID, "weight_bytes", 4.0, 5.0)
    assert change.change_pct == pytest.approx(25.0)


def test_a_first_recording_changes_from_nothing(tmp_path: Path) -> None:
    change = _propose(tmp_path, make_record()).changes[0]
    assert (change.old, change.new, change.change_pct) == (None, 1.0, None)


def test_a_metric_that_is_no_longer_measured_is_shown_as_it_goes(tmp_path: Path) -> None:
    write(_propose(tmp_path, make_record()))
    proposal = _propose(tmp_path, make_record(references=()))
    (change,) = proposal.changes
    assert (change.metric, change.old, change.new) == ("speedup_vs_bf16", 1.0, None)


def test_the_commit_message_names_platform_reason_and_cases(tmp_path: Path) -> None:
    proposal = _propose(tmp_path, make_record(make_run(), make_run(MINI_BF16)))
    assert commit_message(proposal, "new torchao") == (
        "baseline(cpu): new torchao\n\n- flux-mini-b1-bf16-eager\n- flux-mini-b1-int8wo-eager"
    )


# What can be blessed


@pytest.mark.parametrize(
    "status", [Status.PASS, Status.IMPROVED, Status.SURPRISE, Status.REGRESSED, Status.NO_BASELINE]
)
def test_any_judgement_can_be_blessed(tmp_path: Path, status: Status) -> None:
    run = make_run(status=status, reason="judged", verdicts=(make_verdict("weight_bytes", status),))
    assert _propose(tmp_path, make_record(run)).refusals == ()


def test_a_run_that_was_not_judged_can_be_blessed(tmp_path: Path) -> None:
    assert _propose(tmp_path, make_record(make_run(verdicts=()))).refusals == ()


def test_a_selected_case_is_blessed_although_another_failed(tmp_path: Path) -> None:
    record = make_record(make_run(), make_run(MINI_BF16, failure=make_failure()))
    proposal = _propose(tmp_path, record, patterns=(ID,))
    assert (proposal.refusals, {change.case for change in proposal.changes}) == ((), {ID})


# What is refused


def test_an_unknown_pattern_is_refused_with_the_ids_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=f"--only 'flux-maxi' matches no case of the run; its cases are: {ID}"
    ):
        _propose(tmp_path, make_record(), patterns=("*", "flux-maxi"))


def test_a_reference_cannot_be_selected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="matches no case of the run"):
        _propose(tmp_path, make_record(), patterns=(MINI_BF16.id,))


def test_an_unknown_platform_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--platform 'h1000' is not one of cpu, h100, h200"):
        _propose(tmp_path, make_record(), platform="h1000")


def test_a_run_of_another_platform_than_asked_is_refused(tmp_path: Path) -> None:
    refusal = _refusal(tmp_path, make_run(), platform="h100")
    assert "a run of another platform: it was measured on cpu, not on h100" in refusal


@pytest.mark.parametrize("platform", ["h100", "moon"])
def test_a_case_is_refused_on_a_platform_that_its_row_does_not_name(tmp_path: Path, platform: str) -> None:
    refusal = _refusal(tmp_path, msgspec.structs.replace(make_run(), platform=platform))
    assert f"it was measured on {platform}, and the matrix has the case on cpu" in refusal


def test_a_record_that_names_another_gpu_than_its_platform_is_refused(tmp_path: Path) -> None:
    process = make_process(environment=make_environment(gpu=msgspec.structs.replace(GPU, name="NVIDIA L4")))
    refusal = _refusal(tmp_path, make_run(FLUX_FP8, H100, processes=(process,)))
    assert "it ran on NVIDIA L4, which is not h100" in refusal


def test_processes_of_different_units_are_refused(tmp_path: Path) -> None:
    elsewhere = make_process(environment=make_environment(cpu_model="Another CPU"))
    refusal = _refusal(tmp_path, make_run(processes=(make_process(), elsewhere)))
    assert f"its processes ran on different units: Another CPU, {CPU_MODEL}" in refusal


def test_a_case_that_the_matrix_does_not_have_is_refused(tmp_path: Path) -> None:
    assert "the matrix has no such case" in _refusal(tmp_path, make_run(make_case(compile_vae=True)))


def test_a_case_that_has_changed_since_the_run_is_refused(tmp_path: Path) -> None:
    refusal = _refusal(tmp_path, make_run(digest="0123456789abcdef"))
    assert f"digest 0123456789ab then, {MINI_INT8WO.digest[:12]} now" in refusal


def test_a_fire_drill_is_refused(tmp_path: Path) -> None:
    assert "faults were injected into it: memory:+2%" in _refusal(
        tmp_path, make_run(injected=("memory:+2%",))
    )


@pytest.mark.parametrize(
    "status",
    [
        *(status for status in Status if status.is_error),
        Status.INVALID,
        Status.UNSUPPORTED,
        Status.NOT_RUN,
    ],
)
def test_a_case_that_was_not_measured_as_asked_is_refused(tmp_path: Path, status: Status) -> None:
    refusal = _refusal(tmp_path, make_run(status=status, reason="the reason"))
    assert refusal == f"{ID}: it is {status}: the reason"


def test_a_failure_is_refused_with_its_message(tmp_path: Path) -> None:
    assert "it failed: out of memory at 79 GiB" in _refusal(tmp_path, make_run(failure=make_failure()))


@pytest.mark.parametrize("status", [Status.INCONCLUSIVE, Status.INVALID])
def test_one_verdict_that_could_not_be_given_refuses_the_case(tmp_path: Path, status: Status) -> None:
    verdicts = (make_verdict("ssim", Status.REGRESSED), make_verdict("psnr_db", status))
    refusal = _refusal(tmp_path, make_run(status=Status.REGRESSED, verdicts=verdicts))
    assert f"psnr_db is {status}: because of psnr_db" in refusal


def test_an_inconclusive_case_that_was_judged_is_refused(tmp_path: Path) -> None:
    run = make_run(status=Status.INCONCLUSIVE, reason="noise", verdicts=(make_verdict("ssim", Status.PASS),))
    assert "it is INCONCLUSIVE: noise" in _refusal(tmp_path, run)


def test_a_gated_metric_that_was_not_measured_is_refused(tmp_path: Path) -> None:
    refusal = _refusal(tmp_path, make_run(processes=(make_process(fidelity=None),)))
    assert f"psnr_db of {ID} is missing" in refusal


def test_an_exact_metric_that_differs_between_processes_is_refused(tmp_path: Path) -> None:
    refusal = _refusal(tmp_path, make_run(processes=(_with_bytes(5.0), _with_bytes(6.0))))
    assert "weight_bytes has no exact value, its processes differ: 5, 6" in refusal


def test_one_refused_case_stops_the_writing_of_all(tmp_path: Path) -> None:
    record = make_record(make_run(), make_run(MINI_BF16, failure=make_failure()))
    with pytest.raises(UsageError, match="nothing was written: flux-mini-b1-bf16-eager: it failed"):
        write(_propose(tmp_path, record))
    assert list(tmp_path.iterdir()) == []


def test_a_broken_baseline_file_is_not_overwritten(tmp_path: Path) -> None:
    path = files.path_of(tmp_path, "cpu", "flux-mini")
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(BaselineError, match="is not JSON"):
        _propose(tmp_path, make_record())
    assert path.read_text() == "{"


def test_an_incomplete_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(msgspec.json.encode(make_record())[:-20])
    with pytest.raises(RecordError, match=r"run\.json"):
        candidates.read_run(tmp_path)


def test_a_missing_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"run\.json"):
        candidates.read_run(tmp_path / "run.json")


def _on_h100(*steps_ms: float, **telemetry: Any) -> Process:
    samples = tuple(
        make_sample({"denoise_step_ms": [each]}, telemetry=make_telemetry(**telemetry)) for each in steps_ms
    )
    return make_process(samples=samples, environment=make_environment(gpu=GPU))


def test_a_throttled_run_is_refused_though_no_test_judged_its_times(tmp_path: Path) -> None:
    process = _on_h100(100.0, throttle_reasons=("HwThermalSlowdown",))
    refusal = _refusal(tmp_path, make_run(FLUX_FP8, H100, processes=(process,)))
    assert refusal.endswith(
        "its times cannot be trusted: the GPU was throttled during process 1: HwThermalSlowdown"
    )


def test_a_run_so_noisy_that_its_entry_would_gate_nothing_is_refused(tmp_path: Path) -> None:
    refusal = _refusal(tmp_path, make_run(FLUX_FP8, H100, processes=(_on_h100(100.0, 110.0, 120.0),)))
    # 1.4826 x 10 ms of 110 ms.
    assert "its generations lie 13.5 % apart, more than 5 %" in refusal


SPARSE24 = "flux1-dev-b1-int8dq-sparse24-regional"


@pytest.mark.parametrize(
    ("steps_ms", "refused"), [((550.0, 900.0, 600.0), False), ((550.0, 1100.0, 1900.0), True)]
)
def test_generations_of_an_unsteady_scheme_may_lie_half_its_limit_apart(
    tmp_path: Path, steps_ms: tuple[float, ...], refused: bool
) -> None:
    run = make_run(candidates.CASES[SPARSE24].case, H100, processes=(_on_h100(*steps_ms),))
    # 1.4826 x 50 ms of 600 ms is 12.4 %; x 550 ms of 1100 ms is 74.1 %.
    assert ("its generations lie 74.1 % apart, more than 50 %" in _refusal(tmp_path, run)) is refused


def _sparse24(*steps_ms: tuple[float, ...]) -> RunRecord:
    """A session of the unsteady scheme, a process for each group of steps."""
    case = candidates.CASES[SPARSE24].case
    run = make_run(case, H100, processes=tuple(_on_h100(*each) for each in steps_ms))
    return make_record(
        run, references=(make_reference(case, H100, processes=(_on_h100(130.0, 130.0, 130.0),)),)
    )


def test_what_a_steady_scheme_is_refused_for_an_unsteady_one_is_accepted_with(tmp_path: Path) -> None:
    proposal = _propose(tmp_path, _sparse24((655.0, 935.0, 807.0)))
    write(proposal)
    assert proposal.refusals == ()
    run = make_run(FLUX_FP8, H100, processes=(_on_h100(655.0, 935.0, 807.0),))
    # 1.4826 x 128 ms of 807 ms
    assert "its generations lie 23.5 % apart, more than 5 %" in _refusal(tmp_path, run)


def test_processes_of_an_unsteady_scheme_may_lie_half_its_limit_apart(tmp_path: Path) -> None:
    assert _propose(tmp_path, _sparse24((600.0,) * 3, (1100.0,) * 3)).refusals == ()
    (refusal,) = _propose(tmp_path, _sparse24((600.0,) * 3, (1300.0,) * 3)).refusals
    # log(1300 / 600) / sqrt(2)
    assert "the standard deviation of their denoise_step_ms is 54.7 %, more than 50 %" in refusal


def test_processes_of_an_unsteady_scheme_leave_the_noise_of_their_platform_as_it_is(tmp_path: Path) -> None:
    write(_propose(tmp_path, _sparse24((600.0,) * 3, (1100.0,) * 3)))
    noise = files.load_noise(tmp_path, H100)
    assert noise["denoise_step_ms"] == noise["speedup_vs_bf16"] == Noise(sd_pct=0.36, dof=6)
    assert noise["decode_ms"] == Noise(sd_pct=0.3333, dof=7)


# Noise of a platform


def _timed(*steps_ms: float) -> RunRecord:
    """A session of FLUX.1-dev on an H100, a process for each step time."""
    processes = tuple(_on_h100(step_ms, step_ms, step_ms) for step_ms in steps_ms)
    reference = make_reference(FLUX_FP8, H100, processes=(_on_h100(100.0),))
    return make_record(make_run(FLUX_FP8, H100, processes=processes), references=(reference,))


def test_accepting_processes_adds_what_they_show_to_the_noise_of_their_platform(tmp_path: Path) -> None:
    write(_propose(tmp_path, _timed(100.0, 101.0)))
    noise = files.load_noise(tmp_path, H100)
    # (6 x 0.36^2 + 1 x 0.7036^2) / 7, where 0.7036 % is the sd of log(100) and log(101)
    assert noise["denoise_step_ms"] == Noise(sd_pct=0.4264, dof=7)
    # Two values that are the same are a degree of freedom, too.
    assert noise["decode_ms"] == Noise(sd_pct=0.3333, dof=7)
    assert store.problems(tmp_path) == ()


def test_one_process_says_nothing_of_the_noise(tmp_path: Path) -> None:
    write(_propose(tmp_path, _timed(100.0)))
    assert files.load_noise(tmp_path, H100)["denoise_step_ms"] == Noise(sd_pct=0.36, dof=6)


def test_a_platform_without_noisy_gates_gets_no_file_of_noise(tmp_path: Path) -> None:
    write(_propose(tmp_path, make_record(make_run(processes=(make_process(),) * 3))))
    assert [path.name for path in (tmp_path / "cpu").iterdir()] == ["flux-mini.json"]


@pytest.mark.parametrize(
    "change", [lambda path: path.unlink(), lambda path: path.write_text("{}\n")], ids=["missing", "empty"]
)
def test_noise_that_is_not_that_of_the_baselines_is_a_problem_until_it_is_rewritten(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    write(_propose(tmp_path, _timed(100.0, 101.0)))
    path = files.noise_path(tmp_path, "h100")
    change(path)
    (problem,) = store.problems(tmp_path)
    assert "noise.json is not the noise of the baselines beside it" in problem
    assert store.rewrite(tmp_path) == (path,)
    assert store.problems(tmp_path) == ()


def test_processes_further_apart_than_the_platforms_are_are_refused(tmp_path: Path) -> None:
    (refusal,) = _propose(tmp_path, _timed(100.0, 104.0, 100.0)).refusals
    assert (
        "its 3 processes lie apart: the standard deviation of their denoise_step_ms is 6.3 times" in refusal
    )
    assert "the 0.36 % of this platform; measure it again on a quiet machine" in refusal
    assert _propose(tmp_path, _timed(100.0, 100.5, 100.0)).refusals == ()


# The first reference


def _first(root: Path) -> dict[str, tuple[float, ...]]:
    return files.load(root, "h100")["flux1-dev"].cases[FLUX_FP8.id].first


def test_ten_accepted_steps_of_one_percent_fail_at_the_bound(tmp_path: Path) -> None:
    accepted = 0
    for step in range(11):
        proposal = _propose(tmp_path, _timed(100.0 * 1.01**step))
        if proposal.refusals:
            break
        write(proposal)
        accepted = step
    # 1.01^4 is 4.06 %, 1.01^5 is 5.10 %
    assert accepted == 4
    assert proposal.refusals == (
        f"{FLUX_FP8.id}: has moved too far: denoise_step_ms +5.10 % from its first reference in accepted "
        "steps, the limit is +5.00 %: undo one of them, or start anew with --new-first-reference REASON",
    )
    assert _first(tmp_path)["denoise_step_ms"] == (100.0,)


def test_each_accepted_step_shows_what_they_add_up_to(tmp_path: Path) -> None:
    write(_propose(tmp_path, _timed(100.0)))
    write(_propose(tmp_path, _timed(101.0)))
    changes = {each.metric: each for each in _propose(tmp_path, _timed(103.0)).changes}
    assert changes["denoise_step_ms"].change_pct == pytest.approx(1.98, abs=0.001)
    assert changes["denoise_step_ms"].since_first_pct == pytest.approx(3.0)


def test_getting_faster_has_no_bound(tmp_path: Path) -> None:
    write(_propose(tmp_path, _timed(100.0)))
    proposal = _propose(tmp_path, _timed(50.0))
    assert proposal.refusals == ()


def test_a_new_first_reference_needs_its_own_reason_which_stays(tmp_path: Path) -> None:
    write(_propose(tmp_path, _timed(100.0)))
    write(_propose(tmp_path, _timed(110.0), first_reason="  a better sampler "))
    write(_propose(tmp_path, _timed(111.0)))
    entry = files.load(tmp_path, "h100")["flux1-dev"].cases[FLUX_FP8.id]
    assert entry.first["denoise_step_ms"] == (110.0,)
    assert entry.first_reason == "a better sampler"


def test_only_what_gates_is_held_against_the_first(tmp_path: Path) -> None:
    write(_propose(tmp_path, make_record()))
    assert set(files.load(tmp_path, "cpu")["flux-mini"].cases[ID].first) == {"model_memory_mib"}


def test_an_entry_without_a_first_reference_is_its_own(tmp_path: Path) -> None:
    write(_propose(tmp_path, _timed(100.0)))
    path = files.path_of(tmp_path, "h100", "flux1-dev")
    before = files.read(path)
    entry = msgspec.structs.replace(before.cases[FLUX_FP8.id], first={})
    files.write(path, msgspec.structs.replace(before, cases={FLUX_FP8.id: entry}))
    write(_propose(tmp_path, _timed(101.0)))
    assert _first(tmp_path)["denoise_step_ms"] == (100.0,)


def test_another_digest_begins_another_first_reference(tmp_path: Path) -> None:
    write(_propose(tmp_path, _timed(100.0)))
    path = files.path_of(tmp_path, "h100", "flux1-dev")
    before = files.read(path)
    entry = msgspec.structs.replace(before.cases[FLUX_FP8.id], digest="d" * 64)
    files.write(path, msgspec.structs.replace(before, cases={FLUX_FP8.id: entry}))
    write(_propose(tmp_path, _timed(200.0)))
    assert _first(tmp_path)["denoise_step_ms"] == (200.0,)


def test_an_entry_that_drifted_without_being_asked_is_a_problem(tmp_path: Path) -> None:
    write(_propose(tmp_path, _timed(100.0)))
    path = files.path_of(tmp_path, "h100", "flux1-dev")
    before = files.read(path)
    entry = before.cases[FLUX_FP8.id]
    moved = msgspec.structs.replace(entry, metrics={**entry.metrics, "denoise_step_ms": (110.0,)})
    files.write(path, msgspec.structs.replace(before, cases={FLUX_FP8.id: moved}))
    (problem,) = store.problems(tmp_path)
    assert "has moved too far: denoise_step_ms +10.00 %" in problem
