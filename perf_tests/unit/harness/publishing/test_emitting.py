"""Numbers for other people's databases: what they hold, and what never leaves."""

from __future__ import annotations

import json
import runpy
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.publishing import github_benchmark, oss_benchmark
from perf_tests.harness.publishing.measurements import emittable
from perf_tests.harness.publishing.oss_benchmark import OssOrigin
from perf_tests.harness.runs.plan import Plan
from perf_tests.harness.runs.record import Progress, Run, RunRecord, Status
from perf_tests.harness.runs.record_file import write_record
from perf_tests.protocol.errors import UsageError
from perf_tests.tables.metrics.spec import Better
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import (
    FLUX_FP8,
    GPU,
    H100_UUID,
    MINI_BF16,
    MINI_INT8WO,
    make_build,
    make_environment,
    make_failure,
    make_process,
    make_record,
    make_run,
    make_sample,
    make_verdict,
)
from perf_tests.unit.conftest import INT8WO, ROOT, Suite
from perf_tests.unit.harness.plugin.sessions import ONLY_INT8WO

history: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "tools" / "history.py"))["main"]
DATA = Path(__file__).parents[2] / "data"
STEP = "denoise_step_ms"
BYTES = 23_802_816_768.0
"""The weights of FLUX in bf16: no Float32 is as exact."""
VERSIONS = {
    "torch": "2.15.0.dev20261120+cu130 (0123456789)",
    "triton": "3.9.0",
    "torchao": "0.19.0+git36027d82",
    "numpy": "2.4",
}
ORIGIN = OssOrigin(repo="owner/name", branch="main", workflow_id=17, run_attempt=2)
WHEELS = {"torch": "https://example.invalid/torch.whl"}


def judged(case: Any = FLUX_FP8, step_ms: tuple[float, ...] = (60.0, 61.0), **changes: Any) -> Run:
    environment = make_environment(gpu=GPU, packages=VERSIONS)
    processes = tuple(
        make_process(
            environment=environment,
            build=make_build({"weight_bytes": BYTES}),
            samples=(make_sample({STEP: (each,)}),) * 5,
        )
        for each in step_ms
    )
    verdicts = (
        make_verdict(STEP, Status.REGRESSED, measured=60.5, baseline=58.0, limit=59.0),
        make_verdict("weight_bytes", Status.PASS, measured=BYTES, baseline=BYTES),
        make_verdict("psnr_db", Status.PASS, measured=45.0),
        make_verdict("latency_s", Status.NO_BASELINE),
    )
    default = {"status": Status.REGRESSED, "progress": Progress.JUDGED, "reason": "slower"}
    made = make_run(case, H100, processes=processes, verdicts=verdicts)
    return msgspec.structs.replace(made, **{**default, **changes})


def a_record(*runs: Run, **changes: Any) -> RunRecord:
    plan = Plan(cases=(), noisy_metrics=0, commit="c" * 40)
    return make_record(*(runs or (judged(),)), references=(), plan=plan, **changes)


def emitted(record: RunRecord) -> list[dict[str, Any]]:
    """The rows for PyTorch's database, as it reads them."""
    rows = oss_benchmark.records(record, emittable(record).measurements, ORIGIN, WHEELS)
    return [json.loads(line) for line in oss_benchmark.dumps(rows).splitlines()]


@cache
def validator_of(schema: str) -> Any:
    jsonschema = pytest.importorskip("jsonschema", reason="the extra `dev` brings it along")
    described = json.loads((DATA / f"{schema}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(described)
    return jsonschema.Draft202012Validator(described)


def problems(document: Any, schema: str) -> list[str]:
    return [error.message for error in validator_of(schema).iter_errors(document)]


# PyTorch's database


def test_every_row_is_one_of_the_database(suite: Suite, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a GPU by hand, and of a session with fake workers by the tool."""
    suite.run(ONLY_INT8WO)
    capsys.readouterr()
    assert history(["emit", str(suite.out), "--for", "oss-v3"]) == 0
    by_tool = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = emitted(a_record())

    assert len(by_tool) > 20
    assert {row["model"]["name"] for row in by_tool} == {INT8WO}
    assert [problems(row, "oss-benchmark-v3") for row in (*rows, *by_tool)] == [[]] * (3 + len(by_tool))
    assert problems({**rows[0], "dependencies": {}}, "oss-benchmark-v3") != []
    assert problems({**rows[0], "extra": 1}, "oss-benchmark-v3") != []


def test_row_names_its_case_card_and_workflow() -> None:
    row = emitted(a_record())[0]

    assert (row["schema_version"], row["timestamp"]) == ("v3", 1785664800)
    assert (row["repo"], row["head_branch"], row["head_sha"]) == ("owner/name", "main", "c" * 40)
    assert (row["workflow_id"], row["run_attempt"], row["job_id"]) == (17, 2, 0)
    assert row["model"]["name"] == "flux1-dev-b1-fp8dqrow-regional"
    assert (row["model"]["type"], row["model"]["backend"]) == ("flux1-dev", "regional")
    assert (row["benchmark"]["mode"], row["benchmark"]["dtype"]) == ("inference", "fp8dqrow")
    assert row["benchmark"]["extra_info"]["use_compile"] == "true"
    assert row["inputs"]["workload"]["extra_info"] == {
        "batch_size": "1",
        "height": "1024",
        "width": "1024",
        "steps": "28",
    }
    (runner,) = row["runners"]
    assert (runner["name"], runner["type"], runner["gpu_count"]) == ("cuda", GPU.name, 1)
    assert H100_UUID not in json.dumps(row)


def test_commit_of_a_changed_checkout_is_told_from_the_change() -> None:
    commits = f"{'b' * 40} then {'c' * 40}+0123456789ab"
    plan = Plan(cases=(), noisy_metrics=0, commit=commits)
    row = emitted(msgspec.structs.replace(a_record(), plan=plan))[0]

    assert row["head_sha"] == "c" * 40
    assert row["benchmark"]["extra_info"]["suite"] == commits
    assert problems(row, "oss-benchmark-v3") == []


def test_dependencies_are_filled_in_with_commits_and_wheels() -> None:
    found = emitted(a_record())[0]["dependencies"]

    assert list(found) == ["torch", "triton", "torchao"]
    assert found["torch"] == {
        "repo": "pytorch/pytorch",
        "branch": "",
        "sha": "0123456789",
        "version": "2.15.0.dev20261120+cu130",
        "extra_info": {"wheel": "https://example.invalid/torch.whl"},
    }
    assert (found["torchao"]["repo"], found["torchao"]["sha"]) == ("pytorch/ao", "36027d82")
    assert (found["triton"]["sha"], found["triton"]["version"]) == ("", "3.9.0")


def test_values_are_those_of_each_process() -> None:
    metric = emitted(a_record())[0]["metric"]

    assert metric["name"] == STEP
    assert metric["benchmark_values"] == pytest.approx([60.0, 61.0])
    assert metric["extra_info"] == {
        "unit": "ms",
        "better": "lower",
        "status": "REGRESSED",
        "baseline": "58.0",
        "limit": "59.0",
    }


def test_bytes_are_exact_beside_what_float32_holds() -> None:
    metric = emitted(a_record())[1]["metric"]

    assert metric["name"] == "weight_mib"
    assert metric["extra_info"]["exact_bytes"] == "23802816768 23802816768"
    assert metric["extra_info"]["unit"] == "MiB"
    (stored,) = struct.unpack("f", struct.pack("f", BYTES))
    assert stored != BYTES
    assert metric["benchmark_values"][0] * 2**20 == BYTES


def test_whole_number_beyond_float32_is_exact_beside_it() -> None:
    process = make_process(build=make_build({"step_tflop": 16_777_217.0}))
    verdict = make_verdict("step_tflop", Status.PASS, measured=16_777_217.0)
    (row,) = emitted(a_record(judged(processes=(process,), verdicts=(verdict,))))

    assert row["metric"]["extra_info"]["exact"] == "16777217"


# Charts of GitHub's action


@pytest.mark.parametrize(("better", "name"), [(Better.LOWER, STEP), (Better.HIGHER, "psnr_db")])
def test_entries_of_one_direction_are_what_the_action_reads(better: Better, name: str) -> None:
    made = github_benchmark.entries(emittable(a_record()).measurements, better)
    read = json.loads(github_benchmark.dumps(made))

    assert [each["name"] for each in read] == [f"flux1-dev-b1-fp8dqrow-regional {name} (h100)"]
    assert problems(read, "github-action-benchmark") == []
    assert problems([{**read[0], "value": "60.5"}], "github-action-benchmark") != []


def test_entry_has_the_value_that_was_judged_and_what_the_processes_span() -> None:
    (entry,) = github_benchmark.entries(emittable(a_record()).measurements, Better.LOWER)

    assert (entry.value, entry.unit, entry.range) == (60.5, "ms", "± 0.5")
    assert entry.extra.splitlines()[:3] == ["REGRESSED", "2 processes", f"torch {VERSIONS['torch']}"]


def test_direction_that_no_metric_has_is_refused() -> None:
    verdicts = (make_verdict("weight_bytes", Status.PASS, measured=BYTES),)
    found = emittable(a_record(judged(verdicts=verdicts))).measurements

    with pytest.raises(UsageError, match="no metric of which higher is better: nothing can be emitted"):
        github_benchmark.entries(found, Better.HIGHER)


# What never leaves


@pytest.mark.parametrize("where", ["cases", "references"])
def test_fire_drill_is_never_emitted_whole_or_in_part(where: str) -> None:
    drill = judged(MINI_BF16, injected=("latency:+5%",))
    record = msgspec.structs.replace(a_record(), **{where: (judged(), drill)})

    with pytest.raises(UsageError, match="this is a fire drill: faults were injected into flux-mini-b1-bf16"):
        emittable(record)


def test_session_with_planted_faults_emits_nothing(suite: Suite, capsys: pytest.CaptureFixture[str]) -> None:
    suite.run(ONLY_INT8WO, "--perf-inject=latency:+200%")
    capsys.readouterr()

    for target in ("oss-v3", "smaller", "bigger"):
        assert history(["emit", str(suite.out), "--for", target]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"history: this is a fire drill: faults were injected into {INT8WO}")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"failure": make_failure(), "status": Status.OOM}, "ERROR(oom)"),
        ({"status": Status.UNPROVEN}, "ERROR(unproven)"),
        ({"status": Status.INVALID}, "INVALID"),
        ({"progress": Progress.INTERRUPTED}, "was not measured to its end"),
        ({"id": "another"}, "the matrix has no such case; use the checkout that measured it"),
    ],
)
def test_case_that_proves_nothing_is_left_out_by_name(changes: dict[str, Any], why: str) -> None:
    left = judged(MINI_INT8WO, **changes)
    found = emittable(a_record(judged(), left))

    assert {each.run.id for each in found.measurements} == {FLUX_FP8.id}
    assert found.left_out == (f"{left.id}: {why}",)
    with pytest.raises(UsageError, match="no case that was measured, proven and judged"):
        emittable(a_record(left))


def test_disturbed_or_absent_value_is_left_out() -> None:
    verdicts = (
        make_verdict(STEP, Status.INVALID, measured=60.5),
        make_verdict("latency_s", Status.INCONCLUSIVE),
        make_verdict("psnr_db", Status.PASS, measured=45.0),
    )
    found = emittable(a_record(judged(verdicts=verdicts)))

    assert [each.metric.name for each in found.measurements] == ["psnr_db"]


def test_tool_says_where_it_ran_and_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = judged(MINI_INT8WO, status=Status.INVALID)
    write_record(tmp_path / "run.json", a_record(judged(), lost))
    (tmp_path / "wheels.json").write_text(json.dumps(WHEELS))
    for name, value in (("REPOSITORY", "owner/name"), ("RUN_ID", "17"), ("RUN_ATTEMPT", "x")):
        monkeypatch.setenv(f"GITHUB_{name}", value)

    wheels = ["--wheels", str(tmp_path / "wheels.json")]
    assert history(["emit", str(tmp_path), "--for", "oss-v3", *wheels]) == 0

    out, err = capsys.readouterr()
    row = json.loads(out.splitlines()[0])
    assert (row["repo"], row["workflow_id"], row["run_attempt"]) == ("owner/name", 17, 0)
    assert row["dependencies"]["torch"]["extra_info"] == {"wheel": WHEELS["torch"]}
    assert err == f"history: left out: {MINI_INT8WO.id}: INVALID\n"
