"""The counters that dynamo and inductor keep about themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perf_tests.protocol.reports import CompileCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """One reading; only the difference of two readings means anything."""

    graphs: int
    graph_breaks: int
    hits: int
    misses: int
    bypasses: int

    def since(self, earlier: Counters) -> Counters:
        """What was counted between `earlier` and this reading."""
        return Counters(
            graphs=self.graphs - earlier.graphs,
            graph_breaks=self.graph_breaks - earlier.graph_breaks,
            hits=self.hits - earlier.hits,
            misses=self.misses - earlier.misses,
            bypasses=self.bypasses - earlier.bypasses,
        )


def read() -> Counters:
    """The counters of this process so far; resetting the compiler leaves them as they are."""
    from torch._dynamo.utils import counters

    inductor, aot = counters["inductor"], counters["aot_autograd"]
    return Counters(
        graphs=counters["stats"]["unique_graphs"],
        graph_breaks=sum(counters["graph_break"].values()),
        # A hit in AOTAutograd's cache, which wraps inductor's, may not reach inductor's counter.
        hits=max(inductor["fxgraph_cache_hit"], aot["autograd_cache_hit"]),
        misses=inductor["fxgraph_cache_miss"],
        bypasses=inductor["fxgraph_cache_bypass"],
    )


def guard_failures() -> Counter[str]:
    """How often each guard has failed so far, in dynamo's words, so that a function was compiled again.

    Empty where this torch does not tell: it is quoted, not judged.
    """
    from torch._dynamo import utils

    by_function: Mapping[object, Sequence[object]] = getattr(utils, "guard_failures", {})
    return Counter(str(reason) for reasons in by_function.values() for reason in reasons)


def cache(counted: Counters, artifacts: str | None) -> CompileCache:
    """What the compile cache did between two readings; `artifacts` is what was done with its file."""
    return CompileCache(
        hits=counted.hits, misses=counted.misses, bypasses=counted.bypasses, artifacts=artifacts
    )
