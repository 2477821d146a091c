from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.baselines import register, transaction
from perf_tests.protocol.errors import BaselineError


def write(root: Path, text: str) -> Path:
    path = register.path_of(root, "h100")
    path.parent.mkdir()
    path.write_text(text)
    return path


def test_a_register_names_one_case_a_line(tmp_path: Path) -> None:
    assert write(tmp_path, register.dumps({"b", "a"})).read_text() == "a\nb\n"
    assert register.read(tmp_path, "h100") == frozenset({"a", "b"})


def test_a_platform_without_a_register_is_told_from_one_with_an_empty_register(tmp_path: Path) -> None:
    assert register.read(tmp_path, "h100") is None
    write(tmp_path, "")
    assert register.read(tmp_path, "h100") == frozenset()


def test_cases_are_added_and_never_taken_away(tmp_path: Path) -> None:
    assert register.with_entries(tmp_path, "h100", {"a"}) == "a\n"
    write(tmp_path, "a\nc\n")
    assert register.with_entries(tmp_path, "h100", {"b"}) == "a\nb\nc\n"
    assert register.with_entries(tmp_path, "h100", {"c"}) is None


def test_a_platform_whose_rows_must_all_be_recorded_needs_no_register(tmp_path: Path) -> None:
    assert sorted(register.REGISTERED) == ["a100", "b200", "h100", "h200"]
    assert register.with_entries(tmp_path, "cpu", {"a"}) is None


def test_a_register_that_an_interrupted_command_had_still_to_write_counts(tmp_path: Path) -> None:
    write(tmp_path, "a\n")
    (tmp_path / transaction.JOURNAL).write_bytes(msgspec.json.encode({"h100/recorded.txt": "a\nb\n"}))
    assert register.read(tmp_path, "h100") == frozenset({"a", "b"})


def test_a_register_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "").write_bytes(b"\xff")
    with pytest.raises(BaselineError, match=r"recorded.txt cannot be read: 'utf-8' codec"):
        register.read(tmp_path, "h100")
