"""Recipes of several shapes: what is generated, what their ids say, and which metrics are about them."""

from __future__ import annotations

import pytest

from perf_tests.tables.metrics.rows import METRICS
from perf_tests.tables.pipelines.flux import FLUX1_DEV
from perf_tests.tables.recipes import CompileMode
from perf_tests.tables.reshaping import Reshaping
from perf_tests.unit.builders import make_case

RESHAPED = make_case(compile=CompileMode.REGIONAL, reshaping=Reshaping())
DYNAMIC = make_case(compile=CompileMode.REGIONAL, reshaping=Reshaping(dynamic=True))


def test_two_smaller_resolutions_and_a_larger_batch_follow_what_is_timed() -> None:
    found = Reshaping().workloads(FLUX1_DEV.workload)
    assert [(each.height, each.width, each.batch_size) for each in found] == [
        (1024, 768, 1),
        (768, 768, 1),
        (1024, 1024, 2),
    ]


def test_id_says_that_shapes_change_and_whether_all_are_compiled_for() -> None:
    assert RESHAPED.id == "flux-mini-b1-bf16-regional-reshaped"
    assert DYNAMIC.id == "flux-mini-b1-bf16-regional-reshaped-dynamic"
    assert RESHAPED.digest != DYNAMIC.digest


def test_reference_is_compiled_for_one_shape() -> None:
    assert RESHAPED.reference.id == DYNAMIC.reference.id == "flux-mini-b1-bf16-regional"


@pytest.mark.parametrize("case", [RESHAPED, DYNAMIC], ids=lambda case: case.id)
def test_metrics_of_changes_are_about_what_changes_alone(case: object) -> None:
    names = {
        "graphs_of_changes",
        "graphs_on_return",
        "eager_blocks_after_change",
        "first_image_after_change_s",
        "image_after_change_s",
    }
    assert names <= {metric.name for metric in METRICS if metric.applies(case)}  # type: ignore[arg-type] # a case
    assert not names & {metric.name for metric in METRICS if metric.applies(RESHAPED.reference)}
