from __future__ import annotations

import pytest

from perf_tests.tables.schemes import rows
from perf_tests.tables.schemes.rows import (
    FP4_E2M1,
    FP5_E2M2,
    FP6_E3M2,
    FP8DQ,
    FP8WO,
    FP32,
    INT4DQ,
    INT4WO,
    INT8WO,
    MXFP8,
    NVFP4,
    SCHEMES,
)
from perf_tests.tables.schemes.spec import ScaleShape, Scheme

ROWS = "perf_tests/tables/schemes/rows.py"
QUANTIZING = [scheme for scheme in SCHEMES if scheme.config is not None]
GROUPED = [scheme for scheme in SCHEMES if scheme.weight and scheme.weight.scale is ScaleShape.PER_GROUP]


def _named(scheme: Scheme) -> str:
    return scheme.id


def test_schemes_are_told_apart_and_begin_with_bf16() -> None:
    ids = [scheme.id for scheme in SCHEMES]
    assert sorted(set(ids)) == sorted(ids)
    assert ids[0] == "bf16"
    assert FP32.id not in ids


def test_every_scheme_but_fp32_stands_above_the_line_that_collects_them() -> None:
    rows_below = [each.id for each in vars(rows).values() if isinstance(each, Scheme) and each not in SCHEMES]
    assert rows_below == ["fp32"], f"move the rows of {rows_below[1:]} in {ROWS} above AUTOQUANT"


@pytest.mark.parametrize("scheme", SCHEMES, ids=_named)
def test_exclusion_has_a_reason(scheme: Scheme) -> None:
    assert all(reason.strip() for reason in scheme.exclusions.values())


@pytest.mark.parametrize("scheme", QUANTIZING, ids=_named)
def test_scheme_that_quantizes_says_how_it_looks_and_how_good_it_must_be(scheme: Scheme) -> None:
    said = {
        "weight=QuantizedWeight(...)": scheme.weight or scheme.search,
        "floor=EIGHT_BIT_FLOOR, or a lower one": scheme.floor,
        "output_sqnr_db=_estimated(gemm_db), which tools/gemm_sqnr.py prints": scheme.output_sqnr_db,
    }
    missing = [line for line, value in said.items() if value is None]
    assert not missing, f"add to the row of {scheme.id} in {ROWS}: {'; '.join(missing)}"


@pytest.mark.parametrize("scheme", [each for each in SCHEMES if each not in QUANTIZING], ids=_named)
def test_scheme_that_quantizes_nothing_expects_nothing_of_it(scheme: Scheme) -> None:
    assert (scheme.weight, scheme.search, scheme.floor, scheme.output_sqnr_db) == (None, None, None, None)


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme.search], ids=_named)
def test_search_has_one_candidate_that_quantizes_nothing_and_knows_the_others_by_their_looks(
    scheme: Scheme,
) -> None:
    assert scheme.search is not None
    assert [each.id for each in scheme.search.candidates if each.config is None] == ["bf16"]
    assert scheme.search.unquantized.dtype == scheme.dtype
    assert {scheme.weight_of(each.id) for each in scheme.search.candidates} == {
        each.weight for each in scheme.search.candidates
    }
    assert scheme.weight_of(None) is None


@pytest.mark.parametrize(
    "scheme", [each for each in SCHEMES if each.weight and each not in GROUPED], ids=_named
)
def test_scheme_without_groups_has_no_group_size(scheme: Scheme) -> None:
    assert scheme.weight is not None
    assert scheme.weight.group_size is None, (
        f"add scale=ScaleShape.PER_GROUP to the weight of {scheme.id} in {ROWS}"
    )


@pytest.mark.parametrize("scheme", GROUPED, ids=_named)
def test_scheme_with_groups_leaves_modules_alone_whose_rows_are_not_whole_groups(scheme: Scheme) -> None:
    assert scheme.weight is not None
    group_size = scheme.weight.group_size
    assert group_size, f"add group_size=... to the weight of {scheme.id} in {ROWS}"
    assert scheme.in_features_multiple % group_size == 0, (
        f"add in_features_multiple={group_size} to the row of {scheme.id} in {ROWS}"
    )


@pytest.mark.parametrize(
    ("scheme", "elements", "scales", "implied_bytes"),
    [
        pytest.param(INT8WO, 64 * 1152, 64, 64 * 1152 + 64 * 5, id="int8wo"),
        pytest.param(FP8DQ, 64 * 1152, 1, 64 * 1152 + 4, id="fp8dq"),
        # 36 groups of 32 in a row, an int8 for each int4.
        pytest.param(INT4DQ, 64 * 1152, 64 * 36, 64 * 1152 + 64 * 36 * 3, id="int4dq"),
        pytest.param(FP6_E3M2, 64 * 1152, 64, 64 * 864 + 64 * 2, id="fp6_e3m2"),
        pytest.param(FP5_E2M2, 64 * 1152, 64, 64 * 720 + 64 * 2, id="fp5_e2m2"),
        pytest.param(FP4_E2M1, 64 * 1152, 64, 64 * 576 + 64 * 2, id="fp4_e2m1"),
        # 1152 columns are padded to 2048, which are 16 groups of 128.
        pytest.param(INT4WO, 64 * 2048, 64 * 16, 64 * 1024 + 64 * 16 * 4, id="int4wo"),
        # 64 rows are padded to 128 for the scales, not for the elements.
        pytest.param(NVFP4, 64 * 1152, 128 * 72, 64 * 576 + 128 * 72, id="nvfp4"),
        pytest.param(MXFP8, 64 * 1152, 128 * 36, 64 * 1152 + 128 * 36, id="mxfp8"),
    ],
)
def test_weight_implies_its_bytes(scheme: Scheme, elements: int, scales: int, implied_bytes: int) -> None:
    weight = scheme.weight
    assert weight is not None
    assert (weight.stored_elements(64, 1152), weight.stored_scales(64, 1152)) == (elements, scales)
    assert weight.implied_bytes(elements, scales) == implied_bytes


@pytest.mark.parametrize(
    ("scheme", "capability", "has_kernels"),
    [
        pytest.param(INT8WO, None, True, id="any-device"),
        pytest.param(FP8DQ, None, False, id="no-gpu"),
        pytest.param(FP8DQ, (8, 0), False, id="older-gpu"),
        pytest.param(FP8DQ, (8, 9), True, id="first-gpu"),
        pytest.param(FP8DQ, (10, 0), True, id="newer-gpu"),
    ],
)
def test_scheme_has_kernels_from_a_compute_capability_on(
    scheme: Scheme, capability: tuple[int, int] | None, has_kernels: bool
) -> None:
    assert scheme.has_kernels(capability) is has_kernels


def test_measured_ranges_tell_bit_widths_and_formats_apart() -> None:
    ranges = [scheme.output_sqnr_db for scheme in (INT4DQ, FP8WO, INT8WO)]
    bounds_db = [bound for each in ranges if each for bound in (each.low, each.high)]
    assert len(bounds_db) == 6
    assert bounds_db == sorted(bounds_db)


@pytest.mark.parametrize(
    # A search may leave all of it as it is.
    "scheme",
    [scheme for scheme in QUANTIZING if scheme.output_sqnr_db is not None and scheme.search is None],
    ids=_named,
)
def test_expected_range_excludes_an_unquantized_transformer(scheme: Scheme) -> None:
    assert scheme.output_sqnr_db is not None
    # Rounding to bf16 alone gives 50.8 dB.
    assert 0.0 < scheme.output_sqnr_db.low < scheme.output_sqnr_db.high < 50.0


@pytest.mark.parametrize("scheme", QUANTIZING, ids=_named)
def test_activations_are_described_exactly_where_they_are_quantized(scheme: Scheme) -> None:
    for each in (scheme, *(scheme.search.candidates if scheme.search else ())):
        if each.weight is not None:
            assert (each.weight.activation is not None) is each.weight.dynamic_activation
