"""tools/bisect.py over a generated repository: steps, skips, a commit that does not build, a spent budget."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from perf_tests.harness.bisecting.cli import main
from perf_tests.harness.bisecting.state import held
from perf_tests.harness.bisecting.versions import Commits
from perf_tests.unit.conftest import ROOT
from perf_tests.unit.git import git
from perf_tests.unit.gone import is_gone_within_5_s

PROBE = """printf '{"value": %s}\\n' "$(cat level)" """
BUILD = "test ! -e broken || { echo 'error: unknown type name' >&2; exit 1; }"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Twelve commits: the level rises at the fourth and the tenth; the eighth and ninth do not build."""
    folder = tmp_path_factory.mktemp("clone")
    git(folder, "init", "-q")
    commits = []
    for number in range(12):
        (folder / "level").write_text(str(1 + (number >= 4) + (number >= 10)))
        (folder / "number").write_text(str(number))
        (folder / "broken").unlink(missing_ok=True)
        if number in (8, 9):
            (folder / "broken").touch()
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", f"commit {number}")
        commits.append(git(folder, "rev-parse", "HEAD"))
    return folder, commits


def bisect(clone: tuple[Path, list[str]], state: Path, *more: str, probe: str = PROBE) -> int:
    folder, commits = clone
    ends = (f"--good={commits[0]}", f"--bad={commits[-1]}")
    return main(
        ["commits", str(folder), *ends, f"--probe={probe}", f"--build={BUILD}", f"--state={state}", *more]
    )


@pytest.mark.parametrize("tool", ["bisect", "rebaseline"])
def test_a_tool_of_its_name_does_not_hide_a_module_of_the_standard_library(tool: str) -> None:
    # `random` and `statistics` import `bisect`, which every tool finds in its own folder first.
    shadows = {each.stem for each in (ROOT / "tools").glob("*.py")} & sys.stdlib_module_names
    asked = subprocess.run(
        (sys.executable, f"tools/{tool}.py", "--help"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (shadows, asked.returncode, asked.stderr) == ({"bisect"}, 0, "")
    assert asked.stdout.startswith(f"usage: {tool}.py [-h]")


def test_two_steps_are_found_around_commits_that_do_not_build(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commits = clone
    assert bisect(clone, tmp_path / "b.json", "--compare-url=https://x.org/{before}...{after}") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == [
        f"{commits[3]} -> {commits[4]}: +1 https://x.org/{commits[3]}...{commits[4]}",
        f"{commits[7]} -> {commits[10]}: +1; skipped between them: {commits[8]}, {commits[9]} "
        f"https://x.org/{commits[7]}...{commits[10]}",
    ]
    assert f"{commits[8]}: skipped: exit code 1: error: unknown type name" in said
    assert git(folder, "worktree", "list").splitlines() == [git(folder, "worktree", "list").splitlines()[0]]


def test_a_search_goes_on_where_its_budget_ended(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "b.json"
    runs = 1
    while (code := bisect(clone, state, "--budget-min=0.0000001")) == 1:
        runs += 1
        assert runs < 20
    assert code == 0
    points = json.loads(state.read_text())["points"].values()
    # One measurement a run; what does not build costs no time of the GPU.
    assert runs == sum(point["value"] is not None for point in points)
    assert "run it again to go on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (("--bad-value=1",), "no good end: {good} is 1"),
        (("--bad-value=0",), "does not reproduce: {bad} is 1, {good} is 1"),
        (
            (),
            "the ends do not differ: {bad} is 1, {good} is 1; "
            "--bad-value says which of them is not as expected",
        ),
    ],
)
def test_ends_that_are_alike_are_an_answer(
    clone: tuple[Path, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    known: tuple[str, ...],
    said: str,
) -> None:
    _, commits = clone
    fails = """printf '{"value": 1}\\n'"""
    assert bisect(clone, tmp_path / "b.json", *known, probe=fails) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == said.format(good=commits[0], bad=commits[-1])


@pytest.mark.parametrize(
    ("probe", "why"),
    [
        ("exit 125", "it said nothing"),
        ("echo no GPU >&2; exit 7", "exit code 7: no GPU"),
        ("echo no >&2; echo GPU >&2; kill $$", "exit code -15: no / GPU"),
        ("echo '  line 1' >&2; echo 'ImportError: no GPU' >&2; exit 1", ": exit code 1: ImportError: no GPU"),
        ("echo hello", "the last line of a probe is a number, or JSON such as {\"value\": 1.5}, not 'hello'"),
        ("echo nan", "not 'nan'"),
        ("echo 1e999", "not '1e999'"),
        ("echo '{}'", "not '{}'"),
        ("""echo '{"value": 1, "half": -1}'""", "with no negative half"),
        ("true", "not ''"),
    ],
)
def test_a_good_end_that_cannot_be_measured_is_an_answer(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], probe: str, why: str
) -> None:
    assert bisect(clone, tmp_path / "b.json", probe=probe) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"no good end: {clone[1][0]} cannot be measured: ")
    assert why in said


def test_a_state_of_another_search_is_refused(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "b.json"
    assert bisect(clone, state) == 0
    assert bisect(clone, state, probe=f"{PROBE}; true") == 2
    assert "holds another search, whose probe is" in capsys.readouterr().err
    assert bisect(clone, state, "--build=true") == 2
    assert "instead of 'build true': give another --state" in capsys.readouterr().err


def test_commits_in_the_wrong_order_are_refused(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commits = clone
    ends = (f"--good={commits[5]}", f"--bad={commits[2]}")
    assert main(["commits", str(folder), *ends, "--probe=true", f"--state={tmp_path / 'b.json'}"]) == 2
    assert "does not come after" in capsys.readouterr().err


def test_a_good_end_beside_the_line_of_the_bad_one_is_refused(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commits = clone
    beside = git(folder, "commit-tree", f"{commits[5]}^{{tree}}", "-p", commits[5], "-m", "on another branch")
    ends = (f"--good={beside}", f"--bad={commits[-1]}")
    assert main(["commits", str(folder), *ends, "--probe=true", f"--state={tmp_path / 'b.json'}"]) == 2
    assert f"{beside} is not on the first-parent line of {commits[-1]}" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["https://forge.example/{base}...{head}", "https://forge.example/{before"])
def test_an_address_that_cannot_be_filled_in_is_refused_before_anything_is_measured(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    state = tmp_path / "b.json"
    assert bisect(clone, state, f"--compare-url={url}") == 2
    assert (
        "use no fields but {before}, {after}, {before_commit} and {after_commit}" in capsys.readouterr().err
    )
    assert not state.exists()


def test_a_search_that_is_stopped_by_hand_keeps_what_it_has(
    clone: tuple[Path, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, commits = clone
    measure, calls = Commits.measure, list[str]()

    def stopped(self: Commits, item: str) -> tuple[float, float]:
        calls.append(item)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(self, item)

    monkeypatch.setattr(Commits, "measure", stopped)
    state = tmp_path / "b.json"
    assert bisect(clone, state) == 1
    assert "stopped; what was measured is in" in capsys.readouterr().out
    assert json.loads(state.read_text())["points"].keys() == {commits[0], commits[-1]}
    assert len(git(folder, "worktree", "list").splitlines()) == 1
    assert bisect(clone, state) == 0


@pytest.mark.parametrize("time", range(3))
def test_a_search_that_is_terminated_ends_its_probe(
    clone: tuple[Path, list[str]], tmp_path: Path, time: int
) -> None:
    """At once, while it still starts that one; not every time at the same moment."""
    probe = f"echo $$ > {tmp_path}/pid; kill -TERM {os.getpid()}; sleep 60; touch {tmp_path}/slept"
    assert bisect(clone, tmp_path / "b.json", probe=probe) == 1
    assert not (tmp_path / "slept").exists()
    assert is_gone_within_5_s(int((tmp_path / "pid").read_text()))


def test_two_searches_do_not_share_a_state(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(tmp_path / "b.json"):
        assert bisect(clone, tmp_path / "b.json") == 2
    assert "another process searches already: give another --state" in capsys.readouterr().err


def test_a_tree_that_a_killed_search_left_behind_is_made_anew(
    clone: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, commits = clone
    tree = tmp_path / "b.trees" / commits[0]
    git(folder, "worktree", "add", "--detach", str(tree), commits[0])
    (tree / "level").write_text("77")
    stray = tmp_path / "b.trees" / commits[-1]
    stray.mkdir()
    (stray / "level").write_text("77")
    assert bisect(clone, tmp_path / "b.json") == 0
    points = json.loads((tmp_path / "b.json").read_text())["points"]
    assert (points[commits[0]]["value"], points[commits[-1]]["value"]) == (1.0, 3.0)


def test_other_ends_and_steps_go_on_from_what_is_known(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commits = clone
    state = tmp_path / "b.json"
    assert bisect(clone, state) == 0
    known = json.loads(state.read_text())["points"].keys()
    ends = (f"--good={commits[2]}", f"--bad={commits[5]}", "--step=0.5")
    command = ["commits", str(folder), *ends, f"--probe={PROBE}", f"--build={BUILD}", f"--state={state}"]
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"{commits[3]} -> {commits[4]}: +1"
    measured = {line.partition(":")[0] for line in said[:-1]}
    assert measured.isdisjoint(known)


def test_what_was_skipped_is_tried_again_only_when_asked(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, ready = tmp_path / "b.json", tmp_path / "ready"
    probe = f"test -e {ready} && {PROBE}"
    assert bisect(clone, state, probe=probe) == 0
    ready.touch()
    assert bisect(clone, state, probe=probe) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("no good end")
    assert bisect(clone, state, "--retry-skipped", probe=probe) == 0
    assert "+1" in capsys.readouterr().out.splitlines()[-1]


def test_steps_of_a_search_that_goes_on_are_said_so(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, commits = clone
    state = tmp_path / "b.json"
    for _ in range(2):
        assert bisect(clone, state, "--budget-min=0.0000001") == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"so far: {commits[0]} -> {commits[11]}: +2; not tried between them: 10"
    )


def test_arguments_for_uv_have_no_place_with_commits(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisect(clone, tmp_path / "b.json", "--", "--index=x") == 2
    assert "-- --index=x: nothing is installed by uv here" in capsys.readouterr().err


def test_a_budget_of_nothing_measures_nothing(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisect(clone, tmp_path / "b.json", "--budget-min=0") == 1
    assert capsys.readouterr().out.strip() == "the budget of 0 s is spent: run it again to go on"


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("--budget-min=nan", "nan is no finite number"),
        ("--step=-1", "-1 is less than 0"),
        ("--bad-value=inf", "inf is no finite number"),
        ("--max-skips=0", "0 is less than 1"),
        ("--case=a", "not allowed with argument --probe"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, why: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        bisect(clone, tmp_path / "b.json", option)
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"value": 1.0', '"value": null', "neither a value nor a reason"),
        ('"half": 0.0', '"half": -1.0', "negative half"),
        ('"value": 1.0', '"value": 1e999', "cannot be read"),
        ('"format_version": 2', '"format_version": 1', "has format 1"),
        ('"points": {', '"points": [', "cannot be read"),
    ],
)
def test_a_file_that_was_edited_is_refused(
    clone: tuple[Path, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    why: str,
) -> None:
    state = tmp_path / "b.json"
    assert bisect(clone, state, "--budget-min=0.0000001") == 1
    content = state.read_text()
    assert old in content
    state.write_text(content.replace(old, new, 1))
    assert bisect(clone, state) == 2
    assert why in capsys.readouterr().err
