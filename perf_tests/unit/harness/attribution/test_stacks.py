"""Whether four stacks differ in torch and torchao only: else what is measured between them is of neither."""

from __future__ import annotations

from perf_tests.harness.attribution.stacks import contradiction
from perf_tests.harness.records.attributions import Corner

SQUARE = {
    Corner.GOOD: {"torch": "2.13.0", "torchao": "0.18.0", "diffusers": "0.42.1"},
    Corner.NEW_TORCH: {"torch": "2.14.0", "torchao": "0.18.0", "diffusers": "0.42.1"},
    Corner.NEW_TORCHAO: {"torch": "2.13.0", "torchao": "0.19.0", "diffusers": "0.42.1"},
    Corner.NEW: {"torch": "2.14.0", "torchao": "0.19.0", "diffusers": "0.42.1"},
}


def changed(corner: Corner, **packages: str) -> dict[Corner, dict[str, str]]:
    return {**SQUARE, corner: {**SQUARE[corner], **packages}}


def test_stacks_that_are_a_square_contradict_nothing() -> None:
    assert contradiction(SQUARE) is None
    assert contradiction({Corner.NEW: SQUARE[Corner.NEW]}) is None
    assert contradiction({}) is None


def test_a_mixed_stack_with_another_version_is_no_corner() -> None:
    assert contradiction(changed(Corner.NEW_TORCH, torch="2.13.0")) == (
        "torch is 2.13.0 in new_torch and 2.14.0 in new: these stacks differ in more than torch and torchao"
    )
    assert contradiction(changed(Corner.NEW_TORCH, torchao="0.17.0")) == (
        "torchao is 0.18.0 in good and 0.17.0 in new_torch: these stacks differ in more than torch and "
        "torchao"
    )


def test_a_package_that_moves_with_one_axis_would_be_taken_for_it() -> None:
    assert contradiction(changed(Corner.NEW, diffusers="0.43.0")) == (
        "diffusers is 0.42.1 in new_torchao and 0.43.0 in new: these stacks differ in more than torch and "
        "torchao"
    )


def test_a_stack_that_reported_nothing_is_left_out() -> None:
    three: dict[Corner, dict[str, str]]
    three = {corner: packages for corner, packages in SQUARE.items() if corner is not Corner.NEW_TORCHAO}
    assert contradiction(three) is None
