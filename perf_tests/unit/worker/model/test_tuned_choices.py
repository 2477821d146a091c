"""What inductor timed is carried from process to process, and each product is a hit or a miss once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch._inductor import codecache
from torch._inductor.codecache import PersistentCache

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import FailureKind, Phase
from perf_tests.protocol.reports import TunedChoices
from perf_tests.worker.model import tuned_choices


class Choice:
    """A kernel that takes this many milliseconds."""

    def __init__(self, name: str, ms: float) -> None:
        self.name = name
        self.ms = ms

    def hash_key(self) -> str:
        """Its name."""
        return self.name


def timed(choices: Any) -> dict[Any, float]:
    return {choice: choice.ms for choice in choices}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inductor's file of this process, which does not exist yet."""
    file = tmp_path / "own" / "cache" / "device"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.setattr(PersistentCache, "get_local_cache_path", staticmethod(lambda: file))
    return file


def tune(op: str, inputs: str, *choices: Choice) -> dict[Any, float]:
    """As inductor does: it looks first, compiles what it may have to time, and asks."""
    cache: Any = PersistentCache()
    cache.lookup(choices, op, inputs, benchmark=None)
    found: dict[Any, float] = cache.lookup(choices, op, inputs, timed, hint_override=None)
    return found


def content(timings: Mapping[str, float], inputs: str = "4608x3072") -> str:
    cache = {"int_mm": {inputs: {"highest": dict(timings)}}}
    return json.dumps({"system": {"hash": "device"}, "cache": cache})


def timings(file: Path, inputs: str = "4608x3072") -> dict[str, float]:
    found: dict[str, float] = json.loads(file.read_text())["cache"]["int_mm"][inputs]["highest"]
    return found


def test_what_was_tuned_is_saved_and_found_by_the_next_process(own: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    with tuned_choices.shared(folder, compiles=True) as first:
        assert min(tune("int_mm", "4608x3072", Choice("a", 0.5), Choice("b", 0.25)).values()) == 0.25
        tune("int_mm", "4608x3072", Choice("a", 0.5), Choice("b", 0.25))  # by another block
    assert first.report() == TunedChoices(hits=0, misses=1)
    assert timings(folder / "device") == {"a": 0.5, "b": 0.25}
    own.unlink()

    with tuned_choices.shared(folder, compiles=True) as second:
        found = tune("int_mm", "4608x3072", Choice("a", 9.0), Choice("b", 9.0))
        tune("int_mm", "4608x12288", Choice("a", 2.0))
    assert sorted(found.values()) == [0.25, 0.5]
    assert second.report() == TunedChoices(hits=1, misses=1)
    assert timings(folder / "device", "4608x12288") == {"a": 2.0}


def test_what_was_tuned_is_kept_where_the_process_is_killed_before_it_ends(own: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    with tuned_choices.shared(folder, compiles=True):
        tune("int_mm", "4608x3072", Choice("a", 0.5))
        assert timings(folder / "device") == {"a": 0.5}
        tune("int_mm", "4608x12288", Choice("a", 2.0))
        assert timings(folder / "device", "4608x12288") == {"a": 2.0}


def test_a_kernel_whose_code_changed_is_a_miss_and_replaces_what_was_known(own: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "device").write_text(content({"a": 0.5, "b": 0.25}))
    with tuned_choices.shared(folder, compiles=True) as lookups:
        tune("int_mm", "4608x3072", Choice("a", 0.75), Choice("c", 1.0))
    assert lookups.report() == TunedChoices(hits=0, misses=1)
    assert timings(folder / "device") == {"a": 0.75, "b": 0.25, "c": 1.0}


@pytest.mark.usefixtures("own")
def test_without_a_folder_it_is_counted_and_nothing_is_shared(tmp_path: Path) -> None:
    with tuned_choices.shared(None, compiles=True) as lookups:
        tune("int_mm", "4608x3072", Choice("a", 0.5))
    assert lookups.report() == TunedChoices(hits=0, misses=1)
    assert [each.name for each in tmp_path.iterdir()] == ["own"]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("compiles", [True, False])
def test_where_nothing_is_tuned_there_is_nothing_to_report(tmp_path: Path, compiles: bool) -> None:
    folder = tmp_path / "shared"
    before = PersistentCache.lookup
    with tuned_choices.shared(folder, compiles=compiles) as lookups:
        pass
    assert lookups.report() is None
    assert not folder.exists()
    assert PersistentCache.lookup is before


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("broken", ["", "{", "[]", '{"cache": 3}'], ids=["empty", "half", "list", "other"])
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, broken: str) -> None:
    (tmp_path / "device").write_text(broken)
    with (
        pytest.raises(WorkerError, match=r"device (is broken|holds no tuned kernels).*; delete it") as caught,
        tuned_choices.shared(tmp_path, compiles=True),
    ):
        pass
    assert (caught.value.failure.kind, caught.value.failure.phase) == (FailureKind.LOAD, Phase.COMPILE)


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(own: Path, tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.touch()
    own.parent.mkdir(parents=True)
    own.write_text(content({"a": 0.5}))
    with (
        pytest.raises(WorkerError, match=r"cannot share tuned kernels in .*/a file: (File exists|Not a dir)"),
        tuned_choices.shared(file, compiles=True),
    ):
        tune("int_mm", "4608x3072", Choice("a", 0.5))


def test_what_two_processes_tuned_is_kept_of_both(tmp_path: Path) -> None:
    for name, inputs in (("first", "4608x3072"), ("second", "4608x12288")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "device").write_text(content({"a": 0.5}, inputs))
        tuned_choices.merge(tmp_path / name, tmp_path / "shared")
    assert timings(tmp_path / "shared" / "device") == {"a": 0.5}
    assert timings(tmp_path / "shared" / "device", "4608x12288") == {"a": 0.5}
    assert sorted(each.name for each in (tmp_path / "shared").iterdir()) == [".lock", "device"]


def test_torch_that_keeps_its_cache_elsewhere_compiles_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(codecache, "PersistentCache")
    with tuned_choices.shared(tmp_path / "shared", compiles=True) as lookups:
        pass
    assert lookups.report() is None
