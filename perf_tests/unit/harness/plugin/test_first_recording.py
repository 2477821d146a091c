"""A card that nobody has measured on: the first session, what is accepted from it, and what follows."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from perf_tests.harness.baselines import transaction
from perf_tests.harness.runs.record import Status
from perf_tests.unit.conftest import FP8DQROW, Misbehave, Plug, Suite, rebaseline
from perf_tests.unit.harness.plugin.sessions import BUILD, UUID, collected, screen

ONE_ROW = ("-m", "h200", "--perf-require-gpu", f"--perf-case={FP8DQROW}", "--perf-processes=3")
NIGHT = ("-m", "h200 and not unrecorded", "--perf-require-gpu")


@pytest.fixture
def on_h200(suite: Suite, plug_gpu: Plug, misbehave: Misbehave) -> Suite:
    """A suite on an H200, whose baselines are of other platforms."""
    plug_gpu(name="NVIDIA H200", memory_gib=140, uuid=UUID)
    misbehave("platform:h200")
    suite.baselines = Path(shutil.copytree(suite.baselines, suite.folder / "baselines"))
    return suite


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the baselines that are recorded once, of which each test changes a copy."""
    return tmp_path_factory.mktemp("accepted") / "baselines"


@pytest.fixture
def recorded_there(on_h200: Suite, accepted: Path) -> Suite:
    """The same once the numbers of its first session are accepted with the command that it prints."""
    if not accepted.exists():
        first = on_h200.run(*ONE_ROW)
        assert first.ret == pytest.ExitCode.TESTS_FAILED
        assert rebaseline([*_recording(first), "--baselines", str(on_h200.baselines)]) == 0
        shutil.copytree(on_h200.baselines, accepted)
    shutil.rmtree(on_h200.baselines)
    shutil.copytree(accepted, on_h200.baselines)
    return on_h200


def _recording(result: pytest.RunResult) -> list[str]:
    """The arguments of the command that the session prints for a row without a baseline."""
    commands = {line.partition("record ")[2] for line in result.outlines if line.startswith("  record ")}
    (command,) = commands
    words = shlex.split(command)
    assert words[:2] == ["python", "tools/rebaseline.py"]
    return words[2:]


def _files(folder: Path) -> Iterator[str]:
    return (str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_platform_without_a_folder_is_red_with_the_command_that_records_it(on_h200: Suite) -> None:
    first = on_h200.run(*ONE_ROW)

    assert first.ret == pytest.ExitCode.TESTS_FAILED
    assert on_h200.case(FP8DQROW).status is Status.NO_BASELINE
    assert _recording(first)[:4] == ["apply", str(on_h200.out), "--only", FP8DQROW]
    screen(first)


def test_what_is_accepted_first_makes_the_folder_with_noise_and_register(recorded_there: Suite) -> None:
    figures, case, *others = _files(recorded_there.baselines / "h200")
    assert (case, others) == (f"flux1-dev/{FP8DQROW}.json", ["noise.json", "recorded.txt"])
    assert figures.startswith("flux1-dev/figures/")
    assert (recorded_there.baselines / "h200" / "recorded.txt").read_text() == f"{FP8DQROW}\n"
    assert rebaseline(["check", "--baselines", str(recorded_there.baselines)]) == 0
    assert not transaction.unfinished(recorded_there.baselines)


def test_the_next_session_on_that_card_is_green_and_compares_everything(recorded_there: Suite) -> None:
    second = recorded_there.run(*ONE_ROW)

    assert second.ret == pytest.ExitCode.OK, screen(second)
    assert set(recorded_there.statuses(FP8DQROW).values()) == {Status.PASS}


def test_a_slower_step_on_that_card_is_red(recorded_there: Suite) -> None:
    result = recorded_there.run(*ONE_ROW, "--perf-inject=latency:+3%")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert recorded_there.statuses(FP8DQROW)["denoise_step_ms"] is Status.REGRESSED


def test_a_night_takes_what_was_recorded_on_that_card_and_leaves_out_the_rest(recorded_there: Suite) -> None:
    everything = collected(recorded_there.run("-m", "h200", "--collect-only", "-q", tests=(BUILD,)))
    assert len(everything) > 100

    assert collected(recorded_there.run(*NIGHT, "--collect-only", "-q", tests=(BUILD,))) == {FP8DQROW}


def test_a_night_takes_every_row_where_the_whole_folder_went_missing(recorded_there: Suite) -> None:
    shutil.rmtree(recorded_there.baselines / "h200")

    taken = collected(recorded_there.run(*NIGHT, "--collect-only", "-q", tests=(BUILD,)))

    assert len(taken) > 100
