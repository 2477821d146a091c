"""Earlier runs: trends, and since when something is red."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.history import files
from perf_tests.harness.history.night import night_of
from perf_tests.harness.page import earlier
from perf_tests.harness.page.charts import Band
from perf_tests.harness.page.earlier import Nights
from perf_tests.harness.page.pages import page_of
from perf_tests.harness.page.sources import PageSources
from perf_tests.harness.runs.record import Run, RunRecord, Status
from perf_tests.harness.runs.record_file import write_record
from perf_tests.protocol.errors import UsageError
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import (
    FLUX_FP8,
    GPU,
    make_environment,
    make_process,
    make_record,
    make_run,
    make_verdict,
)

STEP = "denoise_step_ms"


def run(step_ms: float, *, red: bool = False, torch: str = "2.14.0", uuid: str = GPU.uuid) -> Run:
    gpu = msgspec.structs.replace(GPU, uuid=uuid)
    environment = make_environment(gpu=gpu, packages={"torch": torch, "torchao": "0.18.0"})
    status = Status.REGRESSED if red else Status.PASS
    return msgspec.structs.replace(
        make_run(FLUX_FP8, H100, processes=(make_process(environment=environment),)),
        status=status,
        reason="beyond the limit" if red else "",
        measured={STEP: step_ms},
        verdicts=(make_verdict(STEP, status, measured=step_ms, change_pct=step_ms - 100),),
    )


def record(day: int, made: Run) -> RunRecord:
    return make_record(made, references=(), created_at=f"2026-11-{day:02}T07:17:00+00:00")


def nights(folder: Path, *records: RunRecord) -> Nights:
    for number, each in enumerate(records):
        (folder / f"n{number}" / "deep").mkdir(parents=True)
        write_record(folder / f"n{number}" / "deep" / "run.json", each)
    return earlier.read(folder, record(20, run(104.0, red=True)))


def none(_: str) -> Band | None:
    return None


def test_runs_are_found_however_deep_and_sorted_by_when_they_began(tmp_path: Path) -> None:
    found = nights(
        tmp_path, record(12, run(101.0)), record(11, run(100.0)), record(20, run(1.0)), record(21, run(2.0))
    )

    assert [night.when[:10] for night in found.nights] == ["2026-11-11", "2026-11-12"]
    assert found.unreadable == ()


def test_trend_has_the_values_in_turn_and_what_changed_between_them(tmp_path: Path) -> None:
    found = nights(tmp_path, record(11, run(100.0)), record(12, run(104.0, red=True, torch="2.15.0")))
    now = run(104.5, red=True, torch="2.15.0")

    made = earlier.trend(now, STEP, found.nights, none)

    assert made is not None
    assert made.metric == STEP
    assert made.lines.splitlines() == [
        "run                        denoise_step_ms  changed in the stack",
        "2026-11-11T07:17:00+00:00         100.0 ms",
        "2026-11-12T07:17:00+00:00         104.0 ms  torch 2.14.0 -> 2.15.0",
        "this run                          104.5 ms",
    ]
    assert made.chart.title == (
        "3 runs: 100.0 ms at first, 104.5 ms now; there is no baseline; 2 red; the stack changed 1 time"
    )
    assert {path.style for path in made.chart.paths} == {"tick", "dots", "triangles"}


def test_another_card_another_case_and_a_fire_drill_are_left_out_of_a_trend(tmp_path: Path) -> None:
    drill = msgspec.structs.replace(run(150.0), injected=("latency:+50%",))
    another = msgspec.structs.replace(run(120.0), digest="e" * 64)
    found = nights(
        tmp_path,
        record(11, run(90.0, uuid="GPU-2")),
        record(12, drill),
        record(13, another),
        record(14, run(100.0)),
    )

    made = earlier.trend(run(101.0), "", found.nights, none)

    assert made is not None
    assert [line[-8:] for line in made.lines.splitlines()[1:]] == ["100.0 ms", "101.0 ms"]


def test_without_earlier_runs_of_the_case_there_is_no_trend(tmp_path: Path) -> None:
    assert earlier.trend(run(100.0), "", (), none) is None
    assert earlier.trend(run(100.0), "", nights(tmp_path).nights, none) is None


@pytest.mark.parametrize(
    ("reds", "said"),
    [
        ((False, False), "green as late as 2026-11-12"),
        ((False, True), "red since 2026-11-12 (2 runs), green as late as 2026-11-11"),
        ((False, True, True), "red since 2026-11-12 (3 runs), green as late as 2026-11-11"),
        ((True, False), "green as late as 2026-11-12"),
        ((True, True), "red in all 2 earlier runs, since 2026-11-11 at least"),
        ((), ""),
    ],
)
def test_since_when_it_is_red(tmp_path: Path, reds: tuple[bool, ...], said: str) -> None:
    found = nights(tmp_path, *(record(11 + n, run(100.0, red=red)) for n, red in enumerate(reds)))

    assert earlier.since(run(104.0, red=True), STEP, found.nights) == said


def test_file_that_cannot_be_read_is_named_on_the_page_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    found = nights(tmp_path, record(11, run(100.0)))
    today = record(20, run(104.0, red=True))

    page = page_of(PageSources(record=today, where="out", earlier=found))

    assert len(found.nights) == 1
    assert page.sentence == (
        "denoise_step_ms of flux1-dev-b1-fp8dqrow-regional: REGRESSED by +4.00 % (104.0 ms), "
        "green as late as 2026-11-11."
    )
    assert page.remarks[0].startswith(f"not among the earlier runs: {tmp_path}/broken/run.json: ")
    assert page.cases[0].trend is not None
    assert page.cases[0].trend_title == "denoise_step_ms over the runs"


def test_nights_of_history_are_earlier_runs_too(tmp_path: Path) -> None:
    for day, night in ((11, run(100.0)), (12, run(104.0, red=True, torch="2.15.0")), (20, run(1.0))):
        files.append(tmp_path, *night_of(record(day, night), "h100", f"run-{day}", wheels={}))
    drill = night_of(record(13, run(9.0)), "h100", "run-13", wheels={}, why_not="a trial")
    files.append(tmp_path, *drill)
    now = run(104.5, red=True, torch="2.15.0")

    found = earlier.read(tmp_path, record(20, now))
    made = earlier.trend(now, STEP, found.nights, none)

    assert made is not None
    assert made.lines.splitlines()[1:] == [
        "2026-11-11         100.0 ms",
        "2026-11-12         104.0 ms  torch 2.14.0 -> 2.15.0",
        "this run           104.5 ms",
    ]
    assert earlier.since(now, STEP, found.nights) == (
        "red since 2026-11-12 (2 runs), green as late as 2026-11-11"
    )


def test_night_of_history_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl.gz").write_bytes(b"no gzip")

    found = earlier.read(tmp_path, record(20, run(1.0)))

    assert found.nights == ()
    assert found.unreadable[0].startswith(f"the night {tmp_path}/broken.jsonl.gz cannot be read: ")


def test_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--history .*/none is not a folder; give the one that holds earlier"
    ):
        earlier.read(tmp_path / "none", record(20, run(1.0)))
