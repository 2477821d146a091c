"""Whether a transformer that is replayed as a CUDA graph answers as it does without."""

from __future__ import annotations

from typing import Any

from torch.utils import _pytree as pytree

from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import IDENTICAL_DB
from perf_tests.worker.inspection.probe import sqnr_db
from perf_tests.worker.measure.generate import prime
from perf_tests.worker.model.compiled.cuda_graph import GraphedForward


def values(pipeline: Any, case: Case) -> dict[str, float]:
    """Metric name -> the lowest SQNR of its answers in two steps; empty where it is not replayed."""
    transformer = pipeline.transformer
    graphed = transformer.forward
    if not isinstance(graphed, GraphedForward):
        return {}
    found: list[float] = []

    def answer(*arguments: Any, **keywords: Any) -> Any:
        answers = graphed(*arguments, **keywords)
        right = graphed.plain(*arguments, **keywords)
        pairs = zip(pytree.tree_leaves(right), pytree.tree_leaves(answers), strict=True)
        # Not a number is as wrong as can be.
        found.extend(max(-IDENTICAL_DB, sqnr_db(one, other)) for one, other in pairs)
        return answers

    object.__setattr__(transformer, "forward", answer)  # not `setattr`, which modules override
    try:
        prime(pipeline, case)
    finally:
        object.__setattr__(transformer, "forward", graphed)
    return {"graph_sqnr_db": min(found)}
