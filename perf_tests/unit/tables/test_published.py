from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest

from perf_tests.tables.published import (
    EXPLANATIONS,
    UNMAPPED,
    Column,
    PublishedRow,
    case_id,
    differences,
    explanation,
    reason,
)
from perf_tests.unit.published import CASES, ROWS, make_row


def test_published_rows_are_all_there() -> None:
    assert len(ROWS) == 173
    assert Counter(row.gpu for row in ROWS) == {"H100": 93, "A100": 80}
    assert Counter(row.pipeline for row in ROWS) == {"flux1-dev": 77, "cogvideox-5b": 62, "cogvideox-2b": 34}


def test_published_rows_all_have_a_case() -> None:
    assert Counter(row.gpu for row in ROWS if row.case is not None) == {"H100": 93, "A100": 80}
    assert [row for row in ROWS if row.reason is not None] == []
    assert len({row.case for row in ROWS}) == 159


def test_published_rows_of_a_gpu_share_a_case_only_where_it_was_published_twice() -> None:
    repeated = Counter((row.gpu, row.case) for row in ROWS)
    twice = {
        f"cogvideox-5b-b1-fp6_e3m2-{mode}qte"
        for mode in ("eager-", "eager-fused-", "regional-", "regional-fused-")
    }
    assert {key for key, count in repeated.items() if count == 2} == {("A100", case_id) for case_id in twice}
    assert max(repeated.values()) == 2
    # One table uses one name for the scheme, another table the other.
    assert {row.scheme for row in ROWS if row.case in twice} == {"fp6", "fp6_e3m2"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(map(str, dataclasses.astuple(row)[:9])))
def test_published_row_is_the_case_that_its_attributes_say(row: PublishedRow) -> None:
    assert (row.case, row.reason) == (case_id(row), reason(row))
    assert row.case in CASES


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.gpu}-{row.scheme}-{row.case}")
def test_case_of_a_published_row_does_what_its_columns_say(row: PublishedRow) -> None:
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
def test_case_id_follows_from_the_attributes(changes: dict[str, Any], expected: str | None) -> None:
    assert case_id(make_row(**changes)) == expected


def test_scheme_that_no_table_knows_is_an_error() -> None:
    with pytest.raises(KeyError, match="int3wo"):
        case_id(make_row(scheme="int3wo"))


def test_scheme_without_a_case_has_its_reason_under_each_of_its_names(
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
def test_differences_of_a_row_are_named(changes: dict[str, Any], subjects: list[str]) -> None:
    assert [each.subject for each in differences(make_row(**changes))] == subjects


def test_differences_of_a_compiled_row_name_max_autotune_and_fullgraph() -> None:
    assert 'mode="max-autotune", fullgraph=True' in differences(make_row())[0].theirs
    assert "dynamic=False" in differences(make_row())[0].ours


# Explanations


@pytest.mark.parametrize(
    ("case", "of", "ratio", "explained"),
    [
        pytest.param("flux1-dev-b1-fp8dqrow-eager", Column.LATENCY, 1.6, True, id="fp8-eager"),
        pytest.param("flux1-dev-b1-fp8dqrow-eager-cvae", Column.LATENCY, 1.6, True, id="toggles"),
        pytest.param("flux1-dev-b1-fp8dqrow-eager", Column.LATENCY, 1.8, False, id="more-than-known"),
        pytest.param("flux1-dev-b1-int8wo-eager", Column.LATENCY, 1.3, False, id="another-scheme"),
        pytest.param("flux1-dev-b1-int8dq-regional-tuned", Column.LATENCY, 1.386, True, id="int8dq"),
        pytest.param("flux1-dev-b1-int8dq-eager-m3", Column.MODEL_MEMORY, 1.148, True, id="one-row-layers"),
        pytest.param("flux1-dev-b1-int8dq-eager-m3", Column.MODEL_MEMORY, 0.9, False, id="smaller"),
        pytest.param("flux1-dev-b1-fp8dqrow-eager", Column.MODEL_MEMORY, 1.1, False, id="another-column"),
    ],
)
def test_explanation_covers_its_cases_its_column_and_its_range(
    case: str, of: Column, ratio: float, explained: bool
) -> None:
    assert (explanation(case, of, ratio) is not None) is explained


@pytest.mark.parametrize("each", EXPLANATIONS, ids=lambda each: f"{each.cases}-{each.of}")
def test_explanation_covers_published_rows(each: Any) -> None:
    used = [row for row in ROWS if row.case and explanation(row.case, each.of, each.ratios[1]) is each]
    assert used
    assert each.text.strip()
