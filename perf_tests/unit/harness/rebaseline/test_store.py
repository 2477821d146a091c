from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.rebaseline import proposal, store
from perf_tests.harness.rebaseline.candidates import RunFile
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_MINI
from perf_tests.unit.builders import MINI_INT8WO, make_baselines, make_case, make_entry, make_record

ID = MINI_INT8WO.id


def fill(root: Path) -> None:
    """Accept one run."""
    source = RunFile(record=make_record(), sha256="f" * 64)
    proposal.write(proposal.propose(source, root=root, patterns=("*",), reason="first", platform=None))


def test_a_store_as_it_was_written_has_no_problems(tmp_path: Path) -> None:
    fill(tmp_path)
    assert store.problems(tmp_path) == ()


def test_published_tables_are_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "table.csv").write_text("a,b")
    (tmp_path / "README.md").write_text("what they say")
    assert store.problems(tmp_path) == ()


@pytest.mark.parametrize(
    "name", ["h9000/flux-mini.json", "flux-mini.json", "cpu/a/flux-mini.json", "cpu/x.bak"]
)
def test_a_file_that_belongs_to_no_platform_is_a_problem(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{}")
    (problem,) = store.problems(tmp_path)
    assert "is no baseline file" in problem


def test_a_file_that_was_edited_by_hand_is_a_problem(tmp_path: Path) -> None:
    fill(tmp_path)
    path = files.path_of(tmp_path, "cpu", "flux-mini")
    path.write_text(path.read_text().replace("  ", " "))
    (problem,) = store.problems(tmp_path)
    assert "is not as rebaseline.py writes it" in problem


@pytest.mark.parametrize(
    ("case", "changes", "problem"),
    [
        pytest.param("gone-b1", {}, "is no case of flux-mini in the matrix", id="orphan"),
        pytest.param(
            make_case(COGVIDEOX_MINI).id,
            {},
            "is no case of flux-mini in the matrix",
            id="other-pipeline",
        ),
        pytest.param(ID, {"digest": "d" * 64}, "has changed since its baseline", id="digest"),
        pytest.param(ID, {"metrics": {"speed": (1.0,)}}, "has unknown metrics: speed", id="unknown-metric"),
    ],
)
def test_an_entry_that_belongs_to_no_case_is_a_problem(
    tmp_path: Path, case: str, changes: dict[str, Any], problem: str
) -> None:
    baselines = make_baselines(cases={case: make_entry(**changes)})
    files.write(files.path_of(tmp_path, "cpu", "flux-mini"), baselines)
    (found,) = store.problems(tmp_path)
    assert f"{case} {problem}" in found


def test_an_entry_on_a_platform_that_its_row_does_not_name_is_a_problem(tmp_path: Path) -> None:
    path = files.path_of(tmp_path, "h100", "flux-mini")
    files.write(path, make_baselines(platform="h100"))
    (found,) = store.problems(tmp_path)
    assert "is not measured on h100" in found


def test_every_problem_of_the_store_is_listed(tmp_path: Path) -> None:
    for pipeline in ("flux-mini", "cogvideox-mini"):
        path = files.path_of(tmp_path, "cpu", pipeline)
        path.parent.mkdir(exist_ok=True)
        path.write_text("{")
    assert len(store.problems(tmp_path)) == 2
