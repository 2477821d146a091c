"""All tests in this folder and below need the stack under test."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from perf_tests.tables.cases import Build, Case, Weights
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.worker.model import build, compile

HERE = Path(__file__).parent
CPU = torch.device("cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.torch)


@pytest.fixture(autouse=True)
def _quiet_threads() -> Iterator[None]:
    # Miniatures gain nothing from more threads, and test machines are shared.
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def enums_of_python_3_11_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members of enumerations are pickled as by Python 3.11.0 to 3.11.2, which Debian 12 has."""
    monkeypatch.setattr(enum.Enum, "__reduce_ex__", lambda self, _: (getattr, (type(self), self.name)))


@pytest.fixture
def make_case() -> Callable[..., Case]:
    """A case of a miniature, bf16 eager unless told otherwise."""

    def make(
        recipe: Recipe | None = None,
        *,
        pipeline: PipelineSpec = FLUX_MINI,
        weights: Weights = Weights.SYNTHETIC,
    ) -> Case:
        built = Build(pipeline=pipeline, recipe=recipe or Recipe(scheme=BF16), weights=weights)
        return Case(build=built, workload=pipeline.workload)

    return make


@pytest.fixture
def make_pipeline(make_case: Callable[..., Case]) -> Callable[..., Any]:
    """The pipeline of a case as `make_case` makes it, on the CPU and unquantized."""

    def make(recipe: Recipe | None = None, **kwargs: Any) -> Any:
        return build.build(make_case(recipe, **kwargs).build, CPU)

    return make


@pytest.fixture
def dynamo_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Graphs are captured and counted as usual, but not compiled, which would take half a minute."""
    monkeypatch.setitem(compile.OPTIONS, "backend", "eager")
    torch.compiler.reset()
    yield
    torch.compiler.reset()
