"""The candidates of a search, and times that the tests give instead of taking them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import AUTOQUANT, BF16, FP8WO, INT8DQ, INT8WO
from perf_tests.tables.schemes.spec import Search
from perf_tests.worker.quantization.apply import look

SEARCH = Search(candidates=(BF16, INT8DQ, FP8WO, INT8WO), min_sqnr_db=25.0, margin_pct=5.0)
EAGER = Recipe(scheme=dataclasses.replace(AUTOQUANT, search=SEARCH))


def scheme_of(layer: nn.Module) -> str:
    """The id of the candidate that a layer is quantized with."""
    weight: Any = layer.weight
    quantized = [scheme for scheme in SEARCH.candidates if scheme.weight]
    found = [each for each in quantized if each.weight and each.weight.describes(*look(weight, each.weight))]
    return found[0].id if found else BF16.id


class Times:
    """Stands in for the call timer: milliseconds by scheme, the same for all layers."""

    def __init__(self, **milliseconds: float) -> None:
        self.milliseconds = milliseconds
        self.calls: list[str] = []

    def __call__(self, call: Callable[[], object]) -> float:
        assert isinstance(call, partial)
        scheme = scheme_of(call.func)  # type: ignore[arg-type] # the layer that is called
        if scheme not in self.calls:
            call()
        self.calls.append(scheme)
        return self.milliseconds[scheme]


INT8DQ_FIRST = {"bf16": 1.0, "int8dq": 0.5, "fp8wo": 0.7, "int8wo": 0.8}
