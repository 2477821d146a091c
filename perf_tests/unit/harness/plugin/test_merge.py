"""tools/merge.py, seen from outside: sessions of shards on fake workers, joined."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.processes import checkout
from perf_tests.harness.rebaseline.candidates import reference_of
from perf_tests.harness.runs.record import Process, RunRecord, Status
from perf_tests.harness.runs.record_file import read_record, write_record
from perf_tests.unit.conftest import (
    BF16,
    INT8WO,
    ROOT,
    TESTS,
    Misbehave,
    Plug,
    Suite,
    rebaseline,
)
from perf_tests.unit.harness.plugin.sessions import BOTH, BUILD, THREE, killed_after

main: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "tools" / "merge.py"))["main"]
compare: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "tools" / "compare.py"))["main"]
FOUR = ("-m", "h100", "--perf-case=flux1-schnell-b1-bf16-*al", "--perf-case=flux1-schnell-b1-*wo-*")
"""Four cases of two families."""
JUDGED = (BUILD, *(str(ROOT / "perf_tests" / f"test_{group}.py") for group in ("latency", "fidelity")))


class Parts:
    """Shards of one selection, each measured into a directory of its own."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self.paths: list[Path] = []
        self.out = suite.folder / "merged"

    def measure(self, *arguments: str, count: int = 2, tests: tuple[str, ...] = JUDGED) -> list[int]:
        """The exit codes of `count` sessions."""
        return [
            self.measure_one(f"{number}/{count}", *arguments, tests=tests) for number in range(1, count + 1)
        ]

    def measure_one(self, shard: str, *arguments: str, tests: tuple[str, ...] = JUDGED) -> int:
        path = self._suite.folder / f"shard-{len(self.paths)}"
        result = self._suite.run(*arguments, f"--perf-shard={shard}", f"--perf-out={path}", tests=tests)
        self.paths.append(path)
        return int(result.ret)

    def merge(self, *paths: Path) -> int:
        arguments = [*map(str, paths or self.paths), "--out", str(self.out)]
        return main([*arguments, "--baselines", str(self._suite.baselines)])

    def commit(self, number: int) -> str:
        """By which a part says that it was measured."""
        plan = read_record(self.paths[number]).plan
        assert plan is not None
        assert plan.commit is not None
        return plan.commit

    def edit(self, number: int, **changes: object) -> None:
        """Change the record of a part as it is on the disk, or its plan."""
        record = read_record(self.paths[number])
        assert record.plan is not None
        fields = set(record.plan.__struct_fields__)
        of_plan = {name: value for name, value in changes.items() if name in fields - {"cases"}}
        rest = {name: value for name, value in changes.items() if name not in of_plan}
        plan = msgspec.structs.replace(record.plan, **of_plan)
        write_record(self.paths[number] / "run.json", msgspec.structs.replace(record, plan=plan, **rest))


@pytest.fixture
def parts(suite: Suite) -> Parts:
    return Parts(suite)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for shards that are measured once, of which each test edits copies."""
    return tmp_path_factory.mktemp("measured") / "parts"


@pytest.fixture
def two(parts: Parts, measured: Path) -> Parts:
    """Two green shards of two cases on the CPU."""
    if not measured.exists():
        assert parts.measure(*BOTH) == [0, 0]
        for path in parts.paths:
            shutil.copytree(path, measured / path.name)
    parts.paths = [parts.out.with_name(path.name) for path in sorted(measured.iterdir())]
    for path in parts.paths:
        shutil.copytree(measured / path.name, path, dirs_exist_ok=True)
    return parts


@pytest.fixture
def three(suite: Suite, parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Two green shards of three cases on the CPU; the run of all three is in the directory of `suite`."""
    kept = tmp_path_factory.getbasetemp() / "three"
    if not kept.exists():
        assert suite.run(*THREE).ret == pytest.ExitCode.OK
        assert parts.measure(*THREE, tests=TESTS) == [0, 0]
        for path in (suite.out, *parts.paths):
            shutil.copytree(path, kept / path.name)
    parts.paths = [suite.folder / path.name for path in sorted(kept.glob("shard-*"))]
    for path in (suite.out, *parts.paths):
        shutil.copytree(kept / path.name, path, dirs_exist_ok=True)
    return parts


def outcomes(record: RunRecord) -> dict[str, object]:
    """Case id -> its status and verdicts, without seconds, which differ between any two runs."""
    return {
        run.id: (run.status, {v.metric: (v.status, v.baseline, v.limit) for v in run.verdicts})
        for run in record.cases
    }


def files_of(process: Process) -> Iterator[str]:
    yield process.log
    yield from (capture.image for capture in process.captures)


# What is joined


def test_two_shards_merged_have_the_verdicts_of_one_session(suite: Suite, three: Parts) -> None:
    assert all(len(read_record(path).cases) < 3 for path in three.paths)
    assert three.merge() == 0
    whole, merged = suite.record(), read_record(three.out)
    assert outcomes(merged) == outcomes(whole)
    assert [run.id for run in merged.cases] == [run.id for run in whole.cases]
    assert merged.missing == ()
    assert merged.plan is not None
    assert whole.plan is not None
    assert merged.plan.noisy_metrics == whole.plan.noisy_metrics
    assert [part.shard for part in merged.plan.parts] == [(1, 2), (2, 2)]


def test_shards_that_measured_on_several_cards_are_merged(
    suite: Suite, parts: Parts, plug_gpus: Plug
) -> None:
    plug_gpus(2)
    suite.run(*FOUR, tests=JUDGED)
    parts.measure(*FOUR, "--perf-gpus=all")
    assert parts.merge() == 1  # without baselines
    merged = read_record(parts.out)
    assert outcomes(merged) == outcomes(suite.record())
    assert len(merged.cases) == 4
    assert {run.part for run in merged.cases} == {1, 2}


def test_files_that_a_merged_record_names_are_in_its_directory(two: Parts) -> None:
    two.merge()
    merged = read_record(two.out)
    processes = [process for run in (*merged.cases, *merged.references) for process in run.processes]
    named = [Path(name) for process in processes for name in files_of(process)]
    assert len(named) > 4
    assert not [name for name in named if name.is_absolute() or not (two.out / name).is_file()]
    assert {name.parts[1] for name in named} == {"part-1", "part-2"}
    for path in two.paths:
        shutil.rmtree(path)
    assert not [name for name in named if not (two.out / name).is_file()]


def test_a_merged_run_is_accepted_and_compared_like_any_other(
    suite: Suite, two: Parts, tmp_path: Path
) -> None:
    two.merge()
    store = tmp_path / "new"
    accept = [
        "apply",
        str(two.out),
        "--only",
        "*",
        "--reason",
        "merged",
        "--write",
        "--baselines",
        str(store),
    ]
    assert rebaseline(accept) == 0
    suite.baselines = store
    assert suite.run(*BOTH, tests=JUDGED).ret == pytest.ExitCode.OK
    assert compare([str(suite.out), str(two.out), "--baselines", str(store)]) == 0


def test_the_summary_of_a_merged_run_is_that_of_a_session(
    two: Parts, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page.md"))
    capsys.readouterr()
    two.merge()
    said = capsys.readouterr().out
    assert "2 cases: 2 green" in said
    assert f"raw samples: {two.out}/run.json" in said
    assert (tmp_path / "page.md").read_text().startswith("## Performance: 2 cases: 2 green")


# What is red


def test_a_red_verdict_in_one_part_is_red_and_explained(
    parts: Parts, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # paths are not cut off
    drill = f"--perf-inject=drop-quantization:1@{INT8WO}"
    assert sorted(parts.measure(*BOTH, drill)) == [0, 1]
    capsys.readouterr()
    assert parts.merge() == 1
    said = capsys.readouterr().out
    assert "2 cases: 1 green, 1 red for 1 cause" in said
    assert "ERROR(unproven)" in said
    (red,) = [run for run in read_record(parts.out).cases if run.id == INT8WO]
    assert str(parts.out / red.processes[0].log) in said


def test_a_part_that_was_killed_owes_what_it_did_not_say(
    two: Parts, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = read_record(two.paths[0]).cases[0]
    two.edit(0, cases=(), missing=())  # as a journal is before anything was measured
    assert two.merge() == 1
    missing = read_record(two.out).missing
    assert f"{victim.id}: build" in missing
    assert len(missing) > 3
    assert "planned, but no verdict was given" in capsys.readouterr().out


def test_a_part_that_was_killed_is_red_and_green_once_it_was_resumed(suite: Suite, three: Parts) -> None:
    whole = outcomes(suite.record())
    number = next(n for n in (0, 1) if len(outcomes(read_record(three.paths[n]))) == 2)
    path = three.paths[number]
    of_part = outcomes(read_record(path)).keys()
    part = (*THREE, f"--perf-shard={number + 1}/2", f"--perf-out={path}")
    shutil.rmtree(path)
    with killed_after(0, path):
        suite.run(*part)
    assert not (path / "run.json").exists()
    (lost,) = of_part - outcomes(read_record(path)).keys()
    assert three.merge() == 1
    assert f"{lost}: build" in read_record(three.out).missing
    shutil.rmtree(three.out)

    assert suite.run(*part, "--perf-resume").ret == pytest.ExitCode.OK
    assert three.merge() == 0
    assert outcomes(read_record(three.out)) == whole


def test_a_part_that_another_commit_resumed_is_refused(
    two: Parts, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    now = two.commit(0)
    two.edit(0, commit="b" * 40)
    for _ in range(2):  # once more by the same commit changes nothing
        arguments = ("--perf-shard=1/2", f"--perf-out={two.paths[0]}", "--perf-resume")
        assert suite.run(*BOTH, *arguments, tests=JUDGED).ret == pytest.ExitCode.OK
        assert two.commit(0) == f"{'b' * 40}, then {now}"

    said = refused(two, capsys)
    assert f"was measured by commit {'b' * 40}, then {now}, " in said
    assert "measure all parts in checkouts of one commit" in said


def test_a_case_that_was_measured_but_not_judged_owes_its_verdicts(two: Parts) -> None:
    run = read_record(two.paths[0]).cases[0]
    two.edit(0, cases=(msgspec.structs.replace(run, verdicts=(), status=Status.INCONCLUSIVE),))
    assert two.merge() == 1
    missing = read_record(two.out).missing
    assert f"{run.id}: distinct_outputs" in missing
    assert f"{run.id}: build" not in missing


def test_what_a_part_says_is_missing_stays_missing(two: Parts) -> None:
    two.edit(1, missing=("some-case: build",))
    assert two.merge() == 1
    assert read_record(two.out).missing == ("some-case: build",)


# What is refused


def refused(parts: Parts, capsys: pytest.CaptureFixture[str], *paths: Path) -> str:
    """The one sentence with which merging is refused; nothing is written."""
    before = set(parts.out.parent.iterdir())
    capsys.readouterr()
    assert parts.merge(*paths) == 2
    said = capsys.readouterr().err
    assert said.startswith("merge: ")
    assert len(said.splitlines()) == 1
    assert set(parts.out.parent.iterdir()) == before
    return said


def test_an_absent_part_is_refused(two: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(two, capsys, two.paths[0])
    assert "no part took 1 case (" in said
    assert "of 2 planned; 2/2 is missing: give the run of every part" in said


def test_a_part_given_twice_is_refused(two: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(two, capsys, two.paths[0], two.paths[1], two.paths[1])
    assert f"{two.paths[1]} (2/2) and {two.paths[1]} (2/2) both took 1 case (" in said


def test_a_whole_run_is_refused(suite: Suite, two: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    suite.run(*BOTH, tests=(BUILD,))
    said = refused(two, capsys, suite.out, two.paths[0])
    assert f"{suite.out} is a whole run, not a part of one: give the runs of --perf-shard=1/n to n/n" in said


def test_a_merged_run_is_refused(two: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    two.merge()
    merged, two.out = two.out, two.out.with_name("again")
    assert f"{merged} is merged already, not a part of one" in refused(two, capsys, merged)


def test_a_run_older_than_plans_is_refused(two: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    record = msgspec.structs.replace(read_record(two.paths[0]), plan=None)
    write_record(two.paths[0] / "run.json", record)
    assert f"{two.paths[0]} does not say what it was to measure" in refused(two, capsys)


def test_what_holds_no_run_is_refused(two: Parts, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "cannot read the run record" in refused(two, capsys, two.paths[0], tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"commit": "f" * 40}, "by ffffffffffffffffffffffffffffffffffffffff: measure all parts in checkouts"),
        ({"commit": None}, "(2/2) does not say which commit measured it: measure in a checkout"),
        ({"shard": (2, 3)}, "are not shards of one selection: give all parts of one i/n"),
        ({"noisy_metrics": 62}, "among 0 noisy metrics, "),
    ],
)
def test_parts_of_different_sessions_are_refused(
    two: Parts, capsys: pytest.CaptureFixture[str], changes: dict[str, object], says: str
) -> None:
    two.edit(1, **changes)
    assert says in refused(two, capsys)


def test_parts_outside_of_a_checkout_are_refused(
    parts: Parts, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "commit", lambda _root: None)
    parts.measure(*BOTH)
    assert "(1/2) does not say which commit measured it" in refused(parts, capsys)


def test_parts_of_different_stacks_are_refused(
    parts: Parts, suite: Suite, misbehave: Misbehave, capsys: pytest.CaptureFixture[str]
) -> None:
    parts.measure_one("1/2", *BOTH)
    marker = suite.folder / "torch was upgraded"
    marker.touch()
    misbehave(f"new-torch:{marker}")
    parts.measure_one("2/2", *BOTH)
    assert "torch 2.13.0 -> 2.14.0; measure all parts on one stack" in refused(parts, capsys)


def test_parts_of_different_selections_are_refused(parts: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    parts.measure_one("1/2", *BOTH)
    parts.measure_one("2/2", *THREE)
    said = refused(parts, capsys)
    assert "digests of planned cases differ: flux-mini-b1-bf16-regional absent -> " in said
    assert "measure all parts with the same -m, -k and --perf-case" in said


def test_a_case_that_changed_since_is_refused(two: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (0, 1):
        record = read_record(two.paths[number])
        assert record.plan is not None
        cases = [msgspec.structs.replace(each, digest="0" * 64) for each in record.plan.cases]
        plan = msgspec.structs.replace(record.plan, cases=tuple(cases))
        write_record(two.paths[number] / "run.json", msgspec.structs.replace(record, plan=plan))
    assert "which is another case in this checkout: merge with the one that measured it" in refused(
        two, capsys
    )


def test_a_part_that_holds_cases_of_another_is_refused(
    two: Parts, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = tuple(run for path in two.paths for run in read_record(path).cases)
    two.edit(0, cases=cases)
    said = refused(two, capsys)
    assert f"{two.paths[0]} (1/2) holds 1 case (" in said
    assert "that its last session did not select" in said


def test_a_directory_that_holds_anything_is_never_overwritten(
    two: Parts, capsys: pytest.CaptureFixture[str]
) -> None:
    two.out.mkdir()
    (two.out / "notes.txt").write_text("mine")
    assert f"--out {two.out} is there already" in refused(two, capsys)
    assert (two.out / "notes.txt").read_text() == "mine"


def test_a_disk_that_refuses_leaves_no_half_of_a_directory(
    two: Parts, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_settings: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    said = refused(two, capsys)
    assert f"cannot write {two.out}: No space left on device; the parts are as they were" in said


# What a record keeps of the selection


def test_a_record_says_what_was_selected_and_what_it_owes(suite: Suite) -> None:
    suite.run(*BOTH, "--perf-shard=1/2", tests=(BUILD,))
    plan = suite.record().plan
    assert plan is not None
    assert {planned.id for planned in plan.cases} == {BF16, INT8WO}
    assert sorted(str(planned.owed) for planned in plan.cases) == ["('build',)", "None"]
    assert plan.shard == (1, 2)
    assert plan.commit is not None
    assert len(plan.commit.partition("+")[0]) == 40


def test_a_case_is_compared_with_the_reference_of_its_own_part(two: Parts) -> None:
    two.merge()
    record = read_record(two.out)
    case = next(run for run in record.cases if run.id == INT8WO)
    both = [run for run in (*record.cases, *record.references) if run.id == BF16]
    assert {run.part for run in both} == {1, 2}  # selected in one, and measured for this case in the other
    reference = reference_of(case, record)
    assert reference is not None
    assert reference.part == case.part


def test_baselines_that_are_not_there_are_asked_for(
    two: Parts, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.baselines = suite.folder / "none"
    assert refused(two, capsys) == (
        f"merge: --baselines {suite.baselines}: there is no such folder; give the one that the parts were "
        "judged by\n"
    )


def test_baselines_that_cannot_be_read_are_refused(
    two: Parts, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.baselines = suite.folder / "broken"
    path = files.path_of(suite.baselines, "cpu", "flux-mini", BF16)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert path.name in refused(two, capsys)
