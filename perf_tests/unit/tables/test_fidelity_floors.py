from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.baselines.entry import Accepted, find_accepted
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.fidelity_floors import LOWEST_PAIRS, PSNR_MARGIN_DB, SSIM_MARGIN, LowestPair, floor_of
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_2B, COGVIDEOX_5B
from perf_tests.tables.pipelines.flux import FLUX1_DEV, FLUX_MINI
from perf_tests.tables.pipelines.pixart import PIXART_SIGMA
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.platforms import PLATFORMS
from perf_tests.tables.recipes import Decoding
from perf_tests.tables.schemes.rows import (
    BF16,
    EIGHT_BIT_FLOOR,
    FOUR_BIT_FLOOR,
    FP8DQROW,
    FP16,
    INT4WO,
    INT8DQ_SPARSE24,
    INT8WO,
    PRUNED_FLOOR,
    SCHEMES,
)
from perf_tests.tables.schemes.spec import FidelityFloor, Scheme
from perf_tests.unit.builders import FLUX_FP8, for_each, make_case

STORE = Path(__file__).parents[3] / "baselines"
CASES = tuple(row.case(weights) for row in MATRIX for weights in Weights)


def _pretrained(case: Case) -> Case:
    return dataclasses.replace(case, build=dataclasses.replace(case.build, weights=Weights.PRETRAINED))


def _lowest(floor: FidelityFloor | None) -> tuple[float, float] | None:
    return None if floor is None else (floor.psnr_db, floor.ssim)


@pytest.mark.parametrize(
    ("pipeline", "scheme", "psnr_db", "ssim"),
    [
        pytest.param(FLUX1_DEV, FP8DQROW, 26.4, 0.931, id="both-raised"),
        pytest.param(FLUX_MINI, INT8WO, 38.4, 0.939, id="miniature"),
        pytest.param(FLUX1_DEV, INT4WO, 15.0, 0.839, id="psnr-of-the-scheme"),
        pytest.param(COGVIDEOX_5B, FP8DQROW, 20.0, 0.89, id="video"),
        pytest.param(PIXART_SIGMA, FP8DQROW, 24.2, 0.926, id="another-card"),
        pytest.param(COGVIDEOX_2B, FP8DQROW, 20.0, 0.75, id="pipeline-not-measured"),
        pytest.param(COGVIDEOX_5B, INT4WO, 15.0, 0.55, id="scheme-not-measured"),
        pytest.param(FLUX1_DEV, INT8DQ_SPARSE24, 12.0, 0.5, id="ssim-raised"),
    ],
)
def test_floor_is_two_tolerances_below_what_was_measured_or_that_of_the_scheme(
    pipeline: PipelineSpec, scheme: Scheme, psnr_db: float, ssim: float
) -> None:
    assert _lowest(floor_of(make_case(pipeline, scheme=scheme))) == (psnr_db, ssim)


def test_pretrained_weights_keep_the_floor_of_the_scheme() -> None:
    assert _lowest(floor_of(FLUX_FP8)) == (26.4, 0.931)
    assert floor_of(_pretrained(FLUX_FP8)) == EIGHT_BIT_FLOOR
    assert _lowest(EIGHT_BIT_FLOOR) == (20.0, 0.75)


def test_floor_does_not_depend_on_the_toggles_of_a_recipe() -> None:
    assert floor_of(make_case(FLUX1_DEV, scheme=FP8DQROW, compile_vae=True)) == floor_of(FLUX_FP8)


@pytest.mark.parametrize("scheme", [BF16, FP16], ids=lambda scheme: scheme.id)
def test_unquantized_schemes_have_no_floor(scheme: Scheme) -> None:
    assert floor_of(make_case(COGVIDEOX_2B, scheme=scheme)) is None


def test_tiles_have_a_floor_of_their_own_in_any_scheme() -> None:
    tiled = [make_case(COGVIDEOX_5B, scheme=scheme, decoding=Decoding.TILED) for scheme in (BF16, INT8WO)]
    assert [_lowest(floor_of(case)) for case in tiled] == [(12.1, 0.82)] * 2


@for_each([case for case in CASES if case.build.recipe.decoding is not Decoding.TILED])
def test_floor_is_never_below_that_of_its_scheme(case: Case) -> None:
    floor, least = floor_of(case), case.build.recipe.scheme.floor
    assert (floor is None) == (least is None)
    if floor is not None and least is not None:
        assert floor.psnr_db >= least.psnr_db
        assert floor.ssim >= least.ssim


# Sources


def test_floor_names_its_source() -> None:
    floors = [scheme.floor for scheme in SCHEMES] + [floor_of(case) for case in CASES]
    named = [floor for floor in floors if floor is not None]
    assert len(named) > 300
    assert [floor for floor in named if not floor.source.strip()] == []
    assert {floor.source for floor in (EIGHT_BIT_FLOOR, FOUR_BIT_FLOOR, PRUNED_FLOOR)} <= {
        floor.source for floor in named
    }


def test_raised_floor_says_what_was_measured_and_where_and_names_that_of_the_scheme() -> None:
    floor = floor_of(FLUX_FP8)
    assert floor is not None
    assert floor.source == (
        "6 dB and 0.06 below the 32.4 dB and 0.991 of the lowest pair of flux1-dev fp8dqrow on an NVIDIA "
        "H100 80GB HBM3 with torch 2.11.0+cu130 and torchao 0.18.0, and not below the 20 dB and 0.75 of the "
        f"scheme, which are {EIGHT_BIT_FLOOR.source}"
    )


def test_margins_are_two_tolerances_of_a_pair() -> None:
    assert (PSNR_MARGIN_DB, SSIM_MARGIN) == (6.0, 0.06)


# What is committed


@functools.cache
def _committed() -> tuple[tuple[Case, Accepted], ...]:
    """The accepted baselines that hold pairs, each with its case."""
    stores = [files.load(STORE, platform.id) for platform in PLATFORMS]
    found = [(case, find_accepted(store, case)) for store in stores for case in CASES]
    return tuple(
        (case, accepted)
        for case, accepted in found
        if accepted is not None and {"psnr_db", "ssim"} <= set(accepted.entry.metrics)
    )


def _of(row: LowestPair) -> list[Accepted]:
    """The accepted baselines of what `row` is about."""
    asked = (row.pipeline.id, row.scheme.id, Weights.SYNTHETIC)
    return [
        accepted
        for case, accepted in _committed()
        if (case.build.pipeline.id, case.build.recipe.scheme.id, case.build.weights) == asked
    ]


def _lowest_pair(row: LowestPair, metric: str) -> float:
    """NaN, which is near to nothing, without a baseline."""
    return min((value for each in _of(row) for value in each.entry.metrics[metric]), default=math.nan)


def test_pipelines_and_schemes_are_measured_once() -> None:
    keys = [(row.pipeline.id, row.scheme.id) for row in LOWEST_PAIRS]
    assert sorted(set(keys)) == sorted(keys)


def test_row_is_the_lowest_committed_pair_of_its_pipeline_and_scheme() -> None:
    lowest = [(row, _lowest_pair(row, "psnr_db"), _lowest_pair(row, "ssim")) for row in LOWEST_PAIRS]
    # A row that is off is shown with the committed pair, from which it is to be corrected.
    assert {
        (row.pipeline.id, row.scheme.id, row.psnr_db, row.ssim): (psnr_db, ssim)
        for row, psnr_db, ssim in lowest
        if not (abs(psnr_db - row.psnr_db) <= 0.5 and abs(ssim - row.ssim) <= 0.01)
    } == {}


def test_row_says_where_its_baselines_were_recorded() -> None:
    def places(row: LowestPair) -> set[str]:
        recorded = [each.provenance for each in _of(row)]
        return {
            f"an {each.gpu or each.unit} with torch {each.packages['torch'].split()[0]} "
            f"and torchao {each.packages['torchao']}"
            for each in recorded
        }

    elsewhere = {
        (row.pipeline.id, row.scheme.id): places(row) for row in LOWEST_PAIRS if row.on not in places(row)
    }
    assert elsewhere == {}


def test_committed_pairs_are_above_their_floor() -> None:
    floors = [(case, accepted.entry, floor_of(case)) for case, accepted in _committed()]
    assert len([floor for _, _, floor in floors if floor is not None]) > 20
    assert [
        (case.id, floor)
        for case, entry, floor in floors
        if floor is not None
        and (min(entry.metrics["psnr_db"]) < floor.psnr_db or min(entry.metrics["ssim"]) < floor.ssim)
    ] == []


def test_committed_pairs_of_a_quantized_case_have_a_row() -> None:
    known = {(row.pipeline.id, row.scheme.id) for row in LOWEST_PAIRS}
    quantized = {
        (case.build.pipeline.id, case.build.recipe.scheme.id)
        for case, *_ in _committed()
        if case.build.recipe.scheme.floor is not None
    }
    assert quantized <= known, (
        f"add (PIPELINE, SCHEME, psnr_db, ssim, ON_...) for {sorted(quantized - known)} to LOWEST_PAIRS in "
        "perf_tests/tables/fidelity_floors.py: the lowest of the accepted baselines"
    )
