from __future__ import annotations

import pytest

from perf_tests.harness import pictures
from perf_tests.harness.records import Fidelity, Status, Verdict
from perf_tests.tables.metrics import Tolerance
from perf_tests.unit.builders import make_process, make_reference, metric_named

THREE_DB = Tolerance(absolute=3.0)
BASELINE = (34.0, 34.0, 35.0, 35.0)


def judged(
    measured: tuple[float, ...], baseline: tuple[float, ...] = BASELINE, floor: float | None = 20.0
) -> Verdict:
    return pictures.judge(metric_named("psnr_db"), THREE_DB, measured, baseline, floor)


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


def test_the_sentence_names_the_pair_that_lost_most() -> None:
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


@pytest.mark.parametrize(("noise_db", "is_evidence"), [(47.8, True), (33.0, False)])
def test_pictures_at_the_noise_floor_are_said_to_be_no_evidence(noise_db: float, is_evidence: bool) -> None:
    noise = Fidelity(psnr_db=noise_db, ssim=0.999, identical=False)
    reference = make_reference(processes=(make_process(noise=noise),))
    reason = pictures.with_noise_floor(judged(BASELINE), reference).reason
    assert f"bf16 compiled against eager is at {noise_db:g}" in reason
    assert ("no evidence" not in reason) is is_evidence


def test_a_reference_that_is_not_compiled_has_no_noise_floor() -> None:
    verdict = judged(BASELINE)
    assert pictures.with_noise_floor(verdict, make_reference()) == verdict
    assert pictures.with_noise_floor(verdict, None) == verdict
