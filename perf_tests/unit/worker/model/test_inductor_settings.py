"""Inductor's settings are what the recipe says, or there is an error that names them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from torch._inductor import config
from torch._inductor.runtime import compile_tasks as compile_tasks_of_torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import FailureKind, Phase
from perf_tests.tables.recipes import INT8_GEMM
from perf_tests.worker.model import inductor_settings
from perf_tests.worker.model.lazy import construct


@pytest.fixture(autouse=True)
def _settings_of_before() -> Iterator[None]:
    with config.patch({}):
        before = config.save_config()
    yield
    config.load_config(before)


def test_the_settings_of_a_row_are_set_and_read_back() -> None:
    construct(INT8_GEMM.call)
    assert config.max_autotune_gemm
    assert inductor_settings.read(INT8_GEMM.inductor) == {"max_autotune_gemm": "True"}


def test_a_nested_setting_has_a_dotted_name() -> None:
    inductor_settings.apply(**{"triton.cudagraphs": True})
    assert config.triton.cudagraphs
    assert inductor_settings.read(["triton.cudagraphs"]) == {"triton.cudagraphs": "True"}


@pytest.fixture
def compile_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """torch's module of its pool, with a `ptxas` where torch looks for one, and none that a user names."""
    take = compile_tasks_of_torch._set_triton_ptxas_path
    monkeypatch.setattr(compile_tasks_of_torch, "_set_triton_ptxas_path", take.__wrapped__)  # looks anew
    monkeypatch.setattr(compile_tasks_of_torch, "__file__", str(tmp_path / "_inductor" / "runtime" / "a.py"))
    # torch 2.11 looks in torch/bin, and torch 2.13 in torch/_inductor/bin, where its CPU wheel has none.
    for folder in (tmp_path, tmp_path / "_inductor"):
        file = folder / "bin" / "ptxas"
        file.parent.mkdir(parents=True)
        file.touch(mode=0o755)
    # Set before it is deleted, so that what the test sets is undone.
    monkeypatch.setenv("TRITON_PTXAS_PATH", "")
    monkeypatch.delenv("TRITON_PTXAS_PATH")
    return compile_tasks_of_torch


@pytest.mark.usefixtures("compile_tasks")
def test_this_process_assembles_kernels_as_the_pool_does(tmp_path: Path) -> None:
    inductor_settings.use_ptxas_of_pool()
    assert Path(os.environ["TRITON_PTXAS_PATH"]).is_relative_to(tmp_path)


@pytest.mark.usefixtures("compile_tasks")
def test_the_assembler_that_a_user_names_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_PTXAS_PATH", "/opt/ptxas")
    inductor_settings.use_ptxas_of_pool()
    assert os.environ["TRITON_PTXAS_PATH"] == "/opt/ptxas"


def test_a_torch_whose_pool_has_no_assembler_of_its_own_needs_none(
    compile_tasks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(compile_tasks, "_set_triton_ptxas_path")
    inductor_settings.use_ptxas_of_pool()
    assert "TRITON_PTXAS_PATH" not in os.environ


def test_a_setting_that_this_torch_does_not_have_is_an_error_that_names_it() -> None:
    with pytest.raises(WorkerError, match=r"torch .* has no inductor setting int8_faster, which") as caught:
        inductor_settings.apply(int8_faster=True)
    failure = caught.value.failure
    assert (failure.kind, failure.phase) == (FailureKind.LOAD, Phase.COMPILE)
    assert "sets to True: take it out of the row" in failure.message
    assert inductor_settings.read(["int8_faster"]) == {}
