"""Each layer is compared with itself, either way, and the culprits are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from perf_tests.harness.runs.record import Status, Verdict
from perf_tests.harness.verdicts.layers import judge_layers, with_culprits
from perf_tests.protocol.reports import LayerError
from perf_tests.tables.metrics.spec import Tolerance
from perf_tests.unit.builders import (
    LAYER,
    MINI_INT8WO,
    make_build,
    make_entry,
    make_layers,
    make_process,
    make_run,
    make_verdict,
    metric_named,
)

ALLOWED = {"layer_sqnr_db": 0.1, "layer_gain": 1e-3, "layer_worst_row_sqnr_db": 1.0}
OTHER = "transformer.transformer_blocks.1.attn.to_q"


def judged(
    name: str, *measured: dict[str, LayerError], before: dict[str, LayerError] | None = None
) -> Verdict:
    processes = tuple(make_process(build=make_build(layers=layers)) for layers in measured)
    entry = make_entry(layers=make_layers() if before is None else before)
    run = make_run(MINI_INT8WO, processes=processes)
    return judge_layers(metric_named(name), Tolerance(absolute=ALLOWED[name]), run, entry)


@pytest.mark.parametrize(
    ("name", "changes", "limit"),
    [
        pytest.param("layer_sqnr_db", {"sqnr_db": 39.89}, 39.9, id="sqnr-worse"),
        pytest.param("layer_sqnr_db", {"sqnr_db": 40.11}, 40.1, id="sqnr-better"),
        pytest.param("layer_gain", {"gain": 0.9989}, 0.999, id="gain-lower"),
        pytest.param("layer_gain", {"gain": 1.01}, 1.001, id="scale-one-percent-off"),
        pytest.param("layer_worst_row_sqnr_db", {"worst_row_sqnr_db": 28.9}, 29.0, id="row-worse"),
    ],
)
def test_layer_that_moves_either_way_is_named(name: str, changes: dict[str, float], limit: float) -> None:
    verdict = judged(name, make_layers(**changes))
    (moved,) = changes.values()
    assert (verdict.status, verdict.measured) == (Status.REGRESSED, moved)
    assert verdict.limit == pytest.approx(limit)
    assert verdict.reason.startswith(f"{LAYER} ")
    assert ": 1 of 2 layers moved by more than " in verdict.reason
    assert OTHER not in verdict.reason


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("layer_sqnr_db", {"sqnr_db": 39.91}),
        ("layer_gain", {"gain": 1.0009}),
        ("layer_worst_row_sqnr_db", {"worst_row_sqnr_db": 30.9}),
        # Each metric judges its own field.
        ("layer_sqnr_db", {"gain": 1.5}),
    ],
)
def test_layer_within_the_tolerance_passes(name: str, changes: dict[str, float]) -> None:
    verdict = judged(name, make_layers(**changes))
    assert verdict.status is Status.PASS
    assert verdict.reason.startswith("none of 2 layers moved by more than ")


@pytest.mark.parametrize("sqnr_db", [39.95, 40.05])
def test_limit_of_layers_that_pass_is_that_of_getting_worse(sqnr_db: float) -> None:
    verdict = judged("layer_sqnr_db", make_layers(sqnr_db=sqnr_db))
    assert (verdict.status, verdict.measured) == (Status.PASS, sqnr_db)
    assert verdict.limit == pytest.approx(39.9)


def test_good_layer_does_not_hide_a_bad_one_nor_a_good_process() -> None:
    verdict = judged("layer_sqnr_db", make_layers(), make_layers(sqnr_db=30.0), make_layers())
    assert (verdict.status, verdict.measured, verdict.baseline) == (Status.REGRESSED, 30.0, 40.0)
    said = "1 of 2 layers moved by more than 0.1 dB and its rounding"
    assert verdict.reason == f"{LAYER} 40 -> 30 dB: {said}"


def test_three_of_many_are_named_the_worst_first() -> None:
    error = make_layers()[LAYER]
    before = {f"transformer.{number}": error for number in range(5)}
    moved = {
        name: LayerError(sqnr_db=40.0 - number, gain=1.0, worst_row_sqnr_db=30.0)
        for number, name in enumerate(before)
    }
    reason = judged("layer_sqnr_db", moved, before=before).reason
    assert reason == (
        "transformer.4 40 -> 36 dB; transformer.3 40 -> 37 dB; transformer.2 40 -> 38 dB: "
        "4 of 5 layers moved by more than 0.1 dB and its rounding"
    )


@pytest.mark.parametrize(
    ("measured", "before", "said"),
    [
        ([LAYER], [LAYER, OTHER], f"1 no longer quantized ({OTHER})"),
        ([LAYER, OTHER], [LAYER], f"1 quantized, and not in the baseline ({OTHER})"),
    ],
)
def test_other_layers_than_the_baselines_are_a_regression(
    measured: Sequence[str], before: Sequence[str], said: str
) -> None:
    layers = make_layers()
    verdict = judged(
        "layer_gain",
        {name: layers[name] for name in measured},
        before={name: layers[name] for name in before},
    )
    assert verdict.status is Status.REGRESSED
    assert (verdict.measured, verdict.baseline) == (None, None)
    assert verdict.reason == f"the quantized layers are not those of the baseline: {said}"


def test_layer_without_rows_to_tell_is_left_out_of_the_worst_row() -> None:
    untold: dict[str, Any] = {"worst_row_sqnr_db": None, "worst_row_gain": None}
    verdict = judged("layer_worst_row_sqnr_db", make_layers(**untold), before=make_layers(**untold))
    assert (verdict.status, verdict.measured) == (Status.PASS, 30.0)
    assert verdict.reason.startswith("none of 1 layers moved")


SINGLE_TOKEN = {"tokens": 1, "features": 3072}


@pytest.mark.parametrize(
    ("name", "changes", "status"),
    [
        # 4 x 8.686 / sqrt(3072) = 0.627 dB
        pytest.param("layer_sqnr_db", {"sqnr_db": 40.62}, Status.PASS, id="sqnr-within"),
        pytest.param("layer_sqnr_db", {"sqnr_db": 40.64}, Status.REGRESSED, id="sqnr-beyond"),
        # 4 x sqrt(2 / 3072) x 10 ** (-26 / 20) = 0.00512
        pytest.param("layer_gain", {"sqnr_db": 26.0, "gain": 1.005}, Status.PASS, id="gain-within"),
        pytest.param("layer_gain", {"sqnr_db": 26.0, "gain": 1.0053}, Status.REGRESSED, id="gain-beyond"),
    ],
)
def test_layer_of_few_values_may_move_as_far_as_its_rounding_errors_drawn_anew(
    name: str, changes: dict[str, float], status: Status
) -> None:
    before = make_layers(sqnr_db=26.0) if "gain" in changes else make_layers()
    assert judged(name, make_layers(**changes, **SINGLE_TOKEN), before=before).status is status


def test_layer_that_has_become_worse_may_not_move_farther_for_it() -> None:
    # By 0.00102 at the 40 dB of the baseline; at 20 dB it were 0.0102.
    assert (
        judged("layer_gain", make_layers(sqnr_db=20.0, gain=1.005, **SINGLE_TOKEN)).status is Status.REGRESSED
    )


def test_worst_row_may_move_as_far_as_that_of_few_tokens() -> None:
    # 4 x 8.686 / sqrt(64) = 4.34 dB
    for worst_row_sqnr_db, status in ((25.7, Status.PASS), (25.6, Status.REGRESSED)):
        layers = make_layers(worst_row_sqnr_db=worst_row_sqnr_db, tokens=64, features=3072)
        assert judged("layer_worst_row_sqnr_db", layers).status is status


def test_layer_of_many_values_has_the_tolerance_alone() -> None:
    many = {"tokens": 4608, "features": 3072}
    assert judged("layer_sqnr_db", make_layers(sqnr_db=39.89, **many)).status is Status.REGRESSED
    assert judged("layer_gain", make_layers(gain=1.0011, **many)).status is Status.REGRESSED


def by_range(status: Status, *measured: dict[str, LayerError]) -> Verdict:
    processes = tuple(make_process(build=make_build(layers=layers)) for layers in measured)
    judged = make_verdict("layer_scale_error", status, reason="0.05 is outside 0 to 0.02: swapped")
    metric = metric_named("layer_scale_error")
    return with_culprits(judged, metric, make_run(MINI_INT8WO, processes=processes))


def test_layers_whose_scales_are_off_are_named_the_worst_first() -> None:
    verdict = by_range(Status.REGRESSED, make_layers(), make_layers(scale_error=0.0512345))
    assert verdict.reason == f"{LAYER} 0.051235; {OTHER} 0.001: 0.05 is outside 0 to 0.02: swapped"


def test_layers_whose_scales_are_alike_are_not() -> None:
    assert by_range(Status.PASS, make_layers()).reason == "0.05 is outside 0 to 0.02: swapped"
