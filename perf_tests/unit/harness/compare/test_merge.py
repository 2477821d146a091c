"""How records become one; the tests of the plugin join whole sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.compare import merge, merged_directory
from perf_tests.harness.compare.merge import PartialRun
from perf_tests.harness.records.evidence import Evidence
from perf_tests.harness.runs.plan import Plan, PlannedCase
from perf_tests.harness.runs.record import Comparison, Pair, Progress, Run, RunRecord, Schedule, Status
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.reports import Arrays, Capture, Recorded
from perf_tests.tables.platforms import H100, H200
from perf_tests.unit.builders import (
    FIDELITY,
    MINI_BF16,
    MINI_INT8WO,
    make_process,
    make_record,
    make_reference,
    make_run,
    make_verdict,
)

CAPTURE = Capture(array="captures/a.npy", sha256="a" * 64, image="captures/a.png")
PROCESS = make_process(
    log="logs/a.0.log",
    captures=(CAPTURE,),
    arrays=Arrays(file="captures/GPU-1/a.npz", sha256="a" * 64),
    recorded=Recorded(arrays=Arrays(file="captures/b.npz", sha256="b" * 64), picture=CAPTURE),
    fidelity=msgspec.structs.replace(FIDELITY, reference_arrays=("captures/r.npy",)),
)


def make_shard(number: int, run: Run, *, owed: tuple[str, ...] = ("build",), **changes: Any) -> PartialRun:
    """One of two shards of int8wo and bf16, with the `run` of one of them."""
    plan = Plan(
        cases=tuple(
            PlannedCase(id=case.id, digest=case.digest, owed=owed if case.id == run.id else None)
            for case in (MINI_BF16, MINI_INT8WO)
        ),
        noisy_metrics=0,
        commit="c" * 40,
        shard=(number, 2),
    )
    record = make_record(run, plan=plan, **changes)
    return merge.shard_of(Path(f"part{number}"), record, "d" * 64)


def joined(*shards: PartialRun) -> RunRecord:
    merge.check(shards)
    return merge.merged(shards)


def test_all_files_of_a_process_move_to_the_folder_of_its_part() -> None:
    runs = make_run(processes=(PROCESS,)), make_run(MINI_BF16)
    record = joined(make_shard(2, runs[1]), make_shard(1, runs[0]))
    assert [run.id for run in record.cases] == [MINI_BF16.id, MINI_INT8WO.id]
    (process,) = record.cases[1].processes
    assert process.log == "logs/part-1/a.0.log"
    assert process.captures == (
        Capture(array="captures/part-1/a.npy", sha256="a" * 64, image="captures/part-1/a.png"),
    )
    assert process.arrays is not None
    assert process.arrays.file == "captures/part-1/GPU-1/a.npz"
    assert process.recorded is not None
    assert process.recorded.arrays.file == "captures/part-1/b.npz"
    assert process.recorded.picture == process.captures[0]
    assert process.fidelity is not None
    assert process.fidelity.reference_arrays == ("captures/part-1/r.npy",)
    assert record.cases[0].processes[0].log == ""  # none was written


def test_comparisons_with_another_stack_move_along() -> None:
    comparison = Comparison(
        id=MINI_INT8WO.id,
        digest=MINI_INT8WO.digest,
        platform="cpu",
        pipeline="flux-mini",
        against="python",
        schedule=Schedule.RESIDENT,
        schedule_reason="both fit",
        status=Status.PASS,
        pairs=(Pair(stable=PROCESS, candidate=PROCESS),),
    )
    record = joined(make_shard(1, make_run(), comparisons=(comparison,)), make_shard(2, make_run(MINI_BF16)))
    (pair,) = record.comparisons[0].pairs
    assert (pair.stable.log, pair.candidate.log) == ("logs/part-1/a.0.log", "logs/part-1/a.0.log")


def test_what_explains_red_cases_moves_along() -> None:
    evidence = Evidence(
        id=MINI_BF16.id, script="repro/a.py", traces={"stable": "profiles/a.json.gz"}, snapshot=""
    )
    record = joined(make_shard(1, make_run()), make_shard(2, make_run(MINI_BF16), evidence=(evidence,)))
    (found,) = record.evidence
    assert (found.script, found.traces, found.snapshot) == (
        "repro/part-2/a.py",
        {"stable": "profiles/part-2/a.json.gz"},
        "",
    )


def test_references_of_all_parts_are_kept_apart() -> None:
    record = joined(
        make_shard(1, make_run(), references=(make_reference(),)),
        make_shard(2, make_run(MINI_BF16), references=()),
    )
    assert [(run.id, run.part) for run in record.references] == [(MINI_BF16.id, 1)]
    assert [(run.id, run.part) for run in record.cases] == [(MINI_BF16.id, 2), (MINI_INT8WO.id, 1)]


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"progress": Progress.MEASURED}, ["ssim"]),
        ({"progress": Progress.INTERRUPTED}, ["build", "ssim"]),
        ({"verdicts": (make_verdict("ssim", Status.REGRESSED),)}, []),
        ({"verdicts": (make_verdict("psnr_db", Status.PASS),)}, ["ssim"]),
        ({"status": Status.NOT_RUN, "processes": ()}, []),
    ],
)
def test_what_was_planned_and_has_neither_verdict_nor_status_is_missing(
    changes: dict[str, Any], missing: list[str]
) -> None:
    run = make_run(**changes)
    record = joined(make_shard(1, run, owed=("build", "ssim")), make_shard(2, make_run(MINI_BF16)))
    assert list(record.missing) == [f"{MINI_INT8WO.id}: {name}" for name in missing]


def test_a_case_that_two_sessions_took_is_refused_by_name() -> None:
    with pytest.raises(
        UsageError, match=r"part1 \(1/2\) and part2 \(2/2\) both took 1 case \(flux-mini-b1-int8wo"
    ):
        joined(make_shard(1, make_run()), make_shard(2, make_run()))


def test_parts_of_two_kinds_of_gpu_are_refused() -> None:
    with pytest.raises(UsageError, match=r"part1 \(1/2\) and part2 \(2/2\) were measured on h100 and h200: "):
        joined(make_shard(1, make_run(MINI_INT8WO, H100)), make_shard(2, make_run(MINI_BF16, H200)))


def test_parts_of_a_gpu_and_of_the_host_are_joined() -> None:
    record = joined(make_shard(1, make_run(MINI_INT8WO, H100)), make_shard(2, make_run(MINI_BF16)))
    assert [run.platform for run in record.cases] == ["cpu", "h100"]


def test_links_of_a_part_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("mine")
    shard = shard_in(tmp_path / "part")
    (tmp_path / "part" / "logs").mkdir(parents=True)
    (tmp_path / "part" / "logs" / "a.0.log").write_text("log")
    (tmp_path / "part" / "logs" / "link.log").symlink_to(secret)
    merged_directory.write(make_record(), [shard], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "logs" / "part-1").iterdir()] == ["a.0.log"]


def shard_in(path: Path) -> PartialRun:
    """The first shard, in a directory of its own."""
    return merge.shard_of(path, make_shard(1, make_run()).record, "d" * 64)
