"""The counters that dynamo and inductor keep about themselves."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perf_tests.protocol.reports import CompileCache, TunedChoices


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """One reading; only the difference of two readings means anything."""

    graphs: int
    graph_breaks: int
    hits: int
    misses: int
    bypasses: int
    generated_kernels: int
    """By inductor; where its cache has the graph, what was generated when it was compiled."""
    extern_calls: int
    """Of kernels that inductor does not generate, such as GEMMs, counted in the same way."""

    def since(self, earlier: Counters) -> Counters:
        """What was counted between `earlier` and this reading."""
        return Counters(
            graphs=self.graphs - earlier.graphs,
            graph_breaks=self.graph_breaks - earlier.graph_breaks,
            hits=self.hits - earlier.hits,
            misses=self.misses - earlier.misses,
            bypasses=self.bypasses - earlier.bypasses,
            generated_kernels=self.generated_kernels - earlier.generated_kernels,
            extern_calls=self.extern_calls - earlier.extern_calls,
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
        generated_kernels=_generated_kernels(),
        extern_calls=inductor["extern_calls"],
    )


def guard_failures() -> Counter[str]:
    """How often each guard has failed so far, in dynamo's words, so that a function was compiled again.

    Empty where this torch does not tell: it is quoted, not judged.
    """
    from torch._dynamo import utils

    by_function: Mapping[object, Sequence[object]] = getattr(utils, "guard_failures", {})
    return Counter(str(reason) for reasons in by_function.values() for reason in reasons)


def _generated_kernels() -> int:
    # Where inductor was never imported, it has generated nothing, and importing it takes seconds.
    metrics = sys.modules.get("torch._inductor.metrics")
    return 0 if metrics is None else int(metrics.generated_kernel_count)


def cache(
    counted: Counters, artifacts: str | None, tuned: TunedChoices | None = None, *, began_empty: bool = False
) -> CompileCache:
    """What the compile cache did between two readings.

    `artifacts` is what was done with its file, `began_empty` whether no graph was in it at the first one.
    """
    return CompileCache(
        hits=counted.hits,
        misses=counted.misses,
        bypasses=counted.bypasses,
        artifacts=artifacts,
        tuned=tuned,
        began_empty=began_empty,
    )
