from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.compare import published
from perf_tests.harness.compare.published import PublishedMatch, PublishedQuantity, compare
from perf_tests.harness.runs.record import Run, Status
from perf_tests.protocol.errors import BaselineError
from perf_tests.tables.cases import Weights
from perf_tests.tables.platforms import H100, H200, Platform
from perf_tests.tables.published import Column, PublishedRow
from perf_tests.unit.builders import (
    FLUX_FP8,
    GPU,
    make_environment,
    make_failure,
    make_process,
    make_record,
    make_run,
    make_sample,
    make_telemetry,
)
from perf_tests.unit.published import CASES, FLUX_INT8DQ, make_row, measured

HEAD = (
    "gpu,pipeline,batch_size,fuse_qkv,compile,compile_vae,scheme,model_memory_gib,peak_memory_gib,latency_s"
)
LINE = "H100,flux1-dev,1,false,true,false,fp8dqrow,20.37,31.82,3.039,flux1-dev-b1-fp8dqrow-regional,"


def only(run: Run, *rows: PublishedRow) -> PublishedMatch:
    """The only match of `run` and `rows`."""
    (match,) = compare(make_record(run, references=()), rows or (make_row(),)).matches
    return match


# Reading


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: str, head: str = f"{HEAD},case,reason") -> Path:
        (tmp_path / "table.csv").write_text("\n".join([head, *lines, ""]), encoding="utf-8")
        return tmp_path

    return write


def test_a_row_is_read_with_its_types(table: Callable[..., Path]) -> None:
    assert published.read(table(LINE)) == (
        make_row(model_memory_gib=20.37, peak_memory_gib=31.82, latency_s=3.039),
    )


def test_an_empty_cell_is_a_value_that_was_not_published(table: Callable[..., Path]) -> None:
    (row,) = published.read(table(LINE.replace(",20.37,31.82,", ",,,")))
    assert (row.model_memory_gib, row.peak_memory_gib, row.latency_s) == (None, None, 3.039)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        pytest.param(
            LINE.replace("-regional,", "-eager,"), "its attributes say .*-regional'", id="other-case"
        ),
        pytest.param(f"{LINE}dropped", "but the row says .*'dropped'", id="case-and-reason"),
        pytest.param(LINE.replace("flux1-dev-b1-fp8dqrow-regional", ""), "'case': None", id="neither"),
        pytest.param(LINE.replace("fp8dqrow,", "int3wo,"), "schemes knows 'int3wo'", id="scheme"),
        pytest.param(LINE.replace("flux1-dev,", "sdxl,"), "knows 'sdxl'", id="pipeline"),
        pytest.param(LINE.replace("3.039", "fast"), "fast|float", id="text-for-number"),
        pytest.param(LINE.replace("3.039", "0"), "positive numbers", id="zero"),
        pytest.param(LINE.replace("20.37", "inf"), "positive numbers", id="infinite"),
        pytest.param("H100,flux1-dev", "bool|batch_size", id="cut-off"),
        pytest.param(f"{LINE},7", "more cells than columns", id="too-long"),
    ],
)
def test_a_broken_row_is_refused_with_its_line(table: Callable[..., Path], line: str, error: str) -> None:
    with pytest.raises(BaselineError, match=f"table.csv is broken in line 3: .*({error})"):
        published.read(table(LINE, line))


def test_an_unknown_column_is_refused(table: Callable[..., Path]) -> None:
    with pytest.raises(BaselineError, match="columns that no published table has: watts"):
        published.read(table(f"{LINE},700", head=f"{HEAD},case,reason,watts"))


def test_a_missing_column_is_refused(table: Callable[..., Path]) -> None:
    with pytest.raises(BaselineError, match="reason"):
        published.read(table(LINE.removesuffix(","), head=f"{HEAD},case"))


def test_a_folder_without_tables_is_refused_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="--published-dir"):
        published.read(tmp_path)


# Comparing


def test_quantities_are_ours_and_theirs_in_gib() -> None:
    match = only(measured(4.4, model_gib=20.25, peak_gib=24.0))
    assert match.latency_s == PublishedQuantity(ours=4.4, theirs=4.0)
    assert match.latency_s.ratio == pytest.approx(1.1)
    assert match.model_memory_gib == PublishedQuantity(ours=20.25, theirs=20.0)
    assert match.peak_memory_gib == PublishedQuantity(ours=24.0, theirs=30.0)
    assert match.exceeded == {}


@pytest.mark.parametrize(
    ("latency_s", "model_gib", "unexplained"),
    [
        pytest.param(5.0, 20.0, (), id="at-the-latency-limit"),
        pytest.param(5.004, 20.0, (Column.LATENCY,), id="slower"),
        pytest.param(1.0, 20.0, (), id="faster"),
        pytest.param(4.0, 20.39, (), id="within-two-percent"),
        pytest.param(4.0, 20.41, (Column.MODEL_MEMORY,), id="larger"),
        pytest.param(4.0, 19.59, (Column.MODEL_MEMORY,), id="smaller"),
        pytest.param(6.0, 21.0, (Column.LATENCY, Column.MODEL_MEMORY), id="both"),
    ],
)
def test_quantities_beyond_their_limit_need_an_explanation(
    latency_s: float, model_gib: float, unexplained: tuple[Column, ...]
) -> None:
    assert only(measured(latency_s, model_gib)).unexplained == unexplained


def test_a_peak_is_not_judged() -> None:
    assert only(measured(4.0, peak_gib=70.0)).unexplained == ()


@pytest.mark.parametrize(
    ("gpu", "platform"), [pytest.param("A100", H100, id="a100"), pytest.param("H100", H200, id="h200")]
)
def test_latency_is_not_judged_on_another_gpu_but_bytes_are(gpu: str, platform: Platform) -> None:
    slow = only(measured(9.0, platform=platform), make_row(gpu=gpu))
    assert (slow.same_gpu, slow.unexplained) == (False, ())
    large = only(measured(9.0, model_gib=30.0, platform=platform), make_row(gpu=gpu))
    assert large.unexplained == (Column.MODEL_MEMORY,)


def test_an_explained_row_is_not_unexplained() -> None:
    row = make_row(case=FLUX_INT8DQ.id, scheme="int8dq")
    match = only(measured(5.6, model_gib=22.9, case=FLUX_INT8DQ), row)
    assert set(match.exceeded) == {Column.LATENCY, Column.MODEL_MEMORY}
    assert match.unexplained == ()


def test_matches_are_sorted_with_the_worst_latency_first() -> None:
    fused, plain = CASES["flux1-dev-b1-fp8dqrow-regional-fused"], FLUX_FP8
    rows = (
        make_row(gpu="A100", latency_s=8.0),
        make_row(),
        make_row(case=fused.id, fuse_qkv=True, latency_s=3.5),
    )
    record = make_record(measured(4.2, case=plain), measured(4.2, case=fused), references=())
    matches = compare(record, rows).matches
    assert [(each.case, each.row.gpu) for each in matches] == [
        (fused.id, "H100"),
        (plain.id, "H100"),
        (plain.id, "A100"),
    ]


def test_references_are_compared_as_well_but_only_once() -> None:
    reference = measured(6.0, model_gib=31.4, case=FLUX_FP8.reference)
    row = make_row(case=FLUX_FP8.reference.id, scheme="bf16", model_memory_gib=31.4, latency_s=6.0)
    separate = make_record(measured(4.0), references=(reference,))
    selected = make_record(measured(4.0), reference, references=(reference,))
    assert [len(compare(record, [row]).matches) for record in (separate, selected)] == [1, 1]


def test_a_run_with_pretrained_weights_is_compared_with_the_same_row() -> None:
    build = dataclasses.replace(FLUX_FP8.build, weights=Weights.PRETRAINED)
    pretrained = dataclasses.replace(FLUX_FP8, build=build)
    assert only(measured(4.0, case=pretrained)).case == "flux1-dev-b1-fp8dqrow-regional-pretrained"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param(
            {"failure": make_failure(), "status": Status.OOM},
            "ERROR(oom): out of memory at 79 GiB",
            id="failed",
        ),
        pytest.param({"injected": ("latency:+5%",)}, "faults were injected into it: latency:+5%", id="drill"),
        pytest.param(
            {"digest": "0" * 64}, "the case has changed since the run: measure it again", id="changed"
        ),
        pytest.param(
            {"measured": {}, "status": Status.NOT_RUN, "reason": "the time is spent"},
            "latency_s was not measured, it is NOT_RUN(budget): the time is spent",
            id="not-measured",
        ),
        pytest.param(
            {
                "processes": (
                    make_process(
                        environment=make_environment(gpu=GPU),
                        samples=(make_sample(telemetry=make_telemetry(compute_processes=2)),),
                    ),
                )
            },
            "its times cannot be trusted: 2 processes computed on the GPU during process 1, "
            "where the worker should have been alone",
            id="disturbed",
        ),
    ],
)
def test_a_run_that_cannot_be_compared_is_listed_with_the_reason(changes: dict[str, Any], why: str) -> None:
    comparison = compare(make_record(measured(4.0, **changes), references=()), [make_row()])
    assert comparison.matches == ()
    assert comparison.not_compared == {"flux1-dev-b1-fp8dqrow-regional": why}


def test_cases_without_a_published_row_are_counted() -> None:
    unknown = measured(1.0, id="renamed-since")
    comparison = compare(make_record(make_run(), unknown, measured(4.0), references=()), [make_row()])
    assert (len(comparison.matches), comparison.unpublished, comparison.not_compared) == (1, 2, {})
