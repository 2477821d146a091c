"""The dead-man's switch: an issue where no night is on record for 48 hours, closed when one is."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from perf_tests.harness.history import files
from perf_tests.harness.history.night import NightHeader, NightRow
from perf_tests.unit.conftest import ROOT
from perf_tests.unit.harness.telling.conftest import JobOf
from perf_tests.unit.harness.telling.fake_github import FakeGitHub
from perf_tests.unit.harness.telling.nights import BF16, FP8, INT8, STEP

main: Callable[..., int] = runpy.run_path(str(ROOT / "tools" / "heartbeat.py"))["main"]
PASSED = {FP8: "PASS"}
"""Case -> the status of its step."""
TITLE = "Performance: no night on h100 for 48 hours"


class Switch:
    """The workflow of one day after the other, which looks at what is on record."""

    def __init__(self, history: Path, job_of: JobOf, capsys: pytest.CaptureFixture[str]) -> None:
        self.history = history
        self._job_of = job_of
        self._capsys = capsys

    def record(
        self,
        day: int,
        *,
        counts: bool = True,
        processes: int = 1,
        platform: str = "h100",
        night: str | None = None,
        attempt: int = 1,
        statuses: Mapping[str, str] = PASSED,
    ) -> None:
        """Put the night of a day in November on record."""
        header = NightHeader(
            format_version=1,
            night=night or f"2026-11-{day:02}",
            run=f"{day}-{attempt}",
            platform=platform,
            methodology=1,
            packages={},
            counts=counts,
        )
        rows = [
            NightRow(case=case, metric=STEP, digest="0", status=status, processes=processes)
            for case, status in {**PASSED, **statuses}.items()
        ]
        files.append(self.history, header, rows)

    def look(self, day: int, hour: int = 20, *options: str) -> list[str]:
        """What the workflow said that it did."""
        history = ("--history", str(self.history), "--platform", "h100")
        assert main([*history, *(options or ("--write",))], self._job_of(day, hour)) == 0
        return self._capsys.readouterr().out.splitlines()


@pytest.fixture
def switch(tmp_path: Path, job_of: JobOf, capsys: pytest.CaptureFixture[str]) -> Switch:
    return Switch(tmp_path / "history", job_of, capsys)


def test_48_hours_without_a_night_open_one_issue_which_the_next_night_closes(
    switch: Switch, github: FakeGitHub
) -> None:
    switch.record(1)
    assert switch.look(1) == ["the last night on record: 2026-11-01"]
    assert switch.look(2) == ["the last night on record: 2026-11-01"]  # one night is missing
    assert switch.look(3) == ["the last night on record: 2026-11-01", f"create #1 {TITLE}"]
    assert "The last night on record is that of 2026-11-01." in github.issues[0]["body"]
    assert switch.look(4) == ["the last night on record: 2026-11-01"]
    switch.record(5)
    assert switch.look(5) == ["the last night on record: 2026-11-05", f"close #1 {TITLE}"]
    assert github.said(1) == ["Nights are on record again. The last night on record is that of 2026-11-05."]
    assert github.states == ["closed"]
    assert switch.look(8)[1:] == [f"reopen #1 {TITLE}"]
    assert github.states == ["open"]


def test_a_platform_that_was_never_on_record_is_silent(switch: Switch, github: FakeGitHub) -> None:
    assert switch.look(1) == ["the last night on record: none", f"create #1 {TITLE}"]
    assert "No night is on record." in github.issues[0]["body"]


def test_a_silence_long_after_another_is_another_issue(switch: Switch, github: FakeGitHub) -> None:
    switch.look(1)
    switch.record(2)
    switch.look(2)
    assert switch.look(17)[1:] == [f"create #2 {TITLE}"]


@pytest.mark.parametrize(
    "other",
    [
        {"counts": False},
        {"processes": 0},
        {"platform": "h200"},
        {"night": "2026-12-24"},
    ],
    ids=["a run by hand", "a night that measured nothing", "another platform", "a day to come"],
)
def test_what_is_no_night_does_not_silence_the_switch(switch: Switch, other: dict[str, str]) -> None:
    switch.record(1)
    switch.record(4, **other)  # type: ignore[arg-type]  # of parameters
    assert switch.look(4)[0] == "the last night on record: 2026-11-01"


def test_a_dry_run_changes_nothing(switch: Switch, github: FakeGitHub) -> None:
    said = switch.look(1, 20, "--history", str(switch.history))
    assert said[1] == f'create "{TITLE}"'
    assert github.changes == []


def test_a_history_that_cannot_be_read_is_an_error(
    switch: Switch, job_of: JobOf, capsys: pytest.CaptureFixture[str]
) -> None:
    switch.record(1)
    (switch.history / "h100" / "2026-11-02-2.jsonl.gz").write_bytes(b"no gzip")
    options = ["--history", str(switch.history), "--platform", "h100", "--write"]
    assert main(options, job_of(2)) == 2
    assert "2026-11-02-2.jsonl.gz cannot be read" in capsys.readouterr().err


# Rows that no night judges


def test_nights_that_are_lost_close_nothing(switch: Switch, github: FakeGitHub) -> None:
    for day in (1, 2, 3):
        switch.record(day, statuses={INT8: "INVALID"})
    switch.look(3)
    (switch.history / "h100" / "2026-11-01-1-1.jsonl.gz").unlink()
    assert switch.look(3)[1:] == []
    assert github.states == ["open"]


def test_a_night_that_was_run_three_times_is_one_night(switch: Switch) -> None:
    switch.record(1)
    for attempt in (1, 2, 3):
        switch.record(2, attempt=attempt, statuses={INT8: "INVALID"})
    assert switch.look(2)[1:] == []
    for day in (3, 4):
        switch.record(day, statuses={INT8: "INVALID"})
    assert switch.look(4)[1:] == ["create #1 Performance: rows on h100 that no night judges"]


def test_rows_without_a_verdict_for_three_nights_are_one_issue(switch: Switch, github: FakeGitHub) -> None:
    switch.record(1, statuses={INT8: "INVALID", BF16: "INVALID"})
    switch.record(2, statuses={INT8: "NOT_RUN(budget)", BF16: "PASS"})
    assert switch.look(2)[1:] == []
    switch.record(3, statuses={INT8: "NO_BASELINE", BF16: "INVALID", "x](https://evil.example)": "INVALID"})
    assert switch.look(3)[1:] == ["create #1 Performance: rows on h100 that no night judges"]
    rows = [line for line in github.issues[0]["body"].splitlines() if line.startswith("| `")]
    assert rows == [f"| `{INT8}` | INVALID, NOT_RUN(budget), NO_BASELINE |"]
    assert switch.look(3)[1:] == []
    switch.record(4, statuses={INT8: "PASS"})
    assert switch.look(4)[1:] == ["close #1 Performance: rows on h100 that no night judges"]
    assert github.said(1) == ["All rows have verdicts again."]


def test_rows_are_listed_anew_as_they_change(switch: Switch, github: FakeGitHub) -> None:
    for day in (1, 2, 3):
        switch.record(day, statuses={INT8: "INVALID"})
    switch.look(3)
    for day in (4, 5, 6):
        switch.record(day, statuses={INT8: "INVALID", BF16: "INCONCLUSIVE"})
    assert switch.look(6)[1:] == ["update #1 Performance: rows on h100 that no night judges"]
    assert f"| `{BF16}` | INCONCLUSIVE |" in github.issues[0]["body"]
