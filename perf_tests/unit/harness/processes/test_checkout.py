"""Which commit is checked out, and whether it was changed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from perf_tests.harness.processes import checkout


@pytest.fixture(autouse=True)
def forget() -> None:
    checkout.commit.cache_clear()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # of a hook that runs these tests
        monkeypatch.delenv(name, raising=False)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.invalid")
    (tmp_path / "table.py").write_text("1\n")
    for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "first")):
        subprocess.run(("git", "-C", str(tmp_path), *command), check=True, capture_output=True)
    return tmp_path


def changed(repository: Path, content: str) -> str | None:
    (repository / "table.py").write_text(content)
    checkout.commit.cache_clear()
    return checkout.commit(repository)


def test_a_clean_checkout_is_its_commit(repository: Path) -> None:
    found = checkout.commit(repository)
    assert found is not None
    assert len(found) == 40


def test_changes_are_told_apart(repository: Path) -> None:
    clean, two, three = checkout.commit(repository), changed(repository, "2\n"), changed(repository, "3\n")
    assert len({clean, two, three}) == 3
    assert {found.partition("+")[0] for found in (clean, two, three) if found} == {clean}
    assert changed(repository, "1\n") == clean


def test_a_folder_that_is_no_checkout_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert checkout.commit(tmp_path) is None
