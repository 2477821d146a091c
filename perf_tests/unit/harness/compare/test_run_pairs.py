from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.compare.run_pairs import REGRESSED, SAME, UNDECIDED, RunComparison, compare, explained
from perf_tests.harness.plugin.options import parse_drill
from perf_tests.harness.plugin.session import PerfSession
from perf_tests.harness.rebaseline import candidates, store
from perf_tests.harness.rebaseline.candidates import RunFile
from perf_tests.harness.rebaseline.pooling import pool
from perf_tests.harness.rebaseline.proposal import Terms, propose, write
from perf_tests.harness.runs.record import STATUS_OF_FAILURE, Process, Run, RunRecord, Status
from perf_tests.harness.runs.record_file import read_record
from perf_tests.harness.verdicts.gates import gated_metrics
from perf_tests.protocol.messages import FailureKind
from perf_tests.tables.metrics.spec import Group, Reader
from perf_tests.tables.platforms import CPU, H100, PLATFORMS
from perf_tests.unit.builders import (
    FLUX_FP8,
    MINI_BF16,
    MINI_INT8WO,
    make_build,
    make_case,
    make_failure,
    make_process,
    make_record,
    make_run,
)
from perf_tests.unit.conftest import CASES, FP8DQROW, INT8WO, make_options

ID = MINI_INT8WO.id
NOISE = {
    platform.id: store.noise_in_force(Path("nowhere"), platform)  # as the rows of the platforms say
    for platform in PLATFORMS
}


def compared(base: RunRecord, candidate: RunRecord, max_processes: int = 5) -> RunComparison:
    return compare(RunFile(path=Path("base"), record=base, sha256="f" * 64), candidate, NOISE, max_processes)


def with_values(**values: float) -> Process:
    """A process of int8wo with the error and the embeddings that are expected of it."""
    expected = {"output_sqnr_db": 38.0, "distinct_prompt_embeddings": 4.0}
    return make_process(build=make_build({**expected, **values}))


def good(**changes: Any) -> Run:
    return make_run(**{"processes": (with_values(),), **changes})


def failed(kind: FailureKind) -> Run:
    return make_run(status=STATUS_OF_FAILURE[kind], failure=make_failure(kind=kind))


def test_a_run_compared_with_itself_is_the_same() -> None:
    comparison = compared(make_record(good()), make_record(good()))
    assert comparison.code == SAME
    assert {each.status for run in comparison.runs for each in run.verdicts} == {Status.PASS}
    assert explained(comparison) == []


def test_a_counter_that_differs_is_a_regression_with_its_reason() -> None:
    worse = make_run(processes=(with_values(graph_breaks=2.0),))
    comparison = compared(make_record(good()), make_record(worse))
    assert comparison.code == REGRESSED
    assert explained(comparison) == [
        f"{ID}: graph_breaks REGRESSED: 2 instead of 1, and no difference is allowed"
    ]


@pytest.mark.parametrize(
    ("case_id", "noisy"),
    [("flux1-dev-b1-int8dq-sparse24-regional", 1), ("flux1-dev-b1-fp8dqrow-regional", 3)],
)
def test_level_is_set_by_the_metrics_that_a_statistical_test_judges(case_id: str, noisy: int) -> None:
    record = make_record(make_run(candidates.CASES[case_id].case, H100))
    assert compared(record, record).noisy_metrics == noisy


@pytest.mark.parametrize(
    ("memory_mib", "code"),
    [pytest.param(0.9, SAME, id="far-better"), pytest.param(1.1, REGRESSED, id="worse")],
)
def test_an_improvement_is_not_a_failure_even_without_a_reason(memory_mib: float, code: int) -> None:
    process = with_values(model_memory_mib=memory_mib)
    assert compared(make_record(good()), make_record(make_run(processes=(process,)))).code == code


def test_a_regression_outweighs_cases_that_are_undecided() -> None:
    worse = make_run(processes=(with_values(graph_breaks=2.0),))
    comparison = compared(make_record(good()), make_record(worse, make_run(MINI_BF16)))
    assert comparison.code == REGRESSED
    assert explained(comparison)[-1] == f"not compared: {MINI_BF16.id}: only the candidate has it"


@pytest.mark.parametrize(
    ("base", "candidate", "why"),
    [
        pytest.param(
            make_record(good(), make_run(MINI_BF16)), make_record(good()), "only the base has it", id="lost"
        ),
        pytest.param(
            make_record(good(injected=("oom",))), make_record(good()), "faults were injected into", id="drill"
        ),
        pytest.param(
            make_record(failed(FailureKind.OOM)),
            make_record(good()),
            "the base is ERROR(oom)",
            id="base-failed",
        ),
        pytest.param(
            make_record(good()),
            make_record(good(status=Status.NOT_RUN, reason="no time")),
            "the candidate is NOT_RUN(budget): no time",
            id="not-run",
        ),
        pytest.param(
            make_record(good()),
            make_record(failed(FailureKind.UNSUPPORTED)),
            "is UNSUPPORTED",
            id="unsupported",
        ),
        pytest.param(
            make_record(good()),
            make_record(msgspec.structs.replace(good(), platform=H100.id)),
            "the base was measured on cpu, the candidate on h100",
            id="platform",
        ),
        pytest.param(
            make_record(make_run(make_case(compile_vae=True))),
            make_record(make_run(make_case(compile_vae=True))),
            "the matrix has no such case",
            id="unknown",
        ),
    ],
)
def test_a_case_that_cannot_be_compared_is_listed_with_the_reason(
    base: RunRecord, candidate: RunRecord, why: str
) -> None:
    comparison = compared(base, candidate)
    assert comparison.code == UNDECIDED
    (sentence,) = comparison.not_compared
    assert why in sentence


def test_a_case_that_neither_run_supports_is_not_compared_and_does_no_harm() -> None:
    unsupported = make_run(
        MINI_BF16, status=Status.UNSUPPORTED, failure=make_failure(kind=FailureKind.UNSUPPORTED)
    )
    comparison = compared(make_record(good(), unsupported), make_record(good(), unsupported))
    assert (comparison.code, [run.id for run in comparison.runs]) == (SAME, [ID])


def test_runs_without_a_case_cannot_be_compared() -> None:
    nothing = msgspec.structs.replace(make_record(), cases=())
    assert compared(nothing, nothing).code == UNDECIDED


def test_a_candidate_that_failed_where_the_base_did_not_has_regressed() -> None:
    comparison = compared(make_record(good()), make_record(failed(FailureKind.OOM)))
    assert comparison.code == REGRESSED
    assert explained(comparison) == [f"{ID}: ERROR(oom): out of memory at 79 GiB"]


def test_a_candidate_that_is_unproven_is_judged_by_what_names_the_culprit() -> None:
    unproven = make_run(
        status=Status.UNPROVEN,
        failure=make_failure(kind=FailureKind.UNPROVEN, message="a layer was left out"),
        processes=(with_values(quantized_modules=3.0),),
    )
    (run,) = compared(make_record(good()), make_record(unproven)).runs
    judged = {each.metric: each.status for each in run.verdicts}
    assert judged["quantized_modules"] is Status.REGRESSED
    assert not {"model_memory_mib", "time_ratio_vs_fp32"} & judged.keys()


@pytest.mark.parametrize(
    ("case_id", "platform", "injected"),
    [
        pytest.param(FP8DQROW, H100, ("latency:+6%",), id="h100-slower"),
        pytest.param(INT8WO, CPU, (), id="cpu-unchanged"),
    ],
)
def test_verdicts_are_those_of_the_session(
    tmp_path: Path, recorded: Path, case_id: str, platform: Any, injected: tuple[str, ...]
) -> None:
    base = _measured(tmp_path / "base", recorded, case_id, platform, ())
    store = tmp_path / "baselines"
    store.mkdir()
    source = pool((candidates.read_run(tmp_path / "base"),))
    proposal = propose(source, root=store, patterns=("*",), terms=Terms(reason="base"))
    write(proposal)
    candidate = _measured(tmp_path / "candidate", store, case_id, platform, injected)

    (run,) = compared(base, candidate).runs
    (judged,) = candidate.cases
    assert {each.metric: each for each in run.verdicts} == {each.metric: each for each in judged.verdicts}
    assert (run.status, len(judged.verdicts) > 5) == (judged.status, True)


def _measured(
    out: Path, baselines: Path, case_id: str, platform: Any, injected: tuple[str, ...]
) -> RunRecord:
    drills = tuple(map(parse_drill, injected))
    session = PerfSession(make_options(out=out, baselines=baselines, drills=drills), (), None)
    for group in Group:
        session.select(CASES[case_id], platform, group)
    for group in Group:
        session.judge(session.measure(case_id), group)
    session.close(cut_short=False)
    return read_record(out)


def without(run: Run, metric: str) -> Run:
    """`run` as if no process had reported `metric`."""

    def strip(process: Process) -> Process:
        values = {name: value for name, value in process.build.values.items() if name != metric}
        samples = tuple(
            msgspec.structs.replace(
                each, values={name: value for name, value in each.values.items() if name != metric}
            )
            for each in process.samples
        )
        build = msgspec.structs.replace(process.build, values=values)
        return msgspec.structs.replace(process, build=build, samples=samples)

    return msgspec.structs.replace(run, processes=tuple(map(strip, run.processes)))


@pytest.mark.parametrize(
    "metric",
    [
        metric.name
        for metric in gated_metrics(FLUX_FP8, H100)
        if metric.reader in (Reader.BUILD, Reader.SAMPLES)
    ],
)
def test_a_metric_that_only_the_candidate_lacks_is_never_the_same(metric: str) -> None:
    run = make_run(FLUX_FP8, H100)
    comparison = compared(make_record(run), make_record(without(run, metric)))
    assert metric in comparison.runs[0].measured or any(metric in line for line in explained(comparison)), (
        explained(comparison)
    )
    assert comparison.code != SAME
