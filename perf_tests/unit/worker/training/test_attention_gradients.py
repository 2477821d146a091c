from __future__ import annotations

import runpy

import torch

from perf_tests.unit.conftest import ROOT

SCRIPT = runpy.run_path(str(ROOT / "tools" / "repro" / "cudnn_attention_gradients.py"))


def test_the_two_layouts_of_the_known_issue_hold_the_same_gradient() -> None:
    wide = torch.arange(4608 * (3072 + 12288), dtype=torch.float32).view(1, 4608, 15360)
    alone, beside = (SCRIPT["incoming"](wide, layout) for layout in ("alone", "beside"))
    assert torch.equal(alone, beside)
    assert alone.shape == (1, 24, 4608, 128)
    assert alone.stride() == (4608 * 3072, 128, 3072, 1)
    assert beside.stride() == (4608 * 15360, 128, 15360, 1)


def test_the_known_issue_is_told_by_the_gradient_that_is_furthest_off() -> None:
    expected = [torch.ones(4), torch.ones(4)]
    found = [torch.ones(4), torch.tensor([1.0, 1.0, 1.0, -1.0])]
    assert SCRIPT["_distance"](found, expected) == 1.0
