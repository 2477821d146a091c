from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.baselines import files, register
from perf_tests.harness.rebaseline import store
from perf_tests.protocol.errors import BaselineError, UsageError
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_MINI
from perf_tests.tables.platforms import CPU, H100, Noise
from perf_tests.unit.builders import (
    FLUX_FP8,
    MINI_INT8WO,
    make_baselines,
    make_case,
    make_entry,
    make_process,
    make_record,
    make_run,
    store_baselines,
)
from perf_tests.unit.harness.rebaseline.proposals import accept, timed, unsteady

ID = MINI_INT8WO.id


def test_a_store_as_it_was_written_has_no_problems(tmp_path: Path) -> None:
    accept(tmp_path, make_record())
    assert store.problems(tmp_path) == ()


def test_published_tables_are_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "table.csv").write_text("a,b")
    (tmp_path / "README.md").write_text("what they say")
    assert store.problems(tmp_path) == ()


@pytest.mark.parametrize(
    "name", ["h9000/flux-mini.json", "flux-mini.json", "cpu/a/b/flux-mini.json", "cpu/x.bak"]
)
def test_a_file_that_belongs_to_no_platform_is_a_problem(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{}")
    (problem,) = store.problems(tmp_path)
    assert "is not a baseline file" in problem


def test_a_file_that_was_edited_by_hand_is_a_problem(tmp_path: Path) -> None:
    accept(tmp_path, make_record())
    path = files.path_of(tmp_path, "cpu", "flux-mini", ID)
    path.write_text(path.read_text().replace("  ", " "))
    (problem,) = store.problems(tmp_path)
    assert "is not as rebaseline.py writes it" in problem


@pytest.mark.parametrize(
    ("case", "changes", "problem"),
    [
        pytest.param("gone-b1", {}, "is not a case of flux-mini in the matrix", id="orphan"),
        pytest.param(
            make_case(COGVIDEOX_MINI).id,
            {},
            "is not a case of flux-mini in the matrix",
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
    store_baselines(tmp_path, baselines)
    (found,) = store.problems(tmp_path)
    assert f"{case} {problem}" in found


def test_an_entry_on_a_platform_that_its_row_does_not_name_is_a_problem(tmp_path: Path) -> None:
    store_baselines(tmp_path, make_baselines(platform="h100"))
    (found,) = store.problems(tmp_path)
    assert "is not measured on h100" in found


def test_every_problem_of_the_store_is_listed(tmp_path: Path) -> None:
    for pipeline in ("flux-mini", "cogvideox-mini"):
        path = files.path_of(tmp_path, "cpu", pipeline, ID)
        path.parent.mkdir(parents=True)
        path.write_text("{")
    assert len(store.problems(tmp_path)) == 2


def test_an_entry_that_has_drifted_too_far_is_a_problem(tmp_path: Path) -> None:
    accept(tmp_path, timed(100.0))
    before = files.read(tmp_path, "h100", "flux1-dev")
    entry = before.cases[FLUX_FP8.id]
    moved = msgspec.structs.replace(entry, metrics={**entry.metrics, "denoise_step_ms": (110.0,)})
    store_baselines(tmp_path, msgspec.structs.replace(before, cases={FLUX_FP8.id: moved}))
    (problem,) = store.problems(tmp_path)
    assert "has drifted too far: accepted steps have moved denoise_step_ms by +10.00 %" in problem


def test_accepted_cases_are_listed_with_their_provenance(tmp_path: Path) -> None:
    accept(tmp_path, timed(100.0), reason="first H100 run")
    accept(tmp_path, make_record(), reason="first CPU run")
    found = [
        (platform, case, accepted.provenance.reason)
        for platform, case, accepted in store.stored(tmp_path, "*")
    ]
    assert found == [("cpu", ID, "first CPU run"), ("h100", FLUX_FP8.id, "first H100 run")]
    assert [case for _, case, _ in store.stored(tmp_path, "flux1-*")] == [FLUX_FP8.id]


def test_accepted_cases_that_no_id_matches_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="matches 'nothing-\\*'"):
        store.stored(tmp_path, "nothing-*")


def test_a_rewrite_adds_first_references_and_then_changes_nothing(tmp_path: Path) -> None:
    store_baselines(tmp_path, make_baselines(cases={ID: make_entry({"model_memory_mib": [2.0]})}))
    assert store.rewrite(tmp_path) == (files.path_of(tmp_path, "cpu", "flux-mini", ID),)
    assert files.load(tmp_path, "cpu")["flux-mini"].cases[ID].first == {"model_memory_mib": (2.0,)}
    assert store.rewrite(tmp_path) == ()


def test_a_rewrite_refuses_a_file_of_format_1(tmp_path: Path) -> None:
    path = tmp_path / "cpu" / "flux-mini.json"
    path.parent.mkdir()
    path.write_text('{"format_version": 1}')
    with pytest.raises(BaselineError, match="has format 1, and this checkout reads only 2"):
        store.rewrite(tmp_path)


# Noise


def test_noise_of_a_platform_grows_by_what_accepted_processes_show(tmp_path: Path) -> None:
    accept(tmp_path, timed(100.0, 101.0))
    noise = store.noise_in_force(tmp_path, H100)
    # (6 x 0.36^2 + 1 x 0.7036^2) / 7, where 0.7036 % is the sd of log(100) and log(101)
    assert noise["denoise_step_ms"] == Noise(sd_pct=0.4264, dof=7)
    # Two equal values are a degree of freedom, too.
    assert noise["decode_ms"] == Noise(sd_pct=0.3333, dof=7)
    assert store.problems(tmp_path) == ()


def test_noise_is_not_shown_by_a_single_process(tmp_path: Path) -> None:
    accept(tmp_path, timed(100.0))
    assert store.noise_in_force(tmp_path, H100)["denoise_step_ms"] == Noise(sd_pct=0.36, dof=6)


def test_noise_gets_no_file_on_a_platform_without_noisy_gates(tmp_path: Path) -> None:
    accept(tmp_path, make_record(make_run(processes=(make_process(),) * 3)))
    assert [path.name for path in (tmp_path / "cpu").iterdir()] == ["flux-mini"]


def test_noise_of_a_platform_ignores_the_steps_of_unsteady_schemes(tmp_path: Path) -> None:
    accept(tmp_path, unsteady((600.0,) * 3, (1100.0,) * 3))
    noise = store.noise_in_force(tmp_path, H100)
    assert noise["denoise_step_ms"] == noise["speedup_vs_bf16"] == Noise(sd_pct=0.36, dof=6)
    assert noise["decode_ms"] == Noise(sd_pct=0.3333, dof=7)


@pytest.mark.parametrize(
    "change", [lambda path: path.unlink(), lambda path: path.write_text("{}\n")], ids=["missing", "empty"]
)
def test_noise_that_does_not_match_the_baselines_is_a_problem_until_it_is_rewritten(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    accept(tmp_path, timed(100.0, 101.0))
    path = files.noise_path(tmp_path, "h100")
    change(path)
    (problem,) = store.problems(tmp_path)
    assert "noise.json does not match the noise of the baselines in its folder" in problem
    assert store.rewrite(tmp_path) == (path,)
    assert store.problems(tmp_path) == ()


@pytest.mark.parametrize("sd_pct", [2.0, 50.0, 1000.0, 1e308, 1e-300])
def test_noise_that_the_baselines_do_not_show_is_refused(tmp_path: Path, sd_pct: float) -> None:
    accept(tmp_path, timed(100.0, 101.0))
    noise = {**store.noise_in_force(tmp_path, H100), "denoise_step_ms": Noise(sd_pct=sd_pct, dof=7)}
    files.noise_path(tmp_path, "h100").write_text(files.dumps_noise(noise))
    with pytest.raises(BaselineError, match=r"noise\.json (does not match|is broken)"):
        store.noise_in_force(tmp_path, H100)


def test_noise_without_any_baseline_is_refused(tmp_path: Path) -> None:
    path = files.noise_path(tmp_path, "h100")
    path.parent.mkdir()
    path.write_text(files.dumps_noise({"decode_ms": Noise(sd_pct=0.9, dof=20)}))
    with pytest.raises(BaselineError, match="does not match the noise of the baselines"):
        store.noise_in_force(tmp_path, H100)


def test_noise_does_not_need_its_file(tmp_path: Path) -> None:
    accept(tmp_path, timed(100.0, 101.0))
    files.noise_path(tmp_path, "h100").unlink()
    assert store.noise_in_force(tmp_path, H100)["denoise_step_ms"] == Noise(sd_pct=0.4264, dof=7)


def test_noise_is_that_of_the_row_where_nothing_was_accepted(tmp_path: Path) -> None:
    assert store.noise_in_force(tmp_path, H100)["decode_ms"] == Noise(sd_pct=0.36, dof=6)


def test_noise_is_empty_for_a_platform_that_gates_nothing_noisy(tmp_path: Path) -> None:
    assert store.noise_in_force(tmp_path, CPU) == {}


def test_baselines_that_lie_further_apart_than_any_machine_are_refused(tmp_path: Path) -> None:
    accept(tmp_path, timed(100.0, 101.0))
    before = files.read(tmp_path, "h100", "flux1-dev")
    entry = before.cases[FLUX_FP8.id]
    apart = msgspec.structs.replace(entry, metrics={**entry.metrics, "decode_ms": (1e-3, 1e6)})
    store_baselines(tmp_path, msgspec.structs.replace(before, cases={FLUX_FP8.id: apart}))
    files.noise_path(tmp_path, "h100").unlink()
    with pytest.raises(BaselineError, match=r"lie 554 % apart in decode_ms, and 10 % is the most"):
        store.noise_in_force(tmp_path, H100)


# The register


def test_accepting_a_case_registers_it(tmp_path: Path) -> None:
    accept(tmp_path, timed(100.0))
    assert register.read(tmp_path, "h100") == frozenset({FLUX_FP8.id})
    assert store.problems(tmp_path) == ()


def test_accepting_a_case_of_a_platform_without_a_register_makes_none(tmp_path: Path) -> None:
    accept(tmp_path, make_record())
    assert register.read(tmp_path, "cpu") is None


def test_a_baseline_that_was_deleted_is_a_problem(tmp_path: Path) -> None:
    accept(tmp_path, timed(100.0))
    files.path_of(tmp_path, "h100", "flux1-dev", FLUX_FP8.id).unlink()
    files.noise_path(tmp_path, "h100").unlink()
    (problem,) = store.problems(tmp_path)
    assert problem.endswith(f"{FLUX_FP8.id} had a baseline, which is gone: restore it, or record it again")


def test_a_case_that_left_the_matrix_is_no_lost_baseline(tmp_path: Path) -> None:
    accept(tmp_path, timed(100.0))
    path = register.path_of(tmp_path, "h100")
    path.write_text("a-case-of-last-year\n" + path.read_text())
    assert store.problems(tmp_path) == ()


@pytest.mark.parametrize("edit", [Path.unlink, lambda path: path.write_text("")], ids=["deleted", "emptied"])
def test_a_register_without_the_baselines_of_its_folder_is_a_problem_and_rewritten(
    tmp_path: Path, edit: Callable[[Path], object]
) -> None:
    accept(tmp_path, timed(100.0))
    path = register.path_of(tmp_path, "h100")
    edit(path)
    (problem,) = store.problems(tmp_path)
    assert problem.startswith(
        f"{path} does not name every case that has a baseline in its folder: fix it with"
    )
    assert store.rewrite(tmp_path) == (path,)
    assert path.read_text() == f"{FLUX_FP8.id}\n"
