"""runs/environments.py: two descriptions in, a line for each difference out."""

from __future__ import annotations

from perf_tests.harness.runs.environments import differences

BEFORE = {"torch": "2.12.0", "triton": "3.6.0", "mslk": "1.0", "driver": None}
NOW = {"torch": "2.13.0", "triton": "3.6.0", "diffusers": "0.42.1", "driver": "590.2"}


def test_differences_name_both_versions_in_order_of_name() -> None:
    assert differences(BEFORE, NOW) == [
        "diffusers absent -> 0.42.1",
        "driver absent -> 590.2",
        "mslk 1.0 -> absent",
        "torch 2.12.0 -> 2.13.0",
    ]


def test_differences_of_equal_environments_are_none() -> None:
    assert differences(BEFORE, dict(BEFORE)) == []


def test_an_empty_value_is_not_an_absent_one() -> None:
    assert differences({"CUDA_VISIBLE_DEVICES": ""}, {}) == ["CUDA_VISIBLE_DEVICES  -> absent"]


def test_differences_can_be_limited_to_some_names() -> None:
    assert differences(BEFORE, NOW, names=("torch", "triton")) == ["torch 2.12.0 -> 2.13.0"]


def test_a_name_that_neither_side_has_does_not_differ() -> None:
    assert differences(BEFORE, NOW, names=("numpy",)) == []
