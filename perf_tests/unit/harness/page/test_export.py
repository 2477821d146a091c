"""Numbers out: CSV, Markdown, and the schema of run.json."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.page import export
from perf_tests.harness.page.sources import PageSources
from perf_tests.harness.runs.record import RunRecord, Status
from perf_tests.unit.builders import (
    MINI_BF16,
    MINI_INT8WO,
    make_failure,
    make_record,
    make_run,
    make_verdict,
)
from perf_tests.unit.conftest import Suite
from perf_tests.unit.harness.plugin.sessions import BUILD, ONLY_INT8WO

STEP = make_verdict(
    "denoise_step_ms",
    Status.REGRESSED,
    measured=103.4,
    baseline=100.0,
    change_pct=3.4,
    ci_pct=(2.1, 4.7),
    limit=100.75,
    reason="=HYPERLINK(1)",
)
JUDGED = msgspec.structs.replace(
    make_run(),
    status=Status.REGRESSED,
    verdicts=(STEP,),
    measured={"denoise_step_ms": 103.4, "encode_ms": 50.0},
)
FAILED = msgspec.structs.replace(
    make_run(MINI_BF16),
    status=Status.OOM,
    failure=make_failure(message="a | b `c` @everyone\n<img src=x>"),
    processes=(),
)


def sources(*runs: Any) -> PageSources:
    return PageSources(record=make_record(*runs, references=()), where="out")


def test_csv_has_a_line_for_each_metric_and_for_each_case_that_failed() -> None:
    rows = list(csv.DictReader(io.StringIO(export.as_csv(sources(JUDGED, FAILED)))))

    assert [(row["case"], row["metric"], row["verdict"]) for row in rows] == [
        (MINI_BF16.id, "", ""),
        (MINI_INT8WO.id, "denoise_step_ms", "REGRESSED"),
        (MINI_INT8WO.id, "encode_ms", ""),
    ]
    judged = rows[1]
    numbers = ("measured", "baseline", "change_pct", "ci_low_pct", "ci_high_pct", "limit")
    assert [float(judged[name]) for name in numbers] == [103.4, 100.0, 3.4, 2.1, 4.7, 100.75]
    assert (judged["unit"], judged["scheme"], judged["group"]) == ("ms", "int8wo", "b1 eager")
    assert (judged["processes"], judged["card"], judged["torch"]) == ("1", "Example CPU", "2.13.0")
    assert judged["reason"] == "'=HYPERLINK(1)"
    assert rows[2]["measured"] == "50.0"
    assert rows[0]["reason"] == "a | b `c` @everyone <img src=x>"


def test_markdown_says_what_is_red_and_nothing_in_it_is_markup() -> None:
    text = export.as_markdown(sources(JUDGED, FAILED))

    assert (
        text.splitlines()[0] == "**`flux-mini-b1-bf16-eager: ERROR(oom): a \\| b 'c' @everyone <img src=x>`**"
    )
    assert text.splitlines()[2:5] == [
        "2 cases: 2 red for 2 causes",
        "",
        "| case | verdict | metric | baseline | now | change | limit |",
    ]
    assert text.splitlines()[6:] == [
        f"| `{MINI_BF16.id}` | `ERROR(oom)` | `a \\| b 'c' @everyone <img src=x>` |  |  |  |  |",
        f"| `{MINI_INT8WO.id}` | `REGRESSED` | `denoise_step_ms` | `100.0 ms` | `103.4 ms` | `+3.40 %` | "
        "`100.8 ms` |",
    ]


def test_markdown_only_counts_what_lacks_a_baseline() -> None:
    new = make_verdict("recompiles", Status.NO_BASELINE)
    run = msgspec.structs.replace(make_run(), status=Status.NO_BASELINE, verdicts=(new,))

    assert export.as_markdown(sources(run)).endswith("\n\n1 case: 1 without a baseline\n")


def test_markdown_of_a_green_run_has_no_table() -> None:
    passed = msgspec.structs.replace(
        make_run(), status=Status.PASS, verdicts=(make_verdict("x", Status.PASS),)
    )

    assert export.as_markdown(sources(passed)) == "**`The case is green.`**\n\n1 case: 1 green\n"


def test_markdown_of_very_many_red_lines_stays_short_enough_for_a_comment() -> None:
    runs = [msgspec.structs.replace(JUDGED, id=f"case-{n}") for n in range(300)]

    text = export.as_markdown(sources(*runs))

    assert len(text) < 65_536
    assert text.endswith("and 100 more lines, which the page of the run has\n")


def test_schema_describes_the_records_of_sessions_and_refuses_what_is_none(suite: Suite) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="the extra `dev` brings it along")
    described = json.loads(export.schema())
    validator = jsonschema.Draft202012Validator(described)
    jsonschema.Draft202012Validator.check_schema(described)

    suite.run(ONLY_INT8WO, tests=(BUILD,))
    record = json.loads((suite.out / "run.json").read_text(encoding="utf-8"))

    assert list(validator.iter_errors(record)) == []
    assert list(validator.iter_errors({**record, "cases": "none"})) != []
    assert list(validator.iter_errors({**record, "unknown": 1})) != []


def test_schema_names_its_dialect_and_every_field_of_a_record() -> None:
    described = json.loads(export.schema())

    assert described["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(described["$defs"]["RunRecord"]["properties"]) == set(RunRecord.__struct_fields__)


@pytest.mark.parametrize("name", ["reason", "id"])
def test_csv_of_text_that_steers_a_terminal_is_harmless(name: str, tmp_path: Path) -> None:
    steering = msgspec.structs.replace(JUDGED, verdicts=(), measured={}, **{name: '\x1b[31m,\n"x'})
    text = export.as_csv(sources(steering))

    assert "\x1b" not in text
    assert len(list(csv.reader(io.StringIO(text)))) == 2
