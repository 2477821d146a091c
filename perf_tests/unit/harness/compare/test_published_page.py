from __future__ import annotations

from typing import Any

import pytest

from perf_tests.harness.compare.published_page import PageLine, compare
from perf_tests.harness.runs.record import Run, Status
from perf_tests.tables.platforms import H100, H200
from perf_tests.tables.published_page import PAGE, Chapter
from perf_tests.unit.builders import make_failure, make_record
from perf_tests.unit.published import CASES, measured

EAGER, FUSED = CASES["flux1-dev-b1-bf16-eager"], CASES["flux1-dev-b1-fp8dqrow-regional-fused"]
AUTOQUANT = CASES["flux1-dev-b1-autoquant-regional-noonednn"]
COGVIDEOX = CASES["cogvideox-5b-b1-bf16-eager"]


def line(chapter: Chapter, theirs: float | None, *runs: Run) -> PageLine:
    """The line of one figure, compared with `runs`."""
    found = compare(make_record(*runs, references=()), PAGE)
    (only,) = (each for each in found if (each.figure.chapter, each.figure.theirs) == (chapter, theirs))
    return only


def test_a_headline_is_compared_with_the_time_that_we_save() -> None:
    found = line(Chapter.HEADLINES, 53.88, measured(5.26, case=EAGER), measured(2.983, case=FUSED))
    assert found.ours == pytest.approx(43.289, abs=1e-3)
    assert (found.ratio, found.same_gpu, found.why) == (None, True, None)


def test_the_snippet_is_compared_with_an_image_of_28_steps() -> None:
    before = line(Chapter.SNIPPET, 6.431, measured(5.26, case=EAGER))
    after = line(Chapter.SNIPPET, 3.483, measured(2.99, case=AUTOQUANT))
    assert (before.ours, after.ours) == (5.26, 2.99)
    assert before.ratio == pytest.approx(0.818, abs=1e-3)
    assert after.ratio == pytest.approx(0.858, abs=1e-3)


def test_a_loaded_model_is_compared_with_one_that_we_load() -> None:
    loaded = CASES["flux1-schnell-b1-int8wo-eager-torchsave"]
    built = measured(0.9, 20.5, case=CASES["flux1-schnell-b1-int8wo-eager"])
    found = line(Chapter.SERIALIZATION, 20.517, built, measured(1.1, 20.355, case=loaded))
    assert found.ours == pytest.approx(20.355)
    assert found.ratio == pytest.approx(0.992, abs=1e-3)
    assert line(Chapter.SERIALIZATION, 0.735, built).why == f"{loaded.id} is not in this run"


def test_a_rung_of_the_ladder_is_compared_in_gib() -> None:
    run = measured(91.5, model_gib=19.65, peak_gib=34.455, case=COGVIDEOX, projected=True)
    loaded, peak = line(Chapter.MEMORY, 19.7, run), line(Chapter.MEMORY, 31.7, run)
    assert loaded.ours == pytest.approx(19.65)
    assert peak.ours == pytest.approx(34.455)
    assert peak.ratio == pytest.approx(1.087, abs=1e-3)
    # Bytes are not composed of stages, and the page's ladder is an A100's.
    assert (peak.projected, peak.same_gpu) == (False, False)


def test_a_rung_that_offloads_is_compared_with_the_case_that_offloads_alike() -> None:
    tiled = CASES["cogvideox-5b-b1-int8wo-eager-qte-modeloffload-tiled"]
    found = line(Chapter.MEMORY, 7.9, measured(120.0, peak_gib=8.2, case=tiled, projected=True))
    assert found.ours == pytest.approx(8.2)
    assert found.ratio == pytest.approx(1.038, abs=1e-3)
    assert (
        line(Chapter.MEMORY, 3.1).why
        == "cogvideox-5b-b1-int8wo-eager-qte-seqoffload-tiled is not in this run"
    )


def test_a_time_that_is_composed_of_stages_says_so() -> None:
    assert line(Chapter.SNIPPET, 6.431, measured(5.26, case=EAGER, projected=True)).projected
    assert not line(Chapter.SNIPPET, 6.431, measured(5.26, case=EAGER)).projected


@pytest.mark.parametrize(("platform", "same"), [(H100, True), (H200, False)])
def test_a_figure_of_another_gpu_is_told_apart(platform: Any, same: bool) -> None:
    assert line(Chapter.SNIPPET, 6.431, measured(5.26, case=EAGER, platform=platform)).same_gpu is same


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        pytest.param((), "flux1-dev-b1-bf16-eager is not in this run", id="nothing"),
        pytest.param(
            (measured(5.26, case=EAGER),),
            "flux1-dev-b1-fp8dqrow-regional-fused is not in this run",
            id="one-of-two",
        ),
        pytest.param(
            (
                measured(5.26, case=EAGER),
                measured(2.9, case=FUSED, failure=make_failure(), status=Status.OOM),
            ),
            "flux1-dev-b1-fp8dqrow-regional-fused: ERROR(oom): out of memory at 79 GiB",
            id="failed",
        ),
        pytest.param(
            (measured(5.26, case=EAGER, injected=("latency:+5%",)), measured(2.9, case=FUSED)),
            "flux1-dev-b1-bf16-eager: faults were injected into it: latency:+5%",
            id="drill",
        ),
    ],
)
def test_a_figure_without_ours_says_why(runs: tuple[Run, ...], why: str) -> None:
    found = line(Chapter.HEADLINES, 53.88, *runs)
    assert (found.ours, found.ratio, found.why) == (None, None, why)


def test_a_metric_that_was_not_measured_is_named() -> None:
    run = measured(5.26, case=COGVIDEOX)
    without_peak = measured(5.26, case=COGVIDEOX, measured={"latency_s": 5.26}, reason="no counter")
    assert line(Chapter.MEMORY, 31.7, run).why is None
    why = line(Chapter.MEMORY, 31.7, without_peak).why
    assert why is not None
    assert why.startswith("cogvideox-5b-b1-bf16-eager: peak_allocated_mib was not measured, it is ")


def test_what_we_do_not_measure_has_its_reason() -> None:
    why = "ours is the first image of a process (first_image_s), not one call of its transformer"
    assert line(Chapter.AHEAD_OF_TIME, 1.776).why == why


def test_a_step_of_packages_is_compared_in_milliseconds() -> None:
    run = measured(0.0, case=CASES["flux1-dev-b1-bf16-aoti"], measured={"denoise_step_ms": 133.8})
    found = line(Chapter.AHEAD_OF_TIME, 421.0, run)
    assert (found.ours, found.same_gpu) == (133.8, False)
    assert found.ratio == pytest.approx(0.3178, abs=1e-4)


def test_a_speed_up_of_training_stands_beside_no_figure() -> None:
    trained = CASES["flux1-dev-b1-bf16-regional-lora-fp8tensor-ckpt"]
    run = measured(0.0, case=trained, measured={"train_speedup_vs_bf16": 0.91})
    found = line(Chapter.TRAINING, None, run)
    assert (found.ours, found.ratio) == (0.91, None)
    assert found.same_gpu  # the page names no GPU that ours could differ from


def test_a_model_is_compared_in_the_seconds_with_moving_and_the_reserved_gigabytes() -> None:
    case = CASES["llama-7b-b1-int8wo-eager-bymodule"]
    run = measured(0.0, case=case, measured={"quantize_s": 1.5, "quantize_peak_reserved_mib": 8000.0})
    seconds, peak = line(Chapter.QUANTIZING, 1.94, run), line(Chapter.QUANTIZING, 8.29, run)
    assert seconds.ours == 1.5
    assert peak.ours == pytest.approx(8.388608)
    assert peak.ratio == pytest.approx(1.0119, abs=1e-4)
    why = "llama-7b-b1-int8wo-eager-onhost is not in this run"
    assert line(Chapter.QUANTIZING, 6.99, run).why == why


def test_every_figure_has_a_line_in_the_order_of_the_page() -> None:
    lines = compare(make_record(references=()), PAGE)
    assert [each.figure for each in lines] == list(PAGE)
    assert all(each.why for each in lines)
