"""The tables of how fake workers misbehave are complete, and a switch that is not in them is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf_tests.unit.conftest import BF16, CASES, INT8WO
from perf_tests.unit.fake_worker import serving, switches
from perf_tests.unit.fake_worker.switches import Switches

SOURCES = [path for path in Path(switches.__file__).parent.glob("*.py") if path.stem != "switches"]


def test_each_switch_of_the_tables_is_asked_for() -> None:
    text = "".join(path.read_text() for path in SOURCES)
    assert len(switches.TAKES_ARGUMENT) > 50
    assert [name for name in switches.TAKES_ARGUMENT if f'"{name}"' not in text] == []


def test_what_is_sent_instead_of_an_answer_is_described() -> None:
    assert serving.INSTEAD.keys() == switches.INSTEAD_OF_AN_ANSWER.keys()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("exit,oom", "there is no switch 'oom'"),
        ("slower", "'slower' is not how switches.py writes 'slower'"),
        ("no-torch:1", "'no-torch:1' is not how switches.py writes 'no-torch'"),
    ],
)
def test_a_switch_that_is_written_otherwise_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Switches(text)


def test_a_switch_applies_to_the_cases_of_its_pattern() -> None:
    found = Switches(f"slower:3@{INT8WO}")
    assert found.argument("slower", CASES[INT8WO]) == "3"
    assert found.argument("slower", CASES[BF16]) is None
