from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from perf_tests.tables.cases import Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.platforms import A100, B200, CPU, H100, H200
from perf_tests.tables.tiers import SMOKE, UNRECORDED, Unrecorded, why_unrecorded

ROWS = {row.case(Weights.SYNTHETIC).id: row for row in MATRIX}


def test_smoke_rows_are_few_and_each_stands_for_something_else() -> None:
    assert 0 < len(SMOKE) <= 8
    assert len({each.case for each in SMOKE}) == len({each.catches for each in SMOKE}) == len(SMOKE)


def test_smoke_rows_are_rows_of_an_h100_and_of_every_kind() -> None:
    rows = [ROWS[each.case] for each in SMOKE]

    assert all(H100 in row.platforms for row in rows)
    assert {row.recipe.compile.value for row in rows} == {"eager", "regional"}
    assert {row.recipe.scheme.id for row in rows} == {"bf16", "fp8dqrow", "int8wo"}
    assert {row.pipeline.family for row in rows} == {"flux", "cogvideox"}


@pytest.mark.parametrize("entry", UNRECORDED, ids=lambda entry: f"{entry.platform.id}-{entry.cases}")
def test_rows_that_were_never_recorded_exist_and_have_a_reason(entry: Unrecorded) -> None:
    assert entry.reason.strip()
    assert any(
        fnmatchcase(case, entry.cases) for case, row in ROWS.items() if entry.platform in row.platforms
    )


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("sd3-medium-b1-bf16-eager", "costs are guessed"),
        ("flux1-dev-b16-fp8dq-regional", "several GPU hours"),
        ("flux1-dev-b1-nvfp4-regional", "needs compute capability 10.0"),
        ("flux1-dev-b1-mxfp8-regional", "needs compute capability 10.0"),
        ("flux1-dev-slim-b1-fp8dqrow-regional", "bound by the host"),
    ],
)
def test_a_row_has_the_first_reason_that_fits(case: str, says: str) -> None:
    assert says in (why_unrecorded(case, H100) or "")


def test_a_row_of_a_card_that_nobody_measured_on_has_a_reason() -> None:
    for platform in (H200, A100, B200):
        assert all(why_unrecorded(case, platform) for case in ROWS)


def test_no_row_of_the_cpu_may_go_unrecorded() -> None:
    assert not [case for case in ROWS if why_unrecorded(case, CPU)]
