"""A scale that is wrong compared with the others of its weight is found, and chance is not an error."""

from __future__ import annotations

import math

import pytest
import torch

from perf_tests.worker.fidelity import scales
from perf_tests.worker.fidelity.scales import farthest

# Gaussian weights and what rounding to a step makes of them: 300 rows of 512 elements.
WEIGHT = torch.randn(300, 512, generator=torch.Generator().manual_seed(0)).bfloat16()


def rounded(step: float) -> torch.Tensor:
    return ((WEIGHT.float() / step).round() * step).bfloat16()


@pytest.mark.parametrize(
    ("off", "low", "high"),
    [
        pytest.param(1.0, 0.0, 0.0, id="right"),
        pytest.param(1.01, 0.005, 0.01, id="one-percent"),
        pytest.param(1.05, 0.045, 0.05, id="five-percent"),
        pytest.param(0.95, 0.045, 0.05, id="five-percent-less"),
    ],
)
def test_a_wrong_row_is_found_less_what_chance_explains(off: float, low: float, high: float) -> None:
    quantized = rounded(step=0.02)
    quantized[7] = (quantized[7].float() * off).bfloat16()
    assert low <= farthest(WEIGHT, quantized) <= high


@pytest.mark.parametrize(
    ("size", "group_size", "columns"),
    [
        pytest.param(8, None, [[0, 1, 2, 3, 4, 5, 6, 7]], id="few"),
        pytest.param(20, None, [[0, 3, 6, 9, 12, 15, 18]], id="every-third"),
        pytest.param(8, 4, [[0, 1, 2, 3], [4, 5, 6, 7]], id="few-groups"),
        pytest.param(20, 4, [[0, 1, 2, 3], [12, 13, 14, 15]], id="every-third-group"),
        pytest.param(10, 4, [[0, 1, 2, 3]], id="every-second-whole-group"),
    ],
)
def test_columns_are_sampled_where_there_are_many(
    monkeypatch: pytest.MonkeyPatch, size: int, group_size: int | None, columns: list[list[int]]
) -> None:
    monkeypatch.setattr(scales, "MOST_COLUMNS", 8)
    assert scales._sampled(size, group_size).tolist() == columns


def test_a_wrong_row_is_found_from_the_sampled_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scales, "MOST_COLUMNS", 200)
    quantized = rounded(step=0.02)
    quantized[7, 0::3] = (quantized[7, 0::3].float() * 1.1).bfloat16()
    assert farthest(WEIGHT, quantized) == pytest.approx(0.095, abs=0.01)
    assert farthest(WEIGHT[:, 1:], quantized[:, 1:]) == 0.0


def test_an_error_that_all_rows_share_is_not_an_error_of_a_scale() -> None:
    assert farthest(WEIGHT, (rounded(step=0.02).float() * 1.05).bfloat16()) == 0.0


def test_a_wrong_group_is_lost_in_its_row_and_found_among_groups() -> None:
    quantized = rounded(step=0.02)
    quantized[7, 32:64] = (quantized[7, 32:64].float() * 1.3).bfloat16()
    assert farthest(WEIGHT, quantized) < 0.02
    assert farthest(WEIGHT, quantized, group_size=32) == pytest.approx(0.28, abs=0.02)


def test_rows_of_zeros_have_no_wrong_scale() -> None:
    weight = torch.cat((WEIGHT, torch.zeros(1, 512, dtype=torch.bfloat16)))
    quantized = torch.cat((rounded(step=0.02), torch.full((1, 512), 0.1, dtype=torch.bfloat16)))
    assert farthest(weight, quantized) == 0.0


def test_a_layer_of_zeros_has_no_wrong_scale() -> None:
    assert farthest(torch.zeros_like(WEIGHT), torch.zeros_like(WEIGHT)) == 0.0


def test_a_scale_of_nan_has_an_error_of_nan() -> None:
    quantized = rounded(step=0.02)
    quantized[7] = float("nan")
    assert math.isnan(farthest(WEIGHT, quantized))
