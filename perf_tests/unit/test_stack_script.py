"""`.ci/stack` with stand-ins for uv and git: what it would install, and what it refuses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from perf_tests.unit.git import git

SCRIPT = Path(__file__).parents[2] / ".ci" / "stack"
INDEX = "https://index.example/cu130"
UV = """#!/bin/sh
echo "uv $*" >> "$CALLS"
case "$1 $2" in
    "venv "*) mkdir -p "$PERF_HOME/env" ;;
    "pip show") echo "Name: $5"; echo "Version: $(cat "$CALLS.$5")" ;;
    "pip compile") echo "$(cat)==2.16.0.dev20261128+cu130" ;;
    "pip freeze") echo "torch==$(cat "$CALLS.torch")"; echo "pillow==13.0.0" ;;
esac
"""
LOGGED = """#!/bin/sh
echo "${0##*/} $*" >> "$CALLS"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    tools = tmp_path / "home" / "tools" / "bin"
    tools.mkdir(parents=True)
    for path, text in ((tools / "uv", UV), (tools / "python", LOGGED), (tmp_path / "git", LOGGED)):
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "calls.torch").write_text("2.16.0.dev20261127+cu130")
    (tmp_path / "calls.torchao").write_text("0.19.0+git0123456")
    return tmp_path


def run(home: Path, *arguments: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """The finished script, and the commands that it ran."""
    calls = home / "calls"
    environment = {
        "PATH": f"{home}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "PERF_HOME": str(home / "home"),
        "TORCH_INDEX": INDEX,
        **variables,
    }
    done = subprocess.run((SCRIPT, *arguments), env=environment, capture_output=True, text=True, check=False)
    return done, calls.read_text() if calls.exists() else ""


def environment_of(home: Path) -> str:
    return str(home / "home" / "env")


def test_recorded_stack_is_what_the_constraints_of_the_platform_pin(home: Path) -> None:
    done, calls = run(home, "recorded", environment_of(home), "h100")

    assert done.returncode == 0, done.stderr
    assert f"--index-url {INDEX} torch==2.11.0\n" in calls
    assert "--constraints requirements/h100.txt --editable .\n" in calls
    assert "git " not in calls


def test_nightly_holds_what_is_under_test_and_pins_the_rest_as_recorded(home: Path) -> None:
    done, calls = run(home, "nightly", environment_of(home), "h100", TORCHAO_REF="0123456")

    assert done.returncode == 0, done.stderr
    held = (home / "home" / "env" / "held.txt").read_text()
    assert held == "torch==2.16.0.dev20261127+cu130\ntorchao==0.19.0+git0123456\n"
    constraints = (home / "home" / "env" / "constraints.txt").read_text().splitlines()
    assert "numpy==2.5.2" in constraints
    assert not [line for line in constraints if line.startswith(("torch==", "torchao=="))]
    assert "fetch --quiet origin 0123456\n" in calls
    assert f"--no-build-isolation --no-deps {home}/home/torchao-env\n" in calls


def test_nightly_takes_the_torch_that_is_named_and_else_the_newest(home: Path) -> None:
    _, newest = run(home, "nightly", environment_of(home), "h100")
    assert f"--index-url {INDEX} torch setuptools wheel\n" in newest
    _, named = run(home, "nightly", environment_of(home), "h100", TORCH_VERSION="2.16.0.dev20261127+cu130")
    assert f"--index-url {INDEX} torch==2.16.0.dev20261127+cu130 setuptools wheel\n" in named


@pytest.fixture
def torchao(home: Path) -> tuple[str, str]:
    """A repository in the place of torchao's, for the real git: commits of tag v0.19.0 and branch main."""
    (home / "git").unlink()
    repository = home / "ao"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    git(repository, "commit", "--quiet", "--allow-empty", "--message=released")
    git(repository, "tag", "--annotate", "--message=0.19.0", "v0.19.0")
    git(repository, "branch", "release/main")
    git(repository, "commit", "--quiet", "--allow-empty", "--message=newer")
    return git(repository, "rev-parse", "v0.19.0^{commit}"), git(repository, "rev-parse", "main")


def versions(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The finished script, asked for the versions of a night."""
    instead = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{home}/ao.insteadOf"}
    theirs = {"GIT_CONFIG_VALUE_0": "https://github.com/pytorch/ao"}
    done, _ = run(home, "versions", **instead, **theirs, **variables)
    return done


def test_versions_are_those_of_now_as_variables_of_a_later_nightly(
    home: Path, torchao: tuple[str, str]
) -> None:
    released, newest = torchao
    torch = "TORCH_VERSION=2.16.0.dev20261128+cu130"

    assert versions(home).stdout.split("\n") == [torch, f"TORCHAO_REF={newest}", "DIFFUSERS_REF=", ""]
    assert f"TORCHAO_REF={released}\n" in versions(home, TORCHAO_REF="v0.19.0").stdout
    assert f"TORCHAO_REF={released}\n" in versions(home, TORCHAO_REF=released).stdout
    assert "TORCH_VERSION=2.15.0\n" in versions(home, TORCH_VERSION="2.15.0").stdout


@pytest.mark.usefixtures("torchao")
def test_what_names_no_commit_is_no_version(home: Path) -> None:
    done = versions(home, TORCHAO_REF="mian")

    assert (done.returncode, done.stdout) == (1, "")
    assert "https://github.com/pytorch/ao has no branch and no tag mian: name one, or give the full hash" in (
        done.stderr
    )


@pytest.mark.parametrize("kind", ["recorded", "nightly"])
def test_all_that_is_installed_has_its_bytecode(home: Path, kind: str) -> None:
    _, calls = run(home, kind, environment_of(home), "h100")

    installs = [line for line in calls.splitlines() if line.startswith("uv pip install")]
    assert len(installs) == {"recorded": 2, "nightly": 3}[kind]
    assert all("--compile-bytecode" in line for line in installs)


def test_nightly_takes_diffusers_by_commit_only_where_one_is_named(home: Path) -> None:
    (home / "calls.diffusers").write_text("0.43.0.dev0")

    _, pinned = run(home, "nightly", environment_of(home), "h100")
    assert "diffusers @ git+" not in pinned
    _, named = run(home, "nightly", environment_of(home), "h100", DIFFUSERS_REF="main")
    assert "--no-deps diffusers @ git+https://github.com/huggingface/diffusers@main\n" in named
    assert "diffusers==0.43.0.dev0\n" in (home / "home" / "env" / "held.txt").read_text()


def test_a_stable_torch_is_no_nightly(home: Path) -> None:
    (home / "calls.torch").write_text("2.13.0")

    done, _ = run(home, "nightly", environment_of(home), "h100")

    assert done.returncode == 1
    assert f"torch is 2.13.0, not a nightly: is {INDEX} the index of nightlies?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "says"),
    [
        (("recorded",), {}, 2, ".ci/stack recorded VENV PLATFORM"),
        (("weekly", "env", "h100"), {}, 2, ".ci/stack recorded VENV PLATFORM"),
        (("versions", "env", "h100"), {}, 2, ".ci/stack versions "),
        (
            ("recorded", "env", "b200"),
            {},
            2,
            "There is no requirements/b200.txt: nothing is recorded on b200",
        ),
        (("recorded", "env", "h100"), {"TORCH_INDEX": ""}, 1, "TORCH_INDEX: set it to the package index"),
        (("recorded", "env", "h100"), {"PERF_HOME": ""}, 1, "PERF_HOME: set it to a folder that is kept"),
    ],
    ids=["few", "kind", "many", "platform", "index", "home"],
)
def test_what_cannot_be_installed_is_refused_before_anything_is(
    home: Path, arguments: tuple[str, ...], variables: dict[str, str], code: int, says: str
) -> None:
    done, calls = run(home, *arguments, **variables)

    assert (done.returncode, calls) == (code, "")
    assert says in done.stderr
