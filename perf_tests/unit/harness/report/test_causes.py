"""report/causes.py: what is said of a cause, and what is left out first where it is too long."""

from __future__ import annotations

import msgspec

from perf_tests.harness.report.causes import Cause, counts, explained
from perf_tests.harness.runs.record import Status
from perf_tests.unit.builders import make_run

CAUSE = Cause(status=Status.REGRESSED, metric="denoise_step_ms", runs=(make_run(),))
TEXT = """case on h100: denoise_step_ms regressed
  measured   106.3 ms
  baseline   100.5 ms
  limit      101.5 ms
  changed since the baseline:
    torch 2.11.0 -> 2.13.0
    numpy 2.4.0 -> 2.5.2
    triton 3.6.0 -> 3.7.0
    driver 570 -> 580
  next       see whether the control case moves, too
  next       compare with a stable stack on this card
  accept     python tools/rebaseline.py apply .perf/latest --only 'case' --reason "..." --write
  only if    you know the cause
  reproduce  pytest --perf-case 'case'
  log        .perf/latest/logs/case.0.log .perf/latest/logs/case.1.log"""


def test_a_short_text_is_whole() -> None:
    short = "\n".join(TEXT.splitlines()[:4])

    assert explained(1, CAUSE, short, 100) == ["[1] denoise_step_ms REGRESSED: 1 case", *short.splitlines()]


def test_of_a_long_text_the_log_and_the_last_changes_are_left_out_first() -> None:
    lines = TEXT.splitlines()

    assert explained(1, CAUSE, TEXT, 100)[1:] == [
        *lines[:7],
        *lines[9:14],
        "  and 3 more lines with --perf-table=all, and in the JUnit file",
    ]


def test_what_to_do_stays_also_where_it_takes_several_lines() -> None:
    said = explained(1, CAUSE, TEXT, 60)

    assert len(said) == 1 + 13
    assert "  reproduce  pytest --perf-case 'case'" in said
    start = next(number for number, line in enumerate(said) if line.startswith("  accept "))
    command = " ".join(line.strip().removesuffix("\\").strip() for line in said[start : start + 3])
    assert command.startswith(
        "accept     python tools/rebaseline.py apply .perf/latest --only 'case' --reason \"...\" --write"
    )


def test_a_text_without_such_parts_loses_its_end() -> None:
    text = "\n".join(f"  reason     {number}" for number in range(20))
    said = explained(1, CAUSE, text, 100)

    assert said[-2:] == [
        "  reason     11",
        "  and 8 more lines with --perf-table=all, and in the JUnit file",
    ]


def test_what_to_do_outlasts_a_long_reason() -> None:
    text = "\n".join([*(f"  reason     {number}" for number in range(20)), "  reproduce  pytest"])

    assert explained(1, CAUSE, text, 100)[-3:] == [
        "  reason     10",
        "  reproduce  pytest",
        "  and 9 more lines with --perf-table=all, and in the JUnit file",
    ]


def test_a_case_that_was_not_judged_to_the_end_is_not_called_green() -> None:
    measured = make_run()
    judged = msgspec.structs.replace(measured, id="another", status=Status.PASS)

    assert counts([measured], ()) == "1 case: 1 not judged to the end"
    assert counts([measured, judged], ()) == "2 cases: 1 green, 1 not judged to the end"
