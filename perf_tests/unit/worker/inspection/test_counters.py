"""Counters are read from dynamo and inductor, and only their differences are reported."""

from __future__ import annotations

import sys
import types
from collections import Counter, defaultdict

import pytest
import torch

from perf_tests.worker.inspection import counters
from perf_tests.worker.inspection.counters import Counters


def counted(**changes: int) -> Counters:
    usual = {"graphs": 3, "graph_breaks": 1, "hits": 2, "misses": 4, "bypasses": 0}
    return Counters(**usual | {"generated_kernels": 0, "extern_calls": 0} | changes)


@pytest.fixture
def of_torch(monkeypatch: pytest.MonkeyPatch) -> defaultdict[str, Counter[str]]:
    """Stands in for the counters that dynamo keeps."""
    fake: defaultdict[str, Counter[str]] = defaultdict(Counter)
    monkeypatch.setattr("torch._dynamo.utils.counters", fake)
    generated = types.SimpleNamespace(generated_kernel_count=9)
    monkeypatch.setitem(sys.modules, "torch._inductor.metrics", generated)
    return fake


def test_counters_of_a_process_that_compiled_nothing_are_zero(
    of_torch: defaultdict[str, Counter[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch._inductor.metrics")
    assert counters.read() == Counters(
        graphs=0, graph_breaks=0, hits=0, misses=0, bypasses=0, generated_kernels=0, extern_calls=0
    )


def test_counters_are_those_of_dynamo_and_inductor(of_torch: defaultdict[str, Counter[str]]) -> None:
    of_torch["stats"]["unique_graphs"] = 3
    of_torch["graph_break"].update({"a print": 1, "a branch on data": 4})
    of_torch["inductor"].update({"fxgraph_cache_miss": 6, "fxgraph_cache_bypass": 7, "extern_calls": 8})
    assert counters.read() == Counters(
        graphs=3, graph_breaks=5, hits=0, misses=6, bypasses=7, generated_kernels=9, extern_calls=8
    )


@pytest.mark.parametrize(
    ("inductor", "aot", "hits"),
    [
        pytest.param(2, 0, 2, id="inductor-alone"),
        pytest.param(0, 2, 2, id="a-hit-that-never-reaches-inductor"),
        pytest.param(2, 2, 2, id="one-hit-in-both"),
    ],
)
def test_a_cache_hit_counts_once_whichever_cache_sees_it(
    of_torch: defaultdict[str, Counter[str]], inductor: int, aot: int, hits: int
) -> None:
    of_torch["inductor"]["fxgraph_cache_hit"] = inductor
    of_torch["aot_autograd"]["autograd_cache_hit"] = aot
    assert counters.read().hits == hits


def test_counters_since_an_earlier_reading_are_the_difference() -> None:
    later = counted(
        graphs=5, graph_breaks=1, hits=6, misses=4, bypasses=2, generated_kernels=126, extern_calls=32
    )
    assert later.since(counted()) == Counters(
        graphs=2, graph_breaks=0, hits=4, misses=0, bypasses=2, generated_kernels=126, extern_calls=32
    )


@pytest.mark.usefixtures("dynamo_only")
def test_a_compiled_function_counts_one_graph_and_resetting_keeps_the_count() -> None:
    before = counters.read()
    torch.compile(torch.sin, backend="eager")(torch.ones(2))
    torch.compiler.reset()
    assert counters.read().since(before).graphs == 1


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"hits": 0}, "cold"),
        ({"misses": 0}, "warm"),
        ({}, "mixed"),
        ({"misses": 0, "bypasses": 1}, "mixed"),
    ],
    ids=["misses", "hits", "both", "bypassed"],
)
def test_a_cache_report_holds_the_counts_and_what_became_of_the_file(
    changes: dict[str, int], state: str
) -> None:
    reading = counted(**changes)
    report = counters.cache(reading, "saved")
    assert (report.hits, report.misses, report.bypasses) == (reading.hits, reading.misses, reading.bypasses)
    assert (report.artifacts, report.state) == ("saved", state)


# Guards


def test_guard_that_fails_is_told_in_the_words_of_dynamo() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    compiled(torch.ones(2))
    before = counters.guard_failures()
    compiled(torch.ones(3))

    (guard,) = counters.guard_failures() - before
    assert "size mismatch at index 0. expected 2, actual 3" in guard


def test_no_guard_has_failed_where_nothing_was_compiled_again() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    before = counters.guard_failures()
    compiled(torch.ones(2))
    compiled(torch.ones(2))
    assert not counters.guard_failures() - before
