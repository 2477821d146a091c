"""The files of nights: immutable, the same for the same night, and what is broken is named."""

from __future__ import annotations

import gzip
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.history import files
from perf_tests.harness.history.night import NightHeader, NightRow, night_of
from perf_tests.harness.runs.record import Status
from perf_tests.protocol.errors import RecordError, UsageError
from perf_tests.unit.builders import (
    MINI_INT8WO,
    make_environment,
    make_failure,
    make_process,
    make_record,
    make_run,
    make_verdict,
)

NIGHT = NightHeader(
    format_version=1,
    night="2026-11-20",
    run="17-1",
    platform="h100",
    methodology=1,
    packages={"torch": "2.15.0.dev20261120 (0123456789ab)"},
)
ROW = NightRow(
    case="a", metric="denoise_step_ms", digest="d", status="PASS", value=61.5, processes=1, card="c"
)


def test_a_night_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = files.append(tmp_path, NIGHT, [ROW])
    assert path == tmp_path / "h100" / "2026-11-20-17-1.jsonl.gz"
    (found,) = files.nights(tmp_path, "h100")
    assert (found.night, found.rows) == (NIGHT, (ROW,))


def test_the_same_night_has_the_same_bytes_whenever_it_is_packed() -> None:
    assert files.dumps(NIGHT, [ROW]) == files.dumps(NIGHT, [ROW])


def test_a_night_is_never_rewritten(tmp_path: Path) -> None:
    path = files.append(tmp_path, NIGHT, [ROW])
    before = path.read_bytes()
    files.append(tmp_path, NIGHT, [ROW])
    with pytest.raises(UsageError, match="history is never rewritten; give a --run that tells them apart"):
        files.append(tmp_path, NIGHT, [])
    assert path.read_bytes() == before


def test_nights_come_in_order_whatever_they_are_called(tmp_path: Path) -> None:
    for night in ("2026-11-21", "2026-11-19", "2026-11-20"):
        files.append(tmp_path, msgspec.structs.replace(NIGHT, night=night), [])
    found = [each.night.night for each in files.nights(tmp_path, "h100")]
    assert found == ["2026-11-19", "2026-11-20", "2026-11-21"]


@pytest.mark.parametrize("run", ["../../etc", "a/b", "", "x" * 81])
def test_a_run_that_is_no_file_name_is_refused(tmp_path: Path, run: str) -> None:
    with pytest.raises(UsageError, match="cannot be part of a file's name"):
        files.append(tmp_path, msgspec.structs.replace(NIGHT, run=run), [])


@pytest.mark.parametrize("platform", ["..", ".", "h9000"])
def test_a_platform_that_there_is_not_gets_no_folder(tmp_path: Path, platform: str) -> None:
    with pytest.raises(UsageError, match="there is no such platform"):
        files.append(tmp_path / "history", msgspec.structs.replace(NIGHT, platform=platform), [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("night", ["../../.git", "", "2026-13-01", "20261120", "yesterday"])
def test_a_night_that_is_no_day_is_not_kept(tmp_path: Path, night: str) -> None:
    with pytest.raises(UsageError, match="is no day"):
        files.append(tmp_path / "history", msgspec.structs.replace(NIGHT, night=night), [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b""), gzip.compress(b"{}\n"), files.dumps(NIGHT, [ROW])[:-9]],
)
def test_a_night_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "h100" / "2026-11-20-1.jsonl.gz"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(RecordError, match=f"the night {path} cannot be read"):
        files.nights(tmp_path, "h100")


def test_a_night_without_a_line_is_said_to_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "2026-11-20-1.jsonl.gz"
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(RecordError, match=r"cannot be read: it is empty$"):
        files.read(path)


def test_a_night_that_unpacks_to_gigabytes_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 100)
    path = files.append(tmp_path, NIGHT, [ROW])
    with pytest.raises(RecordError, match="it is larger than 100 bytes"):
        files.read(path)


# What a run becomes


def test_a_run_becomes_a_row_for_each_verdict_and_one_for_its_build() -> None:
    versions = {"torch": "2.15.0 (0123456789abcdef)", "torchao": "0.19.0+git36027d82", "numpy": "2.4"}
    process = make_process(environment=make_environment(packages=versions))
    verdicts = (make_verdict("denoise_step_ms", Status.REGRESSED, measured=104.0),)
    run = make_run(MINI_INT8WO, processes=(process, process), verdicts=verdicts)
    night, rows = night_of(make_record(run), "cpu", "1", wheels={"torch": "https://x.org/torch.whl"})

    assert night.packages == {"torch": "2.15.0 (0123456789abcdef)", "torchao": "0.19.0+git36027d82"}
    assert night.commits == {"torch": "0123456789abcdef", "torchao": "36027d82"}
    assert (night.counts, night.wheels) == (True, {"torch": "https://x.org/torch.whl"})
    build, step = rows
    assert (build.metric, build.status) == ("build", "PASS")
    assert (step.case, step.metric, step.value, step.status, step.processes) == (
        MINI_INT8WO.id,
        "denoise_step_ms",
        104.0,
        "REGRESSED",
        2,
    )
    assert len(step.card) == 12
    assert process.environment.unit not in str(rows)


def test_a_case_that_failed_has_the_row_of_its_build_alone() -> None:
    run = make_run(MINI_INT8WO, status=Status.OOM, failure=make_failure(), processes=())
    _, (build,) = night_of(make_record(run), "cpu", "1", wheels={})
    assert (build.status, build.card) == ("ERROR(oom)", "")


def test_a_fire_drill_never_counts() -> None:
    run = make_run(MINI_INT8WO, injected=("latency:+3%",))
    night, _ = night_of(make_record(run), "cpu", "1", wheels={})
    assert (night.counts, night.why_not) == (False, "a fire drill")


def test_a_fire_drill_of_a_reference_alone_does_not_count() -> None:
    record = make_record(make_run(), references=(make_run(MINI_INT8WO, injected=("latency:+3%",)),))
    night, _ = night_of(record, "cpu", "1", wheels={})
    assert (night.counts, night.why_not) == (False, "a fire drill")


def test_a_run_by_hand_says_why_it_does_not_count() -> None:
    night, _ = night_of(make_record(make_run()), "cpu", "1", wheels={}, why_not="a run by hand")
    assert (night.counts, night.why_not) == (False, "a run by hand")
