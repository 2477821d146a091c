"""A replayed transformer answers as before: what a graph is, apart from the device that runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import IDENTICAL_DB
from perf_tests.worker.inspection.compiled import graphed
from perf_tests.worker.model.compiled import cuda_graph
from perf_tests.worker.model.compiled.cuda_graph import GraphedForward


class Again:
    """What stands for a graph: it computes into the tensors of the first result, from the inputs it knows."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self.result = function()
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        for mine, new in zip(self.result, self._function(), strict=True):
            mine.copy_(new)


@pytest.fixture
def graphs() -> list[Again]:
    return []


@pytest.fixture
def record(graphs: list[Again]) -> cuda_graph.Record:
    def record(function: Callable[[], Any]) -> tuple[Again, Any]:
        graphs.append(Again(function))
        return graphs[-1], graphs[-1].result

    return record


class Doubles(nn.Module):
    def forward(self, x: torch.Tensor, *, plus: torch.Tensor | None = None) -> tuple[torch.Tensor]:
        return (2 * x if plus is None else 2 * x + plus,)


def test_call_is_replayed_from_the_third_of_its_kind_on(
    record: cuda_graph.Record, graphs: list[Again]
) -> None:
    module = Doubles()
    cuda_graph.attach(module, record)
    answers = [float(module(torch.tensor([float(each)]))[0]) for each in range(5)]

    assert answers == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert [graph.replays for graph in graphs] == [3]


def test_each_kind_of_call_has_its_own_graph(record: cuda_graph.Record, graphs: list[Again]) -> None:
    module = Doubles()
    cuda_graph.attach(module, record)
    for _ in range(3):
        module(torch.ones(1))
        module(torch.ones(2))
        module(torch.ones(1), plus=torch.ones(1))
    assert [graph.result[0].tolist() for graph in graphs] == [[2.0], [2.0, 2.0], [3.0]]


def test_answer_stays_as_it_was_when_the_graph_is_replayed(record: cuda_graph.Record) -> None:
    module = Doubles()
    cuda_graph.attach(module, record)
    answers = [module(torch.tensor([each]))[0] for each in (1.0, 2.0, 3.0, 4.0)]
    assert torch.cat(answers).tolist() == [2.0, 4.0, 6.0, 8.0]


def test_inputs_stay_as_they_were(record: cuda_graph.Record) -> None:
    module = Doubles()
    cuda_graph.attach(module, record)
    inputs = [torch.tensor([each]) for each in (1.0, 2.0, 3.0, 4.0)]
    for each in inputs:
        module(each)
    assert torch.cat(inputs).tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.fixture
def pipeline(make_pipeline: Callable[..., Any]) -> Any:
    return make_pipeline()


def test_replayed_transformer_answers_as_before(
    pipeline: Any, make_case: Callable[..., Case], record: cuda_graph.Record, graphs: list[Again]
) -> None:
    case = make_case()
    cuda_graph.attach(pipeline.transformer, record)
    graphed.values(pipeline, case)

    assert graphed.values(pipeline, case) == {"graph_sqnr_db": IDENTICAL_DB}
    assert [graph.replays for graph in graphs] == [2]


def test_graph_that_keeps_an_old_input_is_found(
    pipeline: Any, make_case: Callable[..., Case], record: cuda_graph.Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case()
    cuda_graph.attach(pipeline.transformer, record)
    graphed.values(pipeline, case)
    replay = cuda_graph.RecordedCall.replay
    kept: list[Any] = []

    def keeping(recorded: cuda_graph.RecordedCall, inputs: Any) -> Any:
        kept.append(kept[0] if kept else [each.clone() for each in inputs])
        return replay(recorded, kept[0])

    monkeypatch.setattr(cuda_graph.RecordedCall, "replay", keeping)
    assert graphed.values(pipeline, case)["graph_sqnr_db"] < 60.0


def test_transformer_that_is_not_replayed_compares_nothing(
    pipeline: Any, make_case: Callable[..., Case]
) -> None:
    assert graphed.values(pipeline, make_case()) == {}
    assert not isinstance(pipeline.transformer.forward, GraphedForward)
