from __future__ import annotations

import pytest

from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.runs.record import Status, Verdict
from perf_tests.harness.verdicts import images
from perf_tests.tables.metrics.spec import Tolerance
from perf_tests.unit.builders import make_process, make_reference, metric_named

THREE_DB = Tolerance(absolute=3.0)
BASELINE = (34.0, 34.0, 35.0, 35.0)


def judged(
    measured: tuple[float, ...],
    baseline: tuple[float, ...] = BASELINE,
    floor: float | None = 20.0,
    noise: float | None = None,
) -> Verdict:
    return images.judge_pairs(metric_named("psnr_db"), THREE_DB, measured, baseline, floor=floor, noise=noise)


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        pytest.param((34.1, 33.9, 35.2, 34.8), Status.PASS, id="each-moves-a-little"),
        pytest.param((32.6, 32.6, 33.6, 33.6), Status.PASS, id="mean-within-half"),
        pytest.param((32.4, 32.4, 33.4, 33.4), Status.REGRESSED, id="mean-beyond-half"),
        pytest.param((30.9, 34.0, 35.0, 35.0), Status.REGRESSED, id="one-beyond-its-own"),
        pytest.param((31.1, 34.0, 35.0, 35.0), Status.PASS, id="one-within-its-own"),
        pytest.param((36.0, 36.0, 37.0, 37.0), Status.IMPROVED, id="better"),
    ],
)
def test_four_pairs_may_lose_half_of_what_a_single_one_may(
    measured: tuple[float, ...], status: Status
) -> None:
    assert judged(measured).status is status


def test_sentence_names_the_pair_that_lost_most() -> None:
    reason = judged((34.0, 34.0, 31.5, 35.0)).reason
    assert reason.startswith(
        "pair 2 moved by -3.5 dB, beyond the limit -3 dB of one (34, 34, 31.5, 35 against"
    )


def test_one_pair_below_the_floor_is_red_though_it_moved_little() -> None:
    verdict = judged((19.9, 24.0, 24.0, 24.0), (21.0, 24.0, 24.0, 24.0))
    assert verdict.status is Status.REGRESSED
    assert verdict.reason.startswith("pair 0 is at 19.9 dB, below the floor 20 dB")


def test_pairs_that_an_older_baseline_lacks_are_held_against_the_floor() -> None:
    assert judged((34.0, 22.0, 22.0, 22.0), (34.0,)).status is Status.PASS
    assert judged((34.0, 22.0, 22.0, 19.0), (34.0,)).status is Status.REGRESSED
    assert judged((31.5, 34.0, 35.0, 35.0), (34.0,)).limit == 31.0


def test_fewer_pairs_than_the_baseline_has_are_no_pass() -> None:
    verdict = judged((34.0,))
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.reason.startswith("1 of the 4 pairs of its baseline were measured")


def test_noise_of_bf16_is_said_beside_pairs_that_are_farther() -> None:
    verdict = judged(BASELINE, noise=47.8)
    assert verdict.status is Status.PASS
    assert verdict.reason.endswith("35); bf16 compiled against eager is at 47.8 dB")


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        # Without the pairs at 40 dB and above, which moved by 5 dB, the others have moved by nothing.
        pytest.param((40.0, 34.0, 35.0, 41.0), Status.PASS, id="no-evidence-of-a-loss"),
        # With them, the mean would have moved by -1.2 dB, within its limit.
        pytest.param((46.0, 31.5, 33.0, 46.0), Status.REGRESSED, id="no-evidence-of-a-gain"),
    ],
)
def test_pair_at_the_noise_floor_counts_for_nothing(measured: tuple[float, ...], status: Status) -> None:
    verdict = judged(measured, (45.0, 34.0, 35.0, 46.0), noise=40.0)
    assert verdict.status is status
    assert verdict.reason.startswith("2 pairs moved by ")
    assert verdict.reason.endswith("2 of 4 pairs are at this noise floor, and no evidence")


def test_noise_floor_below_the_schemes_own_is_no_pass() -> None:
    assert judged((19.5, 18.0), (20.5, 19.0), noise=19.0).status is Status.REGRESSED
    for measured in ((19.5, 19.4), (33.0, 34.0)):
        verdict = judged(measured, (33.0, 34.0), noise=19.0)
        assert verdict.status is Status.INCONCLUSIVE
        assert verdict.reason.startswith("no pair is evidence, and compiling alone costs bf16 more than the")
    assert judged((33.0, 34.0), (33.0, 34.0), noise=20.0).status is Status.PASS


def test_pairs_that_are_all_at_the_noise_floor_are_said_to_tell_nothing() -> None:
    verdict = judged((40.0, 41.0, 42.0, 43.0), (45.0, 45.0, 45.0, 45.0), noise=39.0)
    assert (verdict.status, verdict.measured, verdict.baseline, verdict.limit) == (
        Status.PASS,
        41.5,
        45.0,
        20.0,
    )
    assert verdict.reason.startswith("no pair is evidence of anything, the answers, latents and layers are")


def test_where_the_only_pair_of_the_baseline_is_no_evidence_the_others_have_their_floor() -> None:
    for others, status in (((30.0, 30.0, 30.0), Status.PASS), ((30.0, 19.0, 30.0), Status.REGRESSED)):
        verdict = judged((41.0, *others), (45.0,), noise=40.0)
        assert (verdict.status, verdict.limit) == (status, 20.0)


def test_noise_floor_is_what_compiling_costs_the_reference() -> None:
    noise = Fidelity(psnr_db=47.8, ssim=0.999, identical=False)
    compiled = make_reference(processes=(make_process(), make_process(noise=noise)))
    found = [images.noise_floor(metric_named(name), compiled) for name in ("psnr_db", "ssim")]
    assert found == [47.8, 0.999]
    for eager in (make_reference(), None):
        assert images.noise_floor(metric_named("psnr_db"), eager) is None


@pytest.mark.parametrize(
    ("measured", "noise", "status"),
    [
        pytest.param((39.9, 39.9, 40.9, 40.9), None, Status.IMPROVED, id="within"),
        pytest.param((40.6, 40.6, 41.6, 41.6), None, Status.SURPRISE, id="beyond"),
        # As good as compiling leaves it: no pair is evidence, but what it was quantized with is gone.
        pytest.param((48.0, 48.0, 48.0, 48.0), 47.8, Status.SURPRISE, id="at-the-noise-floor"),
        pytest.param((48.0, 48.0, 48.0, 48.0), 33.0, Status.PASS, id="baseline-at-the-noise-floor"),
    ],
)
def test_gain_of_more_than_half_the_error_needs_a_reason(
    measured: tuple[float, ...], noise: float | None, status: Status
) -> None:
    metric, surprise = metric_named("psnr_db"), Tolerance(absolute=6.0)
    assert images.with_surprise(judged(measured, noise=noise), metric, surprise, noise).status is status


def test_loss_stays_a_loss_under_a_bound_for_gains() -> None:
    lost = judged((20.5, 20.5, 20.5, 20.5))
    assert images.with_surprise(lost, metric_named("psnr_db"), Tolerance(absolute=6.0), None) is lost
