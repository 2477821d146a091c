"""tools/bisect.py over a generated repository: steps, skips, a commit that does not build, a spent budget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from perf_tests.harness.bisecting import running
from perf_tests.harness.bisecting.cli import main
from perf_tests.harness.bisecting.search import BisectQuestion, brackets
from perf_tests.harness.bisecting.state import resume
from perf_tests.unit.conftest import ROOT

PROBE = """printf '{"value": %s}\\n' "$(cat level)" """
BUILD = "test ! -e broken || { echo 'error: unknown type name' >&2; exit 1; }"


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    command = ("git", "-C", str(folder), *settings, *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


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
    points = json.loads(state.read_text())["points"]
    assert runs == len(points)  # one measurement a run
    assert "run it again to go on" in capsys.readouterr().out


def test_ends_that_are_alike_are_an_answer(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, commits = clone
    fails = """printf '{"value": 1}\\n'"""
    assert bisect(clone, tmp_path / "b.json", "--bad-value=1", probe=fails) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"no good end: {commits[0]} is 1"


@pytest.mark.parametrize(
    ("probe", "why"),
    [
        ("exit 125", "it said nothing"),
        ("echo no GPU >&2; exit 7", "exit code 7: no GPU"),
        ("echo hello", "its probe printed no value last: JSON is malformed"),
    ],
)
def test_a_good_end_that_cannot_be_measured_is_an_answer(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], probe: str, why: str
) -> None:
    assert bisect(clone, tmp_path / "b.json", probe=probe) == 0
    assert f"no good end: {clone[1][0]} cannot be measured: {why}" in capsys.readouterr().out


def test_a_state_of_another_search_is_refused(
    clone: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "b.json"
    assert bisect(clone, state) == 0
    assert bisect(clone, state, probe=f"{PROBE}; true") == 2
    assert "holds another search" in capsys.readouterr().err


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
    with pytest.raises(SystemExit, match="2"):
        bisect(clone, state, f"--compare-url={url}")
    assert "use no fields but {before} and {after}" in capsys.readouterr().err
    assert not state.exists()


def test_releases_without_uv_are_skipped_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    state = tmp_path / "b.json"
    assert main(["releases", "torchao", "--versions=0.17,0.18", "--probe=true", f"--state={state}"]) == 0
    assert "no good end: 0.17 cannot be measured: uv is not installed" in capsys.readouterr().out
    assert main(["releases", "torchao", "--versions=0.17,0.17", "--probe=true", f"--state={state}"]) == 2
    assert "give two or more different ones" in capsys.readouterr().err


def test_candidates_are_prepared_while_another_is_measured(tmp_path: Path) -> None:
    prepared: list[str] = []
    measured_with: dict[str, list[str]] = {}

    class Ahead:
        def prepare(self, item: str) -> None:
            prepared.append(item)

        def measure(self, item: str) -> tuple[float, float]:
            measured_with[item] = list(prepared)
            return float(int(item) >= 5), 0.0

        def discard(self, item: str) -> None:
            prepared.remove(item)

    question = BisectQuestion(items=tuple(map(str, range(9))), probe="")
    path = tmp_path / "b.json"
    bisection = running.Bisection(candidates=Ahead(), path=path, budget_s=60.0, say=lambda _: None)
    found = bisection.run(resume(path, question))
    (step,) = brackets(question, found.points)
    assert (step.before, step.after) == ("4", "5")
    assert prepared == []
    assert resume(path, question) == found
