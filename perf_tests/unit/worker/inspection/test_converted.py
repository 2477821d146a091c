"""How many modules torchao has quantized, whoever asked it to."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
import torch
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig, quantize_, transform_module

from perf_tests.worker.inspection import quantizing


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32)).to(torch.bfloat16)


def test_each_module_that_is_quantized_counts_once() -> None:
    with quantizing.converted() as counts:
        quantize_(two_layers(), Int8WeightOnlyConfig(set_inductor_config=False))
    assert counts == Counter(Int8WeightOnlyConfig=2)


def test_nothing_counts_before_or_after() -> None:
    config = Int8WeightOnlyConfig(set_inductor_config=False)
    quantize_(two_layers(), config)
    with quantizing.converted() as counts:
        pass
    quantize_(two_layers(), config)
    assert counts == Counter()


def test_torchao_that_cannot_be_counted_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(transform_module, "_QUANTIZE_CONFIG_HANDLER")
    with quantizing.converted() as counts:
        pass
    assert counts is None


def test_torchao_whose_module_has_moved_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization.transform_module", None)
    with quantizing.converted() as counts:
        pass
    assert counts is None


def test_total_is_unknown_where_one_part_is() -> None:
    assert quantizing.total(Counter(), Counter(a=1, b=2)) == 3
    assert quantizing.total(Counter(), None) is None
