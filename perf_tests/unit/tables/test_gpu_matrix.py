"""The rows of the matrix that run on GPUs: how many, how long, and with which settings."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from perf_tests.tables.cases import Weights
from perf_tests.tables.matrix import GPU_ROWS, MATRIX, SLOW_SCHEMES
from perf_tests.tables.recipes import INT8_GEMM, NO_ONEDNN
from perf_tests.unit.published import CASES, ROWS

GPU_ROW_COUNTS = {
    "flux1-dev": 105,
    "cogvideox-5b": 55,
    "cogvideox-2b": 39,
    "flux1-schnell": 10,
    "flux1-dev-slim": 14,
    "sd3-medium": 7,
    "pixart-sigma": 7,
    "auraflow": 7,
    "llama-7b": 3,
}


def test_gpu_rows_are_these_many() -> None:
    counted = Counter(row.pipeline.id for row in GPU_ROWS)
    changed = dict(counted.items() - GPU_ROW_COUNTS.items())
    gone = sorted(GPU_ROW_COUNTS.keys() - counted.keys())
    assert counted == GPU_ROW_COUNTS, (
        f"if these are meant to be the GPU rows, write {changed} into GPU_ROW_COUNTS in "
        f"perf_tests/unit/tables/test_gpu_matrix.py, and remove {gone} from it"
    )


def test_gpu_rows_with_committed_baselines_come_first() -> None:
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


def test_rows_never_differ_only_in_the_steps_that_are_generated() -> None:
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
        ("flux1-dev-b1-int8wo-regional-noonednn", 28),
        ("flux1-dev-b4-bf16-eager", 6),
        ("flux1-dev-b8-int8wo-regional-fused-noonednn", 6),
        ("flux1-dev-b16-fp8dq-regional-cvae", 6),
        ("flux1-schnell-b1-int8dq-regional-tuned", 4),
        ("cogvideox-5b-b1-bf16-eager", 6),
        ("cogvideox-5b-b1-bf16-eager-s4", 4),
        ("cogvideox-2b-b1-int8wo-regional-qte-noonednn", 6),
    ],
)
def test_generations_that_take_long_are_shortened(case: str, generated: int) -> None:
    assert CASES[case].workload.generated_steps == generated


def test_slow_schemes_have_a_reason_and_at_least_two_steps() -> None:
    # The first step takes longer than the others, so a latency cannot be composed from it alone.
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
def test_cases_that_were_never_published_are_measured_too(case: str) -> None:
    assert case in CASES
    assert case not in {row.case for row in ROWS}


def test_gpu_rows_go_without_onednn_where_they_may_compile_int8_weight_only_and_nowhere_else() -> None:
    settings = {row.case(Weights.SYNTHETIC).id: row.recipe.settings for row in GPU_ROWS}
    assert {case_id for case_id, made in settings.items() if NO_ONEDNN in made} == {
        case_id for case_id in settings if "-int8wo-regional" in case_id or "-autoquant-regional" in case_id
    }
    assert settings["flux1-dev-b1-int8wo-regional-noonednn"] == (NO_ONEDNN,)
    assert settings["flux1-dev-b1-int8wo-eager"] == ()


def test_gpu_rows_of_compiled_int8_products_tune_them_and_one_row_shows_what_that_gains() -> None:
    settings = {row.case(Weights.SYNTHETIC).id: row.recipe.settings for row in GPU_ROWS}
    compiled = {case_id for case_id in settings if "-int8dq-regional" in case_id}
    assert {case_id for case_id, made in settings.items() if INT8_GEMM in made} == compiled - {
        "flux1-dev-b1-int8dq-regional"
    }
    assert settings["flux1-dev-b1-int8dq-regional-tuned"] == (INT8_GEMM,)
