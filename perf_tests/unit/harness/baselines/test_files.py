"""The files under baselines/ together: what is read, what is written and what goes, and the noise."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.baselines import files, transaction
from perf_tests.harness.baselines.entry import Accepted, Baselines, find_accepted, key_of
from perf_tests.protocol.errors import BaselineError
from perf_tests.tables.platforms import Noise
from perf_tests.unit.builders import (
    MINI_BF16,
    MINI_INT8WO,
    make_baselines,
    make_entry,
    make_provenance,
    store_baselines,
)

ID = MINI_INT8WO.id


def as_read(baselines: Baselines) -> Baselines:
    """The same with the keys of provenances that reading gives them."""
    keys = {key: key_of(each) for key, each in baselines.provenance.items()}
    cases = {
        case: msgspec.structs.replace(entry, provenance=keys[entry.provenance])
        for case, entry in baselines.cases.items()
    }
    provenance = {keys[key]: each for key, each in baselines.provenance.items()}
    return msgspec.structs.replace(baselines, cases=cases, provenance=provenance)


def test_baselines_are_read_as_they_were_written(tmp_path: Path) -> None:
    store_baselines(tmp_path, make_baselines())
    assert files.load(tmp_path, "cpu") == {"flux-mini": as_read(make_baselines())}


def test_a_missing_folder_is_an_empty_store(tmp_path: Path) -> None:
    assert files.load(tmp_path, "h100") == {}


def test_an_entry_is_found_with_its_provenance() -> None:
    found = find_accepted({"flux-mini": make_baselines()}, MINI_INT8WO)
    assert found == Accepted(entry=make_entry(), provenance=make_provenance())


def test_a_case_without_an_entry_has_no_baseline() -> None:
    assert find_accepted({"flux-mini": make_baselines()}, MINI_BF16) is None
    assert find_accepted({}, MINI_INT8WO) is None


def test_an_entry_of_fewer_than_three_processes_is_provisional() -> None:
    assert make_entry({"ssim": [1.0, 1.0]}).provisional
    assert not make_entry({"ssim": [1.0, 1.0, 1.0]}).provisional


# What changes


def _names(root: Path, changes: Baselines) -> dict[str, bool]:
    """Path of a case file or `figures` -> whether it stays, for what storing `changes` would change."""
    return {
        "figures" if path.parent.name == files.FIGURES else path.stem: text is not None
        for path, text in files.contents(root, changes).items()
    }


def test_a_store_that_holds_them_does_not_change(tmp_path: Path) -> None:
    store_baselines(tmp_path, make_baselines())
    assert files.contents(tmp_path, make_baselines()) == {}


def test_one_case_that_changes_changes_one_file(tmp_path: Path) -> None:
    before = make_baselines(cases={"a": make_entry({"ssim": [1.0]}), "b": make_entry({"ssim": [1.0]})})
    store_baselines(tmp_path, before)
    after = msgspec.structs.replace(before, cases={**before.cases, "b": make_entry({"ssim": [0.5]})})
    assert _names(tmp_path, after) == {"b": True}


def test_figures_that_no_case_names_any_more_go(tmp_path: Path) -> None:
    store_baselines(tmp_path, make_baselines(cases={"a": make_entry(samples=3)}))
    store_baselines(tmp_path, make_baselines(cases={"a": make_entry(samples=5)}))
    (figures,) = (tmp_path / "cpu" / "flux-mini" / "figures").iterdir()
    assert '"samples": 5' in figures.read_text()


def test_figures_that_two_cases_share_stay_with_one_of_them(tmp_path: Path) -> None:
    both = make_baselines(cases={"a": make_entry(), "b": make_entry()})
    store_baselines(tmp_path, both)
    assert _names(tmp_path, msgspec.structs.replace(both, cases={"a": make_entry()})) == {"b": False}


def test_other_pipelines_stay(tmp_path: Path) -> None:
    store_baselines(tmp_path, make_baselines(pipeline="sd3-mini"))
    store_baselines(tmp_path, make_baselines())
    store_baselines(tmp_path, make_baselines(cases={}))
    assert list(files.load(tmp_path, "cpu")) == ["sd3-mini"]


def test_what_a_killed_process_had_to_remove_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_baselines(tmp_path, make_baselines())
    with monkeypatch.context() as patch:
        patch.setattr(transaction, "_finish", lambda _root: None)
        store_baselines(tmp_path, make_baselines(cases={}))
    assert files.path_of(tmp_path, "cpu", "flux-mini", ID).exists()
    assert files.load(tmp_path, "cpu") == {}
    with transaction.exclusive(tmp_path):
        assert not files.path_of(tmp_path, "cpu", "flux-mini", ID).exists()


# What is refused


def test_a_file_that_is_not_text_is_refused_by_name(tmp_path: Path) -> None:
    path = files.path_of(tmp_path, "cpu", "flux-mini", ID)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BaselineError, match=rf"{ID}\.json cannot be read"):
        files.load(tmp_path, "cpu")


def test_a_pipe_in_place_of_a_case_is_one_sentence(tmp_path: Path) -> None:
    path = files.path_of(tmp_path, "cpu", "flux-mini", ID)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(BaselineError, match=r"cannot be read: .*it is a pipe or a device, not a file"):
        files.load(tmp_path, "cpu")


def test_figures_that_are_gone_are_named(tmp_path: Path) -> None:
    store_baselines(tmp_path, make_baselines())
    (figures,) = (tmp_path / "cpu" / "flux-mini" / "figures").iterdir()
    figures.unlink()
    with pytest.raises(BaselineError, match=rf"{figures.name} is gone: restore it"):
        files.load(tmp_path, "cpu")


def test_a_file_of_a_whole_pipeline_is_refused_with_the_command_that_divides_it(tmp_path: Path) -> None:
    store_baselines(tmp_path, make_baselines())
    (tmp_path / "cpu" / "flux-mini.json").write_text("{}")
    with pytest.raises(
        BaselineError,
        match=r"cpu/flux-mini\.json holds a whole pipeline, .*rebaseline\.py rewrite` divides it",
    ):
        files.load(tmp_path, "cpu")


# Noise


def test_noise_is_not_taken_for_a_pipeline(tmp_path: Path) -> None:
    store_baselines(tmp_path, make_baselines(platform="h100"))
    files.noise_path(tmp_path, "h100").write_text(files.dumps_noise({"decode_ms": Noise(sd_pct=0.9, dof=20)}))
    assert list(files.load(tmp_path, "h100")) == ["flux-mini"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("{", "does not hold noise", id="truncated"),
        pytest.param('{"decode_ms": {"sd_pct": 1}}', "does not hold noise", id="no-degrees"),
        pytest.param('{"decode_ms": {"sd_pct": 0, "dof": 9}}', "decode_ms has a noise of 0.0 %", id="none"),
        pytest.param('{"decode_ms": {"sd_pct": 1, "dof": 3}}', "with 3 degrees of freedom", id="too-few"),
        *(
            pytest.param(
                f'{{"decode_ms": {{"sd_pct": {sd_pct}, "dof": 9}}}}', "has a noise of", id=f"absurd-{sd_pct}"
            )
            for sd_pct in ("50", "1000", "1e308")
        ),
        pytest.param(
            '{"decode_ms": {"sd_pct": 1, "dof": 9}, "decode_ms": {"sd_pct": 2, "dof": 9}}',
            "names the key 'decode_ms' twice",
            id="twice",
        ),
    ],
)
def test_noise_that_cannot_be_trusted_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = files.noise_path(tmp_path, "h100")
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(BaselineError, match=problem):
        files.read_noise(path)
