"""What a change of shape between two calls costs: graphs to compile, and the time of the next image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.spec import Workload
from perf_tests.worker.inspection import counters, observed_step
from perf_tests.worker.measure.generate import Stages, generate_once


def tour(pipeline: Any, case: Case, stages: Stages) -> dict[str, float]:
    """Metric name -> what was seen in the shapes that the recipe of `case` names; empty where it names none.

    Each is generated twice; the second time, and back in the shape that was timed, nothing is to compile.
    """
    reshaping = case.build.recipe.reshaping
    if reshaping is None:
        return {}
    others = reshaping.workloads(case.workload)
    before = counters.read()
    first_s = _images_s(pipeline, case, stages, others)
    changed = counters.read()
    again_s = _images_s(pipeline, case, stages, (*others, case.workload))
    returned = counters.read()
    steps = [observed_step.observe(pipeline, _with(case, each)) for each in others]
    return {
        "graphs_of_changes": float(changed.since(before).graphs),
        "graphs_on_return": float(returned.since(changed).graphs),
        "first_image_after_change_s": max(first_s),
        "image_after_change_s": max(again_s),
        "eager_blocks_after_change": float(sum(sum(step.blocks.values()) for step in steps)),
    }


def _images_s(pipeline: Any, case: Case, stages: Stages, workloads: Iterable[Workload]) -> list[float]:
    return [generate_once(pipeline, _with(case, each), stages).values["latency_s"][0] for each in workloads]


def _with(case: Case, workload: Workload) -> Case:
    return dataclasses.replace(case, workload=workload)
