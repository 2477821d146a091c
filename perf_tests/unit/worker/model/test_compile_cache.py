"""What one process compiled, another finds in a file; a broken file is always an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import FailureKind, Phase
from perf_tests.protocol.reports import CompileCache
from perf_tests.worker.model import compile_cache

# A matrix product is left to a library: it gives a graph to cache, and no kernel to build.
PROCESS = """
import sys
from pathlib import Path
import msgspec, torch
from perf_tests.worker.inspection import counters
from perf_tests.worker.model import compile_cache

file, before, began_empty = Path(sys.argv[1]), counters.read(), compile_cache.is_empty()
done = compile_cache.load(file)
torch.compile(torch.mm, dynamic=False)(torch.ones(8, 8), torch.ones(8, 8))
done = done or compile_cache.save(file)
cache = counters.cache(counters.read().since(before), done, began_empty=began_empty)
sys.stdout.buffer.write(msgspec.json.encode(cache))
"""


def compiled_in_a_process(file: Path, cache: Path) -> CompileCache:
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(cache), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", PROCESS, str(file)]
    root = Path(__file__).resolve().parents[4]
    output = subprocess.run(command, env=variables, cwd=root, check=True, stdout=subprocess.PIPE).stdout
    return msgspec.json.decode(output, type=CompileCache)


def test_a_second_process_with_an_empty_cache_compiles_nothing(tmp_path: Path) -> None:
    file = tmp_path / "folder of the user" / "case.bin"
    first = compiled_in_a_process(file, tmp_path / "first")
    assert (first.artifacts, first.state, first.misses) == ("saved", "cold", 1)
    second = compiled_in_a_process(file, tmp_path / "second")
    assert (second.artifacts, second.state, second.hits, second.misses) == ("loaded", "warm", 1, 0)
    assert [each.name for each in file.parent.iterdir()] == ["case.bin"]
    third = compiled_in_a_process(file, tmp_path / "first")
    assert [each.began_empty for each in (first, second, third)] == [True, True, False]


@pytest.mark.parametrize("content", [b"", b"not artifacts", bytes(1000)], ids=["empty", "text", "zeros"])
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "case.bin"
    file.write_bytes(content)
    with pytest.raises(WorkerError, match=rf"case\.bin \({len(content)} bytes\) are truncated, or") as caught:
        compile_cache.load(file)
    assert (caught.value.failure.kind, caught.value.failure.phase) == (FailureKind.LOAD, Phase.COMPILE)
    assert "delete it" in caught.value.failure.message


def test_artifacts_that_fall_apart_while_they_are_unpacked_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(content: bytes) -> None:
        raise AttributeError("no class FxGraph")

    monkeypatch.setattr(torch.compiler, "load_cache_artifacts", fails)
    (tmp_path / "case.bin").write_bytes(b"of another torch")
    with pytest.raises(WorkerError, match=r"AttributeError: no class FxGraph\); delete it") as caught:
        compile_cache.load(tmp_path / "case.bin")
    assert caught.value.failure.kind is FailureKind.LOAD


def test_artifacts_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"cannot read the compile-cache artifacts .*: Is a directory"):
        compile_cache.load(tmp_path)


def test_artifacts_that_cannot_be_written_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: (b"artifacts", None))
    (tmp_path / "case.bin").mkdir()
    with pytest.raises(WorkerError, match=r"cannot write the compile-cache artifacts .*: Is a directory"):
        compile_cache.save(tmp_path / "case.bin")
    assert [each.name for each in tmp_path.iterdir()] == ["case.bin"]


def test_artifacts_that_are_empty_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: None)
    assert compile_cache.save(tmp_path / "case.bin") == "empty"
    assert list(tmp_path.iterdir()) == []
