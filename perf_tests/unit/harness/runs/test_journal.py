"""runs/journal.py: a session that is killed at any moment leaves a record of what it had kept by then."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.records.attributions import Amount, Attribution, Blame, Corner
from perf_tests.harness.records.evidence import Evidence
from perf_tests.harness.runs.directory import prepare_run_directory, resume_run_directory
from perf_tests.harness.runs.journal import Journal
from perf_tests.harness.runs.record import CellProcess, Comparison, Diagonal, Run, RunRecord, Schedule, Status
from perf_tests.harness.runs.record_file import read_record, read_stored, write_record
from perf_tests.protocol.errors import PerfError, RecordError
from perf_tests.unit.builders import (
    MINI_BF16,
    make_environment,
    make_process,
    make_record,
    make_run,
    make_verdict,
)

BEGUN = make_record(make_run(MINI_BF16), references=())
VERDICTS = (make_verdict("ssim", Status.REGRESSED),)
MEASURED = msgspec.structs.replace(BEGUN, cases=(*BEGUN.cases, make_run()))
FILED = msgspec.structs.replace(
    MEASURED,
    cases=(
        MEASURED.cases[0],
        msgspec.structs.replace(MEASURED.cases[1], status=Status.REGRESSED, verdicts=VERDICTS),
    ),
)
HISTORY = (BEGUN, MEASURED, FILED)


def make_cell(corner: Corner) -> CellProcess:
    return CellProcess(
        case=MINI_BF16.id,
        digest=MINI_BF16.digest,
        injected=(),
        corner=corner,
        python=f"/{corner}/python",
        environment=make_environment(),
        process=make_process(),
    )


def make_comparison() -> Comparison:
    return Comparison(
        id=MINI_BF16.id,
        digest=MINI_BF16.digest,
        platform="cpu",
        pipeline="flux-mini",
        against="/stable/python",
        schedule=Schedule.BY_PROCESS,
        schedule_reason="",
        status=Status.PASS,
    )


def journal_of(folder: Path, *records: RunRecord) -> bytes:
    journal = Journal(folder)
    for record in records:
        journal.write(record)
    journal.close()
    return (folder / "run.jsonl").read_bytes()


def test_a_journal_cut_anywhere_is_the_record_of_its_whole_lines(tmp_path: Path) -> None:
    content = journal_of(tmp_path, *HISTORY)
    assert content.count(b"\n") == 3
    ends = [at for at, byte in enumerate(content) if byte == ord("\n")]
    # Each byte around the end of a line; within one, where the end is far, one of 29.
    near = {at + offset for at in ends for offset in range(-40, 41) if 0 <= at + offset <= len(content)}
    for length in sorted(near | set(range(0, len(content), 29)) | {len(content)}):
        (tmp_path / "run.jsonl").write_bytes(content[:length])
        whole = content[:length].count(b"\n")
        resumed = resume_run_directory(tmp_path)
        resumed.release()
        assert resumed.resumed == (HISTORY[whole - 1] if whole else None)


def test_a_verdict_does_not_write_the_samples_again(tmp_path: Path) -> None:
    before = len(journal_of(tmp_path, BEGUN, MEASURED))
    after = len(journal_of(tmp_path, *HISTORY))
    assert after - before < before / 4


def test_a_record_that_did_not_change_adds_nothing(tmp_path: Path) -> None:
    assert journal_of(tmp_path, BEGUN, BEGUN).count(b"\n") == 1


def test_everything_of_a_record_may_change(tmp_path: Path) -> None:
    described = msgspec.structs.replace(make_environment(), cpu_model="another processor")
    now = msgspec.structs.replace(
        BEGUN, environment=described, references=(make_run(MINI_BF16),), missing=("a: b",)
    )
    journal_of(tmp_path, BEGUN, now)
    assert read_record(tmp_path) == now


def test_comparisons_of_two_pairs_of_stacks_and_what_they_say_are_kept(tmp_path: Path) -> None:
    new_torch, alone = (
        Diagonal(candidate=Corner.NEW_TORCH, stable=stable, comparison=make_comparison())
        for stable in (Corner.NEW_TORCHAO, Corner.GOOD)
    )
    answer = Attribution(
        case=MINI_BF16.id,
        metric="denoise_step_ms",
        scheme="bf16",
        compile="eager",
        platform="cpu",
        blame=Blame.TORCH,
        sentence="it was torch",
        members=(MINI_BF16.id,),
        whole=Amount(value=1.5, low=1.0, high=2.0),
    )
    first = msgspec.structs.replace(BEGUN, diagonals=(new_torch,))
    both = msgspec.structs.replace(
        BEGUN,
        diagonals=(new_torch, alone),
        attributions=(answer,),
        evidence=(Evidence(id=MINI_BF16.id, script="repro/a.py"),),
        cells=tuple(make_cell(corner) for corner in (Corner.NEW_TORCH, Corner.GOOD)),
    )
    journal_of(tmp_path, BEGUN, first, msgspec.structs.replace(first, cells=both.cells[:1]), both)
    assert read_record(tmp_path) == both


def test_references_of_two_cards_are_two_entries(tmp_path: Path) -> None:
    here, there = make_run(MINI_BF16), make_run(MINI_BF16, reason="of another card")
    both = msgspec.structs.replace(BEGUN, references=(here, there))
    again = msgspec.structs.replace(BEGUN, references=(here, make_run(MINI_BF16, reason="again")))
    journal_of(tmp_path, BEGUN, both, again)
    assert read_record(tmp_path) == again


def test_a_record_without_a_run_that_it_had_is_written_anew(tmp_path: Path) -> None:
    assert journal_of(tmp_path, MEASURED, BEGUN).count(b"\n") == 1
    assert read_record(tmp_path) == BEGUN


def test_a_journal_is_read_before_the_run_json_of_an_earlier_session(tmp_path: Path) -> None:
    write_record(tmp_path / "run.json", BEGUN)
    content = journal_of(tmp_path, MEASURED)
    assert read_record(tmp_path) == read_record(tmp_path / "run.json") == MEASURED
    assert read_stored(tmp_path).content == content


def test_a_journal_without_a_whole_line_leaves_the_run_json_in_force(tmp_path: Path) -> None:
    write_record(tmp_path / "run.json", BEGUN)
    (tmp_path / "run.jsonl").write_bytes(b'{"format_version": 1')
    assert read_record(tmp_path) == BEGUN


@pytest.mark.parametrize("broken", [b"\x00\x00", b'{"cases": 1}', b'{"judged": []'])
def test_a_line_that_is_broken_before_the_end_is_refused(tmp_path: Path, broken: bytes) -> None:
    first, second, _ = journal_of(tmp_path, BEGUN, MEASURED).split(b"\n")
    (tmp_path / "run.jsonl").write_bytes(b"\n".join((first, broken, second, b"")))
    with pytest.raises(RecordError, match=r"run\.jsonl: a line before its end is broken"):
        read_record(tmp_path)


def test_a_killed_session_makes_room_for_the_next(tmp_path: Path) -> None:
    out = tmp_path / "latest"
    out.mkdir()
    journal_of(out, msgspec.structs.replace(BEGUN, created_at="2026-01-02T03:04:05+00:00"))
    prepare_run_directory(out).release()
    assert (tmp_path / "latest.20260102T030405Z" / "run.jsonl").exists()


def test_a_disk_that_fills_up_leaves_the_lines_before_and_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    journal.write(BEGUN)
    write = os.write

    def half(descriptor: int, content: bytes) -> int:
        if len(content) < 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content[: len(content) // 2])

    with monkeypatch.context() as full:
        full.setattr(os, "write", half)
        with pytest.raises(PerfError, match=r"cannot write .*run\.jsonl: No space left on device"):
            journal.write(MEASURED)
    assert read_record(tmp_path) == BEGUN
    assert (tmp_path / "run.jsonl").read_bytes().endswith(b"\n")
    journal.write(FILED)
    assert read_record(tmp_path) == FILED


def test_a_removed_journal_is_begun_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(BEGUN)
    journal.remove()
    journal.remove()
    assert not (tmp_path / "run.jsonl").exists()
    journal.write(MEASURED)
    assert read_record(tmp_path) == MEASURED


def test_a_run_measured_further_is_written_with_its_samples(tmp_path: Path) -> None:
    more: Run = msgspec.structs.replace(MEASURED.cases[1], looks=("1 process: more",))
    now = msgspec.structs.replace(MEASURED, cases=(MEASURED.cases[0], more))
    journal_of(tmp_path, MEASURED, now)
    assert read_record(tmp_path) == now
