"""tools/bisect.py over releases and nights, which a stand-in for uv installs."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
from packaging.tags import sys_tags

from perf_tests.harness.bisecting.cli import main

UV = f"""#!{sys.executable}
import hashlib, json, os, pathlib, sys
folder = pathlib.Path(__file__).parent
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if "PYTHONPATH" in os.environ:
    sys.exit("inherited")
if sys.argv[1] == "venv":
    made = pathlib.Path(sys.argv[-2])
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "python").symlink_to(sys.executable)
    sys.exit()
made = pathlib.Path(sys.argv[sys.argv.index("--python") + 1]).parents[1]
if sys.argv[2] == "install":
    wanted = next(each for each in sys.argv if "==" in each or " @ " in each)
    version = wanted.split("==")[-1] if "==" in wanted else wanted.split("torch-")[1].split("-")[0]
    version = version.replace("%2B", "+")
    if version.startswith("0.12"):
        sys.exit("error: no solution found\\nbecause torchao 0.12 is broken\\nwe conclude nothing")
    (made / "version").write_text(version)
    module = made / "lib" / "python3.11" / "site-packages" / "torch"
    module.mkdir(parents=True)
    commit = hashlib.sha1(version.encode()).hexdigest()
    (module / "version.py").write_text(f"git_version: str = '{{commit}}'")
    (made / "package").write_text(wanted.split("=")[0].split(" ")[0])
else:
    version = (made / "version").read_text()
    says = (folder / "says").read_text().strip() if (folder / "says").exists() else version
    numpy = "2.4.0" if version[:4] == "0.13" else "2.3.0"
    packages = {{(made / "package").read_text(): says, "numpy": numpy}}
    print(json.dumps([{{"name": name, "version": each}} for name, each in packages.items()]))
"""
LEVEL = 'test -x "$PYTHON" && case $VERSION in 0.9*|0.10*|0.11*) echo 0;; *) echo 1;; esac'
VERSIONS = "0.9.0,0.10.0,0.11.0,0.12.0,0.13.0,0.14.1"


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a stand-in for uv, which notes how it is called."""
    folder = tmp_path / "uv"
    folder.mkdir()
    (folder / "uv").write_text(UV)
    (folder / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.chdir(tmp_path)
    return folder


def calls(uv: Path) -> list[list[str]]:
    return [json.loads(line) for line in (uv / "calls").read_text().splitlines()]


def releases(*more: str, versions: str = VERSIONS, probe: str = LEVEL) -> int:
    return main(["releases", "torchao", f"--versions={versions}", f"--probe={probe}", *more])


def test_a_release_that_does_not_install_is_skipped_by_name_and_the_bracket_found(
    uv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert releases("--compare-url=https://x.org/v{before}...v{after}") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == (
        "0.11.0 -> 0.13.0: +1; skipped between them: 0.12.0; "
        "also different, pin it with --pins: numpy 2.3.0 -> 2.4.0 https://x.org/v0.11.0...v0.13.0"
    )
    why = "error: no solution found / because torchao 0.12 is broken / we conclude nothing"
    assert f"0.12.0: skipped: exit code 1: {why}" in said
    assert list((tmp_path / "bisect.environments").iterdir()) == []


def test_uv_gets_the_pins_and_further_arguments_and_the_interpreter_of_the_suite(
    uv: Path, tmp_path: Path
) -> None:
    (tmp_path / "pins.txt").write_text("numpy\n")
    assert releases("--pins=pins.txt", "--", "--index", "https://x.org", versions="0.9.0,0.13.0") == 0
    made, installed, listed = calls(uv)[:3]
    environment = tmp_path / "bisect.environments" / "0.9.0"
    assert made == ["venv", "--python", sys.executable, str(environment), "--quiet"]
    into = ["--python", str(environment / "bin" / "python")]
    pins = ["-r", str(tmp_path / "pins.txt")]
    further = ["--index", "https://x.org", "--quiet"]
    assert installed == ["pip", "install", *into, *pins, "torchao==0.9.0", *further]
    assert listed == ["pip", "list", *into, "--format", "json", "--quiet"]


def test_another_version_than_was_asked_for_is_no_level(uv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (uv / "says").write_text("0.9.1")
    assert releases() == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "no good end: 0.9.0 cannot be measured: torchao 0.9.0 was asked for, and 0.9.1 is installed"
    )


def test_other_pins_are_another_search(uv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("torch==2.13.0\n")
    assert releases(f"--pins={pins}") == 0
    pins.write_text("torch==2.14.1\n")
    assert releases(f"--pins={pins}") == 2
    assert "instead of 'pins torch==2.14.1\\n'" in capsys.readouterr().err


def test_a_password_in_an_address_is_kept_nowhere(uv: Path, tmp_path: Path) -> None:
    address = "https://user:secret@x.org/simple"
    assert releases("--", "--index", address, versions="0.9.0,0.13.0") == 0
    stored = (tmp_path / "bisect.json").read_text()
    assert "secret" not in stored
    assert "--index https://x.org/simple" in stored


def test_an_environment_that_a_killed_search_left_behind_is_made_anew(uv: Path, tmp_path: Path) -> None:
    left = tmp_path / "bisect.environments" / "0.9.0" / "bin"
    left.mkdir(parents=True)
    (left / "python").write_text("half")
    assert releases(versions="0.9.0,0.13.0") == 0
    assert ["venv", "--python", sys.executable, str(left.parent), "--quiet"] in calls(uv)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--versions=0.17,0.17"], "give two or more different ones"),
        (["--versions=0.17"], "give two or more different ones"),
        (["--versions=0.17,../.."], "'../..' is no version"),
        (["--versions=/,0.18"], "'/' is no version"),
        (["--versions=0.17,0.18", "--state=nowhere/b.json"], "cannot be kept in"),
        (["--versions=0.17,0.18", "--good=0.17"], "leave out --index, --good and --bad"),
        ([], "give --versions or --index, and with it both ends"),
        (["--index=nothing", "--good=0.17"], "the page nothing cannot be read"),
        (["--versions=0.17,0.18", "--pins=nothing"], "nothing: "),
        (["--versions=0.17,0.18", "--metric=latency_s"], "--metric is that of a --case"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(
    uv: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    assert main(["releases", "torchao", "--probe=true", *arguments]) == 2
    assert why in capsys.readouterr().err
    assert not Path("bisect.json").exists()


def test_without_uv_nothing_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    assert releases() == 2
    assert "uv makes the environments, and is not on PATH" in capsys.readouterr().err


def test_releases_are_taken_from_a_page(uv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"torchao-{each}-py3-none-any.whl" for each in (*VERSIONS.split(","), "0.13.0.dev20250101")]
    (tmp_path / "page").write_text("".join(f'<a href="{name}">x</a>' for name in names))
    ends = ("--index=page", "--good=0.10.0", "--bad=0.13.0")
    assert main(["releases", "torchao", *ends, f"--probe={LEVEL}"]) == 0
    assert "0.11.0 -> 0.13.0: +1; skipped between them: 0.12.0" in capsys.readouterr().out
    assert not any(" @ " in argument for call in calls(uv) for argument in call)


def test_nights_are_installed_by_the_address_of_their_wheel_and_linked_by_commit(
    uv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tag = next(iter(sys_tags()))
    days = (17, 18, 20, 21, 23)
    names = [f"torch-2.16.0.dev202611{day}%2Bcu130-{tag}.whl" for day in days]
    (tmp_path / "page").write_text("".join(f'<a href="{name}">x</a>' for name in names))
    probe = "case $VERSION in *1[78]+*) echo 1.0;; *) echo 1.5;; esac"
    command = ["nights", "torch", "--index=page", "--good=2026-11-17", "--bad=2026-11-23"]
    url = "--compare-url=https://x.org/{before_commit}...{after_commit}"
    assert main([*command, f"--probe={probe}", url]) == 0
    commits = [
        hashlib.sha1(f"2.16.0.dev202611{day}+cu130".encode(), usedforsecurity=False).hexdigest()
        for day in (18, 20)
    ]
    assert capsys.readouterr().out.splitlines()[-1] == (
        "2.16.0.dev20261118+cu130 -> 2.16.0.dev20261120+cu130: +0.5 "
        f"https://x.org/{commits[0]}...{commits[1]}"
    )
    wanted = {argument for call in calls(uv) for argument in call if " @ " in argument}
    assert f"torch @ {tmp_path.as_uri()}/{names[0]}" in wanted
