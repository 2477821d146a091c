"""The step of the nightly workflow that restores earlier nights, with artifacts that are made up."""

from __future__ import annotations

import io
import os
import re
import subprocess
import textwrap
import zipfile
from pathlib import Path

import pytest

from perf_tests.unit.conftest import ROOT

GH = """#!/bin/sh
case "$2" in
  */runs\\?branch=main*) cat "$ANSWERS/runs" ;;
  */artifacts\\?per_page*) cat "$ANSWERS/$(echo "$2" | cut -d/ -f6).artifacts" ;;
  */zip) cat "$ANSWERS/$(echo "$2" | cut -d/ -f6).zip" ;;
  *) exit 3 ;;
esac
"""
"""What `gh api` answers, the choice of `--jq` made already."""


def script() -> str:
    """The commands of the step."""
    workflow = (ROOT / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8")
    _, _, step = workflow.partition("- name: Restore the nights\n")
    found = re.search(r"run: \|\n((?:[ ]{10}.*\n|\n)+)", step)
    assert found is not None
    return textwrap.dedent(found[1])


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Two runs, of two nights and of one."""
    folder = tmp_path / "answers"
    folder.mkdir()
    (folder / "runs").write_text("12\n11\n")
    (folder / "12.artifacts").write_text("3\tperf-h100-12-1\n2\tperf-h100-12-2\n")
    (folder / "11.artifacts").write_text("1\tperf-h100-11-1\n")
    for number, name in ((1, "run.json"), (3, "../../out.json")):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr(name, "{}")
        (folder / f"{number}.zip").write_bytes(content.getvalue())
    return folder


def restored(tmp_path: Path, answers: Path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gh").write_text(GH)
    (tmp_path / "bin" / "gh").chmod(0o755)
    (tmp_path / "temp").mkdir()
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "ANSWERS": str(answers),
        "RUNNER_TEMP": str(tmp_path / "temp"),
        "GITHUB_REPOSITORY": "owner/name",
        "BRANCH": "main",
    }
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script()],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_night_has_a_folder_and_one_that_is_gone_an_empty_one(tmp_path: Path, answers: Path) -> None:
    result = restored(tmp_path, answers)

    nights = tmp_path / "temp" / "nights"
    assert result.returncode == 0
    assert sorted(path.name for path in nights.iterdir()) == [
        "perf-h100-11-1",
        "perf-h100-12-1",
        "perf-h100-12-2",
    ]
    assert (nights / "perf-h100-11-1" / "run.json").read_text() == "{}"
    assert list((nights / "perf-h100-12-2").iterdir()) == []
    assert "::warning::perf-h100-12-2 cannot be restored" in result.stdout


def test_archive_cannot_leave_the_folder_of_its_night(tmp_path: Path, answers: Path) -> None:
    restored(tmp_path, answers)

    assert (tmp_path / "temp" / "nights" / "perf-h100-12-1" / "out.json").exists()
    assert not list(tmp_path.glob("out.json"))
    assert not list((tmp_path / "temp").glob("out.json"))


def test_list_of_nights_that_cannot_be_had_fails_the_step(tmp_path: Path, answers: Path) -> None:
    (answers / "11.artifacts").unlink()

    assert restored(tmp_path, answers).returncode != 0
