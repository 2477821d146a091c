from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.runs.record import Progress, Run, RunRecord, Status, Verdict
from perf_tests.harness.runs.record_file import read_record, write_record
from perf_tests.protocol.errors import PerfError, RecordError
from perf_tests.protocol.messages import Failure, FailureKind, Phase

VERDICT = Verdict(
    metric="weight_bytes",
    status=Status.REGRESSED,
    measured=2.0,
    baseline=1.0,
    change_pct=100.0,
    ci_pct=None,
    limit=1.0,
    reason="differs from the baseline",
)
RUN = Run(
    id="flux-mini-b1-bf16-eager",
    digest="d1",
    platform="cpu",
    pipeline="flux-mini",
    status=Status.TIMEOUT,
    reason="no answer to generate within 60 s",
    verdicts=(VERDICT,),
    failure=Failure(
        kind=FailureKind.TIMEOUT, phase=Phase.GENERATE, message="no answer to generate within 60 s"
    ),
)
RECORD = RunRecord(
    format_version=1,
    created_at="2026-01-02T03:04:05+00:00",
    command="pytest -m cpu",
    environment=None,
    cases=(RUN,),
    references=(),
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_record(tmp_path / "run.json", RECORD)
    assert read_record(tmp_path / "run.json") == RECORD


def test_a_record_is_read_from_its_directory(tmp_path: Path) -> None:
    write_record(tmp_path / "run.json", RECORD)
    assert read_record(tmp_path) == RECORD


def test_a_record_is_indented_json_with_the_words_of_the_report(tmp_path: Path) -> None:
    write_record(tmp_path / "run.json", RECORD)
    text = (tmp_path / "run.json").read_text()
    assert text.startswith('{\n "format_version": 1,\n')
    assert json.loads(text)["cases"][0]["status"] == "ERROR(timeout)"


def test_a_written_record_leaves_no_other_file(tmp_path: Path) -> None:
    write_record(tmp_path / "run.json", RECORD)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_full_disk_is_reported_and_leaves_the_previous_record(tmp_path: Path) -> None:
    write_record(tmp_path / "run.json", RECORD)
    (tmp_path / f"run.json.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(
        PerfError, match=r"cannot write .*run\.json: No space left on device; nothing measured"
    ):
        write_record(tmp_path / "run.json", msgspec.structs.replace(RECORD, cases=()))
    assert read_record(tmp_path) == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(PerfError, match=r"cannot write .*: No such file or directory"):
        write_record(tmp_path / "gone" / "run.json", RECORD)


def test_a_temporary_file_that_cannot_be_removed_does_not_hide_the_reason(tmp_path: Path) -> None:
    (tmp_path / f"run.json.{os.getpid()}.tmp").mkdir()
    with pytest.raises(PerfError, match="Is a directory"):
        write_record(tmp_path / "run.json", RECORD)


def test_a_missing_record_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"run\.json: No such file or directory; give a run\.json"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    "keep",
    [pytest.param(0, id="empty"), pytest.param(100, id="in-the-header"), pytest.param(400, id="in-a-case")],
)
def test_a_truncated_record_is_named_with_the_remedy(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "run.json"
    write_record(file, RECORD)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(RecordError, match=r"run\.json: .*truncated.*; it is truncated or not a run\.json"):
        read_record(file)


def test_json_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"machine_info": {}}')
    with pytest.raises(RecordError, match="missing required field `format_version`"):
        read_record(tmp_path)


def test_a_record_of_another_format_names_both_versions(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format_version": 7, "novelty": []}')
    with pytest.raises(RecordError, match="has format version 7, this suite reads 1"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("reason", "progress"),
    [
        ("not measured", Progress.PLANNED),
        ("interrupted", Progress.INTERRUPTED),
        ("measured, not judged", Progress.MEASURED),
        ("measured beside others, not judged", Progress.MEASURED),
        ("differs from the baseline", Progress.JUDGED),
        ("", Progress.JUDGED),
    ],
)
def test_a_run_older_than_its_progress_tells_it_in_its_reason(
    tmp_path: Path, reason: str, progress: Progress
) -> None:
    old = msgspec.to_builtins(msgspec.structs.replace(RECORD, references=(RUN,)))
    for run in (*old["cases"], *old["references"]):
        del run["progress"]
        run["reason"] = reason
    (tmp_path / "run.json").write_bytes(msgspec.json.encode(old))
    record = read_record(tmp_path)
    assert [run.progress for run in (*record.cases, *record.references)] == [progress, progress]


def test_a_pipe_in_place_of_a_record_is_one_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(RecordError, match=r"cannot read the run record .*: it is a pipe"):
        read_record(tmp_path)
