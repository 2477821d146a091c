"""Sessions on several cards: fake ones, measured by fake workers."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from perf_tests.harness.plugin.fixtures import Judged
from perf_tests.harness.runs.record import Run, Status
from perf_tests.unit import fake_cards
from perf_tests.unit.conftest import BF16, FP8DQROW, ROOT, Misbehave, Plug, Suite
from perf_tests.unit.harness.plugin.sessions import BUILD, SCHNELL, killed_after, screen, until

RECIPES = ("*-eager*", "bf16-regional", "fp8wo-regional")
SIX = ("-m", "h100", *(f"--perf-case=flux1-schnell-b1-{recipe}" for recipe in RECIPES))
"""Six cases of two families, compiled and eager; two of them load what another process has saved."""
JUDGED = (BUILD, *(str(ROOT / "perf_tests" / f"test_{group}.py") for group in ("latency", "fidelity")))
SHOWN = "shown.txt"
CARD_0, CARD_1 = "GPU-00000000-fake", "GPU-00000001-fake"


Verdicts = dict[str, tuple[Status, dict[str, tuple[Status, float | None]]]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for runs that several tests read."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def two_cards(suite: Suite, plug_gpus: Plug, kept: Path) -> Suite:
    """Six cases that two cards have measured."""
    plug_gpus(2)
    suite.out = kept / "two cards"
    if not suite.out.exists():
        shown = screen(suite.run(*SIX, "--perf-gpus=2", tests=JUDGED))
        (suite.out / SHOWN).write_text(shown)
    return suite


@pytest.fixture
def of_one_card(suite: Suite, plug_gpus: Plug, kept: Path) -> Verdicts:
    """The verdicts on six cases that one of two cards has measured."""
    plug_gpus(2)
    out, suite.out = suite.out, kept / "one card"
    if not suite.out.exists():
        suite.run(*SIX, tests=JUDGED)
    found, suite.out = verdicts(suite), out
    return found


def verdicts(suite: Suite) -> Verdicts:
    """Case id -> its status and its verdicts, without what depends on the card."""
    return {
        run.id: (run.status, {each.metric: (each.status, each.measured) for each in run.verdicts})
        for run in suite.record().cases
    }


def units(run: Run) -> set[str]:
    return {process.environment.unit for process in run.processes}


def test_several_cards_give_the_verdicts_of_one(two_cards: Suite, of_one_card: Verdicts) -> None:
    assert verdicts(two_cards) == of_one_card
    assert len(of_one_card) == 6
    shown = (two_cards.out / SHOWN).read_text()
    for lane in ("gpu 0", "gpu 1"):
        assert re.search(
            rf"^{lane}: \d+ s from its first worker to its last: \d+ s held, ", shown, re.MULTILINE
        )


def test_each_case_and_its_reference_are_measured_on_one_card(two_cards: Suite) -> None:
    record = two_cards.record()
    where = {run.id: units(run) for run in record.cases}
    assert {len(found) for found in where.values()} == {1}
    assert set().union(*where.values()) == {CARD_0, CARD_1}
    references = {(run.id, unit) for run in (*record.cases, *record.references) for unit in units(run)}
    assert {(run.reference, *where[run.id]) for run in record.cases if run.reference} <= references


def test_a_case_goes_to_the_card_of_its_baseline(suite: Suite, plug_gpus: Plug) -> None:
    # The baseline was recorded on the first; the others are longer, and would be taken before.
    plug_gpus(2)
    suite.run("-m", "h100", f"--perf-case={FP8DQROW}", SCHNELL, "--perf-gpus=all", tests=(BUILD,))
    assert units(suite.case(FP8DQROW)) == {CARD_0}


def test_cases_of_one_build_share_a_worker_though_they_were_recorded_on_other_cards(
    suite: Suite, plug_gpus: Plug
) -> None:
    plug_gpus(2)
    both = [f"--perf-case=flux1-dev-b{size}-bf16-regional" for size in (1, 4)]
    suite.baselines = ROOT / "baselines"
    suite.run("-m", "h100", *both, "--perf-gpus=all", tests=(BUILD,))
    assert len(list((suite.out / "logs").glob("*/*.0.log"))) == 1


def test_each_card_has_logs_and_caches_of_its_own(two_cards: Suite) -> None:
    for kind in ("logs", "cache", "captures"):
        assert {folder.name for folder in (two_cards.out / kind).iterdir()} == {CARD_0, CARD_1}


def test_a_broken_card_costs_its_cases_and_the_others_measure_the_rest(
    suite: Suite, plug_gpus: Plug, misbehave: Misbehave
) -> None:
    plug_gpus(2)
    misbehave(f"dead-card:{CARD_1}")
    result = suite.run(*SIX, "--perf-gpus=all", "--perf-table=red", tests=(BUILD,))
    statuses = Counter(run.status for run in suite.record().cases)
    assert statuses[Status.LOAD] == 2
    assert sum(statuses.values()) == 6
    assert f"the GPU {CARD_1} was given up" in screen(result)


def test_a_card_that_the_driver_has_lost_costs_one_case(
    suite: Suite, plug_gpus: Plug, misbehave: Misbehave, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_gpus(2)
    misbehave(f"dead-card:{CARD_1}")
    monkeypatch.setattr("perf_tests.harness.lanes.machine.answers", lambda unit: unit != CARD_1)
    suite.run(*SIX, "--perf-gpus=all", tests=(BUILD,))
    assert Counter(run.status for run in suite.record().cases)[Status.LOAD] == 1


def test_the_last_card_is_never_given_up(
    suite: Suite, misbehave: Misbehave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fake_cards.CARDS, "1")
    misbehave(f"dead-card:{CARD_0}")
    suite.run("-p", "perf_tests.unit.fake_cards", *SIX, "--perf-gpus=all", tests=(BUILD,))
    assert {run.status for run in suite.record().cases} == {Status.LOAD}


@pytest.mark.parametrize(
    ("wanted", "selected", "says"),
    [
        ("3", ("-m", "h100"), "--perf-gpus 3: this machine shows 2 GPUs"),
        ("GPU-unknown", ("-m", "h100"), "'GPU-unknown' names 0 of these"),
        ("all", ("-m", "cpu"), "selected cases are measured on the CPU"),
        ("all", (f"--perf-case={BF16}",), "1 of 1 selected cases are measured on the CPU"),
    ],
)
def test_a_wrong_request_is_one_usage_error(
    suite: Suite, plug_gpus: Plug, wanted: str, selected: tuple[str, ...], says: str
) -> None:
    plug_gpus(2)
    result = suite.run(*selected, f"--perf-gpus={wanted}", tests=(BUILD,))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert says in screen(result)
    assert not suite.out.exists()


def test_cards_of_two_models_do_not_measure_together(suite: Suite, plug_gpus: Plug) -> None:
    plug_gpus(2, {}, {"name": "NVIDIA H200", "memory_gib": 141})
    result = suite.run("-m", "h100", "--perf-gpus=all", tests=(BUILD,))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"{CARD_0} is h100, but {CARD_1} is not" in screen(result)


def test_an_interrupted_session_judges_what_its_cards_have_measured_ahead(
    suite: Suite, plug_gpus: Plug, of_one_card: Verdicts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(judged: Judged) -> None:
        assert until(lambda: len(judged._session.campaign.done) == 6, timeout_s=60)
        raise KeyboardInterrupt

    monkeypatch.setattr(Judged, "check_build", interrupt)
    result = suite.run(*SIX, "--perf-gpus=all", tests=JUDGED, no_reraise_ctrlc=True)

    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert verdicts(suite) == of_one_card
    assert suite.record().missing == ()


def test_a_session_that_stops_at_its_first_failure_judges_what_its_cards_have_measured_ahead(
    suite: Suite, plug_gpus: Plug, of_one_card: Verdicts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(judged: Judged) -> None:
        assert until(lambda: len(judged._session.campaign.done) == 6, timeout_s=60)
        pytest.fail("the first test")

    monkeypatch.setattr(Judged, "check_build", fail)
    result = suite.run(*SIX, "--perf-gpus=all", "-x", tests=JUDGED)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert verdicts(suite) == of_one_card
    assert suite.record().missing == ()


def test_a_killed_session_goes_on_and_ends_with_the_same_verdicts(
    suite: Suite, of_one_card: Verdicts
) -> None:
    with killed_after(3, suite.out):
        suite.run(*SIX, "--perf-gpus=all", tests=JUDGED)
    assert not (suite.out / "run.json").exists()
    assert 2 <= len(suite.record().cases) < 6
    suite.run(*SIX, "--perf-gpus=all", "--perf-resume", tests=JUDGED)
    assert verdicts(suite) == of_one_card
