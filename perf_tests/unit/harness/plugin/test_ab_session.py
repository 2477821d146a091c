"""--perf-against, seen from outside: an H100 case on fake workers, one stack under two interpreters."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.plugin import ab_session
from perf_tests.harness.runs.record import Comparison, Schedule, Side, Status
from perf_tests.unit.builders import store_baselines
from perf_tests.unit.conftest import FP8DQROW, INT8WO, ROOT, Plug, Suite

STEP = "denoise_step_ms"
LATENCY = str(ROOT / "perf_tests" / "test_latency.py")
ON_GPU = ("-m", "h100", f"--perf-case={FP8DQROW}")
SAME_STACK = f"--perf-against={sys.executable}"


@pytest.fixture(autouse=True)
def on_an_h100(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()  # after the fixture `suite`, which takes the GPU away


@pytest.fixture
def few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ab_session, "MIN_PAIRS", 2)


def run(suite: Suite, *arguments: str) -> pytest.RunResult:
    return suite.run(*ON_GPU, "--perf-max-processes=1", *arguments, tests=(LATENCY,))


def comparison(suite: Suite) -> Comparison:
    (found,) = suite.record().comparisons
    return found


def reason(suite: Suite, metric: str) -> str:
    return next(each.reason for each in suite.case(FP8DQROW).verdicts if each.metric == metric)


def text(result: pytest.RunResult) -> str:
    """What it printed, with line breaks turned into spaces."""
    return " ".join(str(result.stdout).split())


def test_a_slowdown_of_one_percent_in_the_candidate_is_seen_without_a_baseline(suite: Suite) -> None:
    suite.baselines = suite.folder / "empty"
    suite.baselines.mkdir()
    result = run(suite, SAME_STACK, "--perf-inject=latency:+1%")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert suite.statuses(FP8DQROW)[STEP] is Status.REGRESSED
    assert suite.statuses(FP8DQROW)["speedup_vs_bf16"] is Status.NO_BASELINE
    found = comparison(suite)
    assert (found.schedule, found.injected, found.failure) == (Schedule.RESIDENT, ("latency:+1%",), None)
    assert len(found.pairs) == 7  # the noise is known from seven processes only
    assert found.verdicts[0].change_pct == pytest.approx(1.0)
    assert "no baseline is recorded; slower than the same versions on this device, now: +1.00 %" in text(
        result
    )
    assert "stacks the two stacks are the same in everything on record" in text(result)


@pytest.mark.usefixtures("few_pairs")
def test_one_stack_against_itself_is_quiet(suite: Suite) -> None:
    suite.baselines = suite.folder / "empty"
    suite.baselines.mkdir()
    result = run(suite, SAME_STACK)

    assert {metric: suite.statuses(FP8DQROW)[metric] for metric in (STEP, "decode_ms")} == {
        STEP: Status.PASS,
        "decode_ms": Status.PASS,
    }
    assert comparison(suite).status is Status.PASS
    result.stdout.re_match_lines(
        [rf"{FP8DQROW} +{STEP} +5.0000? ms +5.0000? ms +\+0.00 % .* resident +PASS", r".*decode_ms .* PASS"]
    )


@pytest.mark.usefixtures("few_pairs")
def test_a_regression_of_the_candidate_is_confirmed(suite: Suite) -> None:
    result = run(suite, SAME_STACK, "--perf-inject=latency:+10%")

    assert suite.statuses(FP8DQROW)[STEP] is Status.REGRESSED
    assert "; confirmed: also 10 % slower than the same versions on this card, now" in reason(suite, STEP)
    assert "against confirmed: also 10 % slower" in text(result)


@pytest.mark.usefixtures("few_pairs")
def test_a_regression_that_the_stable_stack_has_too_is_not_the_codes(suite: Suite) -> None:
    suite.baselines = Path(shutil.copytree(suite.baselines, suite.folder / "baselines"))
    before = files.read(suite.baselines, "h100", "flux1-dev")
    entry = before.cases[FP8DQROW]
    faster = {**entry.metrics, STEP: tuple(ms * 0.9 for ms in entry.metrics[STEP])}
    cases = {FP8DQROW: msgspec.structs.replace(entry, metrics=faster)}
    store_baselines(suite.baselines, msgspec.structs.replace(before, cases=cases))
    result = run(suite, SAME_STACK)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert suite.statuses(FP8DQROW)[STEP] is Status.REGRESSED
    assert "; not confirmed: the stable stack (the same versions) is as slow on this card today" in reason(
        suite, STEP
    )
    assert "the card or the baseline moved, not the code" in text(result)


def test_a_green_verdict_is_not_compared(suite: Suite) -> None:
    assert run(suite, SAME_STACK).ret == pytest.ExitCode.OK
    assert suite.record().comparisons == ()


def test_a_stable_stack_that_dies_is_named_and_nothing_is_green(suite: Suite) -> None:
    suite.baselines = suite.folder / "empty"
    suite.baselines.mkdir()
    script = suite.folder / "python-stable"
    script.write_text(f'#!/bin/sh\nPERF_FAKE=segfault exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    result = run(suite, f"--perf-against={script}")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert comparison(suite).status is Status.CRASH
    assert comparison(suite).failed_side is Side.STABLE
    assert suite.statuses(FP8DQROW)[STEP] is Status.INCONCLUSIVE
    assert f"the stable stack ({script}) failed: ERROR(crash): worker was killed by SIGSEGV" in text(result)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            (*ON_GPU, "--perf-against=/nowhere/python"),
            "--perf-against /nowhere/python: there is no such inter",
        ),
        (
            (f"--perf-case={INT8WO}", SAME_STACK),
            "--perf-against: none of the 1 selected cases has a noisy time that gates on its platform",
        ),
    ],
)
def test_a_comparison_that_cannot_be_made_is_one_sentence(
    suite: Suite, arguments: tuple[str, ...], says: str
) -> None:
    result = suite.run(*arguments, tests=(LATENCY,))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert says in str(result.stderr)
    assert not suite.out.exists()
