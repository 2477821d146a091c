"""A change of shape compiles, a return does not, and what dynamo no longer compiles is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch._dynamo

from perf_tests.tables.cases import Case
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.reshaping import Reshaping
from perf_tests.tables.schemes.rows import BF16
from perf_tests.worker.inspection import reshaping
from perf_tests.worker.measure.clock import HostClock
from perf_tests.worker.measure.generate import Stages, prime
from perf_tests.worker.model import build, compile

pytestmark = pytest.mark.usefixtures("dynamo_only")
RESHAPED = Recipe(scheme=BF16, compile=CompileMode.REGIONAL, reshaping=Reshaping())
MakeCase = Callable[..., Case]


def tour(case: Case) -> dict[str, float]:
    pipeline: Any = build.build(case.build, torch.device("cpu"))
    compile.apply(pipeline, case.build)
    prime(pipeline, case)
    return reshaping.tour(pipeline, case, Stages(HostClock(), lambda _: None))


def test_each_shape_is_compiled_once(make_case: MakeCase) -> None:
    found = tour(make_case(RESHAPED))
    # Three shapes of the graphs that the first has: one class of blocks compiles for two strides.
    assert found["graphs_of_changes"] == 9.0
    assert (found["graphs_on_return"], found["eager_blocks_after_change"]) == (0.0, 0.0)
    assert found["first_image_after_change_s"] > 0.0


def test_shapes_beyond_what_dynamo_keeps_run_eager_and_are_seen(make_case: MakeCase) -> None:
    with torch._dynamo.config.patch(recompile_limit=2):
        found = tour(make_case(RESHAPED))
    assert found["graphs_of_changes"] < 9.0
    assert found["eager_blocks_after_change"] > 0.0


def test_a_recipe_of_one_shape_goes_on_no_tour(make_case: MakeCase) -> None:
    case = make_case(Recipe(scheme=BF16, compile=CompileMode.REGIONAL))
    assert reshaping.tour(object(), case, Stages(HostClock(), lambda _: None)) == {}
