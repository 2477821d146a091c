"""The published tables, how they map to cases, and ours beside them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.compare import published
from perf_tests.harness.compare.published import PublishedMatch, PublishedQuantity, compare
from perf_tests.harness.report.published import lines
from perf_tests.harness.runs.record import Run, Status
from perf_tests.protocol.errors import BaselineError
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import GPU_ROWS, MATRIX, SLOW_SCHEMES
from perf_tests.tables.platforms import H100, H200, Platform
from perf_tests.tables.published import (
    EXPLANATIONS,
    UNMAPPED,
    Column,
    Explanation,
    PublishedRow,
    case_id,
    differences,
    explanation,
    reason,
)
from perf_tests.tables.recipes import NO_ONEDNN
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

FOLDER = Path(__file__).resolve().parents[4] / "baselines" / "published"
ROWS = published.read(FOLDER)
CASES = {case.id: case for case in (row.case(Weights.SYNTHETIC) for row in MATRIX)}
FLUX_INT8DQ = CASES["flux1-dev-b1-int8dq-regional"]
HEAD = (
    "gpu,pipeline,batch_size,fuse_qkv,compile,compile_vae,scheme,model_memory_gib,peak_memory_gib,latency_s"
)
LINE = "H100,flux1-dev,1,false,true,false,fp8dqrow,20.37,31.82,3.039,flux1-dev-b1-fp8dqrow-regional,"


def make_row(**changes: Any) -> PublishedRow:
    """FLUX.1-dev, fp8dqrow, compiled, on the H100; 20 and 30 GiB and 4 seconds."""
    default = PublishedRow(
        gpu="H100",
        pipeline="flux1-dev",
        batch_size=1,
        fuse_qkv=False,
        compile=True,
        compile_vae=False,
        scheme="fp8dqrow",
        model_memory_gib=20.0,
        peak_memory_gib=30.0,
        latency_s=4.0,
        case="flux1-dev-b1-fp8dqrow-regional",
        reason=None,
    )
    return dataclasses.replace(default, **changes)


def measured(
    latency_s: float,
    model_gib: float = 20.0,
    peak_gib: float = 24.0,
    *,
    case: Case = FLUX_FP8,
    platform: Platform = H100,
    **changes: Any,
) -> Run:
    """A run with these medians."""
    medians = {
        "latency_s": latency_s,
        "model_memory_mib": model_gib * 1024,
        "peak_allocated_mib": peak_gib * 1024,
    }
    return make_run(case, platform, **{"measured": medians, **changes})


def only(run: Run, *rows: PublishedRow) -> PublishedMatch:
    """The one comparison of `run` with `rows`."""
    (match,) = compare(make_record(run, references=()), rows or (make_row(),)).matches
    return match


# The tables


def test_every_published_row_is_there() -> None:
    assert len(ROWS) == 173
    assert Counter(row.gpu for row in ROWS) == {"H100": 93, "A100": 80}
    assert Counter(row.pipeline for row in ROWS) == {"flux1-dev": 77, "cogvideox-5b": 62, "cogvideox-2b": 34}


def test_every_row_is_a_case() -> None:
    assert Counter(row.gpu for row in ROWS if row.case is not None) == {"H100": 93, "A100": 80}
    assert [row for row in ROWS if row.reason is not None] == []
    assert len({row.case for row in ROWS}) == 159


def test_no_two_rows_of_a_gpu_are_one_case_but_those_that_were_published_twice() -> None:
    repeated = Counter((row.gpu, row.case) for row in ROWS)
    twice = {
        f"cogvideox-5b-b1-fp6_e3m2-{mode}qte"
        for mode in ("eager-", "eager-fused-", "regional-", "regional-fused-")
    }
    assert {key for key, count in repeated.items() if count == 2} == {("A100", case_id) for case_id in twice}
    assert max(repeated.values()) == 2
    # In one table under one name, in another under the other.
    assert {row.scheme for row in ROWS if row.case in twice} == {"fp6", "fp6_e3m2"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(map(str, dataclasses.astuple(row)[:9])))
def test_every_row_is_the_one_case_its_attributes_say(row: PublishedRow) -> None:
    assert (row.case, row.reason) == (case_id(row), reason(row))
    assert row.case in CASES


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.gpu}-{row.scheme}-{row.case}")
def test_the_case_of_a_row_does_what_its_columns_say(row: PublishedRow) -> None:
    case = CASES[str(row.case)]
    done = case.build.recipe
    quantized = {"flux1-dev": ("transformer",)}.get(row.pipeline, ("transformer", "text_encoder"))
    assert case.build.pipeline.id == row.pipeline
    assert case.workload.batch_size == row.batch_size
    assert (done.compile == "regional", done.compile == "eager") == (row.compile, not row.compile)
    assert (done.fuse_qkv, done.compile_vae) == (row.fuse_qkv, row.compile_vae)
    ours = {"fp8": "fp8dq", "fp6": "fp6_e3m2", "sparsify": "int8dq-sparse24"}
    assert done.scheme.id == ours.get(row.scheme, row.scheme)
    assert done.quantized_components == (("transformer",) if row.scheme in ("bf16", "fp16") else quantized)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, "flux1-dev-b1-fp8dqrow-regional", id="compiled"),
        pytest.param({"compile": False}, "flux1-dev-b1-fp8dqrow-eager", id="eager"),
        pytest.param({"batch_size": 16}, "flux1-dev-b16-fp8dqrow-regional", id="batch"),
        pytest.param(
            {"fuse_qkv": True, "compile_vae": True}, "flux1-dev-b1-fp8dqrow-regional-fused-cvae", id="toggles"
        ),
        pytest.param(
            {"pipeline": "cogvideox-5b", "scheme": "fp8"},
            "cogvideox-5b-b1-fp8dq-regional-qte",
            id="text-encoder",
        ),
        pytest.param(
            {"pipeline": "cogvideox-2b", "scheme": "int8wo", "quantize_vae": True},
            "cogvideox-2b-b1-int8wo-regional-qte-qvae-noonednn",
            id="vae",
        ),
        pytest.param(
            {"pipeline": "cogvideox-5b", "scheme": "fp16"}, "cogvideox-5b-b1-fp16-regional", id="unquantized"
        ),
        pytest.param({"scheme": "fp6"}, "flux1-dev-b1-fp6_e3m2-regional", id="alias"),
    ],
)
def test_attributes_become_a_case_id(changes: dict[str, Any], expected: str | None) -> None:
    assert case_id(make_row(**changes)) == expected


def test_a_scheme_that_no_table_knows_is_not_guessed() -> None:
    with pytest.raises(KeyError, match="int3wo"):
        case_id(make_row(scheme="int3wo"))


def test_a_scheme_that_is_left_out_has_its_reason_by_each_of_its_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(UNMAPPED, "int8dq-sparse24", "nobody runs it")
    rows = [make_row(scheme=name) for name in ("sparsify", "int8dq-sparse24", "int8dq")]
    assert [reason(row) for row in rows] == ["nobody runs it", "nobody runs it", None]
    assert [case_id(row) is None for row in rows] == [True, True, False]


@pytest.mark.parametrize(
    ("changes", "subjects"),
    [
        pytest.param({"compile": False}, ["latency", "peak memory"], id="eager"),
        pytest.param(
            {"scheme": "bf16"},
            ["compiled", "memory format of compiled rows", "latency", "peak memory"],
            id="compiled",
        ),
        pytest.param(
            {"compile_vae": True},
            [
                "compiled",
                "memory format of compiled rows",
                "inductor settings of quantized compiled rows",
                "compiled VAE",
                "latency",
                "peak memory",
            ],
            id="everything",
        ),
    ],
)
def test_the_differences_of_a_row_are_named(changes: dict[str, Any], subjects: list[str]) -> None:
    assert [each.subject for each in differences(make_row(**changes))] == subjects


def test_max_autotune_and_fullgraph_are_named_for_compiled_rows() -> None:
    assert 'mode="max-autotune", fullgraph=True' in differences(make_row())[0].theirs
    assert "dynamic=False" in differences(make_row())[0].ours


# The matrix


def test_the_gpu_rows_are_these_many() -> None:
    assert Counter(row.pipeline.id for row in GPU_ROWS) == {
        "flux1-dev": 88,
        "cogvideox-5b": 50,
        "cogvideox-2b": 39,
        "flux1-schnell": 7,
        "flux1-dev-slim": 3,
        "sd3-medium": 7,
        "pixart-sigma": 7,
        "auraflow": 7,
    }


def test_the_cases_with_committed_baselines_stand_first() -> None:
    assert [row.case(Weights.SYNTHETIC).id for row in GPU_ROWS[:8]] == [
        "flux1-dev-b1-bf16-eager",
        "flux1-dev-b1-bf16-regional",
        "flux1-dev-b1-fp8dqrow-eager",
        "flux1-dev-b1-fp8dqrow-regional",
        "flux1-dev-b1-fp8dqrow-regional-fused",
        "flux1-dev-b1-fp8dq-regional",
        "flux1-dev-b1-int8dq-regional",
        "cogvideox-5b-b1-bf16-eager-s4",
    ]


def test_no_two_rows_differ_in_nothing_but_the_steps_that_are_generated() -> None:
    kept = [
        dataclasses.replace(case, workload=dataclasses.replace(case.workload, measured_steps=None))
        for case in CASES.values()
    ]
    assert len(kept) == len(MATRIX)
    assert len({case.digest for case in kept}) == len(MATRIX)


@pytest.mark.parametrize(
    ("case", "generated"),
    [
        ("flux1-dev-b1-bf16-eager", 28),
        ("flux1-dev-b1-fp8dqrow-regional", 28),
        ("flux1-dev-b1-int8dq-eager-m3", 3),
        ("flux1-dev-b1-int8dq-regional", 28),
        ("flux1-dev-b1-int4wo-eager-m3", 3),
        ("flux1-dev-b1-int8wo-eager", 28),
        ("flux1-dev-b1-int8wo-regional-m2", 2),
        ("flux1-dev-b4-bf16-eager", 6),
        ("flux1-dev-b8-int8wo-regional-fused-m2", 2),
        ("flux1-dev-b16-fp8dq-regional-cvae", 6),
        ("flux1-schnell-b1-int8dq-regional", 4),
        ("cogvideox-5b-b1-bf16-eager", 6),
        ("cogvideox-5b-b1-bf16-eager-s4", 4),
        ("cogvideox-2b-b1-int8wo-regional-qte-m2", 2),
    ],
)
def test_long_and_slow_generations_are_shortened(case: str, generated: int) -> None:
    assert CASES[case].workload.generated_steps == generated


def test_every_slow_scheme_has_a_reason_and_two_steps_at_least() -> None:
    # The first step is longer than the others: one alone composes nothing.
    assert all(slow.reason.strip() and slow.measured_steps >= 2 for slow in SLOW_SCHEMES)


@pytest.mark.parametrize(
    "case",
    [
        "flux1-dev-b1-nvfp4-regional",
        "flux1-dev-b1-mxfp8-regional",
        "flux1-dev-b1-int4dq-eager",
        "flux1-dev-b1-fp8dqrow-regional-cl",
        "flux1-dev-b1-fp8dqrow-regional-cvae-qvae",
        "auraflow-b1-fp8dq-regional",
    ],
)
def test_what_was_never_published_is_measured_too(case: str) -> None:
    assert case in CASES
    assert case not in {row.case for row in ROWS}


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


def test_an_empty_cell_was_not_published(table: Callable[..., Path]) -> None:
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


def test_ours_stands_beside_theirs_in_gib() -> None:
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
def test_what_is_beyond_its_limit_needs_an_explanation(
    latency_s: float, model_gib: float, unexplained: tuple[Column, ...]
) -> None:
    assert only(measured(latency_s, model_gib)).unexplained == unexplained


def test_a_peak_is_not_judged() -> None:
    assert only(measured(4.0, peak_gib=70.0)).unexplained == ()


@pytest.mark.parametrize(
    ("gpu", "platform"), [pytest.param("A100", H100, id="a100"), pytest.param("H100", H200, id="h200")]
)
def test_only_the_bytes_are_judged_on_another_gpu(gpu: str, platform: Platform) -> None:
    slow = only(measured(9.0, platform=platform), make_row(gpu=gpu))
    assert (slow.same_gpu, slow.unexplained) == (False, ())
    large = only(measured(9.0, model_gib=30.0, platform=platform), make_row(gpu=gpu))
    assert large.unexplained == (Column.MODEL_MEMORY,)


def test_an_explained_row_is_not_unexplained() -> None:
    row = make_row(case=FLUX_INT8DQ.id, scheme="int8dq")
    match = only(measured(5.6, model_gib=22.9, case=FLUX_INT8DQ), row)
    assert set(match.exceeded) == {Column.LATENCY, Column.MODEL_MEMORY}
    assert match.unexplained == ()


@pytest.mark.parametrize(
    ("case", "of", "ratio", "explained"),
    [
        pytest.param("flux1-dev-b1-int8wo-regional-m2", Column.LATENCY, 400.0, True, id="int8wo"),
        pytest.param("cogvideox-5b-b1-int8wo-regional-qte-m2", Column.LATENCY, 210.0, True, id="toggles"),
        pytest.param("flux1-dev-b1-int8wo-regional-m2", Column.LATENCY, 900.0, False, id="more-than-known"),
        pytest.param("flux1-dev-b1-int8wo-eager", Column.LATENCY, 1.3, False, id="eager"),
        pytest.param("flux1-dev-b1-int8dq-regional", Column.LATENCY, 1.386, True, id="int8dq"),
        pytest.param("flux1-dev-b1-int8dq-eager-m3", Column.MODEL_MEMORY, 1.148, True, id="one-row-layers"),
        pytest.param("flux1-dev-b1-int8dq-eager-m3", Column.MODEL_MEMORY, 0.9, False, id="smaller"),
        pytest.param("flux1-dev-b1-int8wo-regional-m2", Column.MODEL_MEMORY, 1.1, False, id="another-column"),
    ],
)
def test_an_explanation_is_of_its_cases_its_column_and_its_range(
    case: str, of: Column, ratio: float, explained: bool
) -> None:
    assert (explanation(case, of, ratio) is not None) is explained


@pytest.mark.parametrize("each", EXPLANATIONS, ids=lambda each: f"{each.cases}-{each.of}")
def test_every_explanation_is_of_published_rows(each: Any) -> None:
    used = [row for row in ROWS if row.case and explanation(row.case, each.of, each.ratios[1]) is each]
    assert used
    assert each.text.strip()


def test_the_worst_latency_comes_first() -> None:
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


def test_references_are_compared_as_well_and_once() -> None:
    reference = measured(6.0, model_gib=31.4, case=FLUX_FP8.reference)
    row = make_row(case=FLUX_FP8.reference.id, scheme="bf16", model_memory_gib=31.4, latency_s=6.0)
    beside = make_record(measured(4.0), references=(reference,))
    selected = make_record(measured(4.0), reference, references=(reference,))
    assert [len(compare(record, [row]).matches) for record in (beside, selected)] == [1, 1]


def test_a_run_with_the_hubs_weights_is_compared_with_the_same_row() -> None:
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
def test_a_run_that_says_nothing_is_refused_with_the_reason(changes: dict[str, Any], why: str) -> None:
    comparison = compare(make_record(measured(4.0, **changes), references=()), [make_row()])
    assert comparison.matches == ()
    assert comparison.not_compared == {"flux1-dev-b1-fp8dqrow-regional": why}


def test_cases_without_a_published_row_are_counted() -> None:
    unknown = measured(1.0, id="renamed-since")
    comparison = compare(make_record(make_run(), unknown, measured(4.0), references=()), [make_row()])
    assert (len(comparison.matches), comparison.unpublished, comparison.not_compared) == (1, 2, {})


# Words


def test_the_report_shows_numbers_footnotes_differences_and_what_was_left_out() -> None:
    rows = (make_row(gpu="A100", latency_s=8.0), make_row(case=FLUX_INT8DQ.id, scheme="int8dq"))
    eager = CASES["flux1-dev-b1-bf16-eager"]
    record = make_record(
        measured(4.4, projected=True),
        measured(5.6, model_gib=22.9, case=FLUX_INT8DQ),
        measured(6.0, case=eager, injected=("hang",)),
        make_run(),
        references=(),
    )
    refused = make_row(case=eager.id, scheme="bf16", compile=False)
    head, first, second, *rest = lines(compare(record, (*rows, refused)))
    assert " ".join(head.split()) == (
        "case published on s ours theirs ratio model GiB ours theirs ratio peak GiB ours theirs ratio notes"
    )
    assert first.split() == [
        *("flux1-dev-b1-int8dq-regional", "H100"),
        *("5.600", "4.000", "1.400", "22.900", "20.000", "1.145", "24.000", "30.000", "0.800", "[1],", "[2]"),
    ]
    assert second.split() == [
        *("flux1-dev-b1-fp8dqrow-regional", "A100"),
        *("4.400", "8.000", "0.550", "20.000", "20.000", "1.000", "24.000", "30.000", "0.800"),
        *("projected,", "another", "GPU"),
    ]
    assert rest[0].startswith("[1] latency: compiled int8dq is slower than bf16 today")
    assert rest[1].startswith("[2] model memory: the layers that see one row per image stay bf16")
    assert rest[2].startswith(
        'differs: compiled: theirs the whole transformer, mode="max-autotune", fullgraph=True; ours '
    )
    assert rest[-2:] == [
        "not compared: flux1-dev-b1-bf16-eager: faults were injected into it: hang",
        "2 rows compared, 1 of them on the same GPU model, 1 measured cases without a published row; "
        "unexplained (latency above 1.25 times on the same GPU model, model memory off by more than 2 %): 0",
    ]


def test_an_unexplained_row_and_its_link_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Explanation(
        cases="*-int8wo-*",
        of=Column.LATENCY,
        ratios=(1.0, 800.0),
        text="slow",
        link="https://example.org/1",
    )
    monkeypatch.setattr("perf_tests.tables.published.EXPLANATIONS", (known,))
    compiled = CASES["flux1-dev-b1-int8wo-regional-noonednn"]
    row = make_row(case=compiled.id, scheme="int8wo")
    said = lines(compare(make_record(measured(900.0, 25.0, case=compiled), references=()), [row]))
    assert said[1].endswith("UNEXPLAINED model memory, [1]")
    assert said[2].endswith("(https://example.org/1)")
    assert said[-1].endswith(": 1")


def test_what_was_not_published_is_a_dash() -> None:
    row = make_row(model_memory_gib=None, peak_memory_gib=None)
    said = lines(compare(make_record(measured(4.0), references=()), [row]))
    assert said[1].split()[5:] == ["20.000", "-", "-", "24.000", "-", "-"]


def test_on_a_gpu_what_may_compile_int8_weight_only_goes_without_onednn_and_nothing_else_does() -> None:
    settings = {row.case(Weights.SYNTHETIC).id: row.recipe.settings for row in GPU_ROWS}
    assert {case_id for case_id, made in settings.items() if made} == {
        case_id for case_id in settings if "-int8wo-regional" in case_id or "-autoquant-regional" in case_id
    }
    assert settings["flux1-dev-b1-int8wo-regional-noonednn"] == (NO_ONEDNN,)
    assert settings["flux1-dev-b1-int8wo-eager"] == ()
