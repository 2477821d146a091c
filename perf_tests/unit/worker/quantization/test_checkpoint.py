"""Each way to save and to load leads to the same tensors without quantizing, and a wrong one is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torchao.quantization import quantize_

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Load, Loaded, Quantize, Quantized, Save, Saved
from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import Loader, Recipe
from perf_tests.tables.schemes.rows import BF16, FP6_E3M2, FP8WO, INT4DQ, INT8DQ, INT8WO
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.worker import session
from perf_tests.worker.inspection import prompts
from perf_tests.worker.measure import control
from perf_tests.worker.measure.generate import StepWork
from perf_tests.worker.model.lazy import construct
from perf_tests.worker.quantization import apply, checkpoint
from perf_tests.worker.quantization.checkpoint import WAYS, Way
from perf_tests.worker.session import WorkerSession

MakeCase = Callable[..., Case]
LINEAR = 62
"""Linear modules of the miniature's transformer."""


@pytest.fixture(autouse=True)
def nothing_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the weights are looked at."""
    work = StepWork(
        tflop=0.0, attention_tflop=0.0, unknown=(), workload=FLUX_MINI.workload, attention_calls=0
    )
    monkeypatch.setattr(session, "count_step", lambda *_: work)
    monkeypatch.setattr(prompts, "differences", lambda *_: {})
    monkeypatch.setattr(control, "measure", lambda *_: {})


def quantized(case: Case, folder: Path | None = None) -> tuple[WorkerSession, Quantized]:
    worker = WorkerSession(None)
    loaded = worker.load(
        Load(case=case, device=Device.CPU, checkpoint=None if folder is None else str(folder))
    )
    assert isinstance(loaded, Loaded)
    return worker, worker.quantize(Quantize(tensors=True))


def saved(make_case: MakeCase, scheme: Scheme, loader: Loader, folder: Path) -> tuple[Case, Quantized, Saved]:
    """The case that loads, what was saved, and what it takes."""
    case = make_case(Recipe(scheme=scheme, loader=loader))
    assert case.built_twin is not None
    worker, built = quantized(case.built_twin)
    return case, built, worker.save(Save(case=case, folder=str(folder)))


@pytest.mark.parametrize(
    ("scheme", "loader"),
    [
        *((INT8WO, loader) for loader in WAYS),
        pytest.param(BF16, Loader.TORCH_SAVE, id="unquantized"),
        pytest.param(FP6_E3M2, Loader.TORCH_SAVE, id="own tensors"),
        # A file turns the tuple of its block sizes into a list.
        pytest.param(INT4DQ, Loader.SAFETENSORS, id="tuples"),
    ],
)
def test_tensors_are_those_that_were_saved_and_nothing_is_quantized(
    make_case: MakeCase, tmp_path: Path, scheme: Scheme, loader: Loader
) -> None:
    folder = tmp_path / "checkpoint"
    case, built, files = saved(make_case, scheme, loader, folder)
    _, loaded = quantized(case, folder)

    assert loaded.tensors == built.tensors
    assert (built.converted, loaded.converted) == (built.quantization.expected_modules, 0)
    assert loaded.quantization.groups == built.quantization.groups
    assert loaded.state is not None
    weight_bytes = loaded.state.components["transformer"].weight_bytes
    tensors = sum(" as " not in name for name in loaded.tensors)
    assert 200 < (sum(files.files.values()) - weight_bytes) / tensors < 420
    assert all(name.startswith("transformer/") for name in files.files)


def test_a_tensor_subclass_counts_as_its_tensors_and_as_what_else_it_knows(make_case: MakeCase) -> None:
    _, built = quantized(make_case(Recipe(scheme=INT8WO)))
    weight = "transformer.proj_out.weight"
    of_weight = {name.removeprefix(weight) for name in built.tensors if name.startswith(weight)}
    assert of_weight == {" as Int8Tensor", ".qdata", ".scale", ".zero_point"}
    assert sum(" as " in name for name in built.tensors) == LINEAR


@pytest.mark.usefixtures("enums_of_python_3_11_2")
@pytest.mark.parametrize("scheme", [INT8WO, INT8DQ, INT4DQ, FP8WO], ids=lambda each: each.id)
def test_saved_weights_can_be_loaded_whatever_python_makes_of_enumerations(
    tmp_path: Path, scheme: Scheme
) -> None:
    linear = nn.Linear(256, 64, dtype=torch.bfloat16)
    assert scheme.config is not None
    quantize_(linear, construct(scheme.config))
    WAYS[Loader.TORCH_SAVE].write(SimpleNamespace(transformer=linear), tmp_path)
    (file,) = (tmp_path / "transformer").iterdir()

    loaded: Any = torch.load(file, weights_only=True)["weight"]
    written: Any = linear.weight
    assert type(loaded) is type(written)
    assert loaded.__tensor_flatten__() == written.__tensor_flatten__()


# A wrong loader


def loading_with(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> None:
    """Have what `torch.save` wrote be loaded as it is, and changed."""
    right = WAYS[Loader.TORCH_SAVE]

    def read(*arguments: Any) -> Any:
        pipeline = right.read(*arguments)
        change(pipeline)
        return pipeline

    monkeypatch.setattr(checkpoint, "WAYS", {Loader.TORCH_SAVE: Way(write=right.write, read=read)})


def test_a_loader_that_quantizes_again_is_counted(
    make_case: MakeCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, built, _ = saved(make_case, INT8WO, Loader.TORCH_SAVE, tmp_path / "checkpoint")
    unloaded = make_case(Recipe(scheme=INT8WO)).build

    def quantize_again(pipeline: Any) -> None:
        fresh = checkpoint.made(unloaded, None, torch.device("cpu"))
        apply.apply(fresh, unloaded)
        pipeline.transformer = fresh.transformer

    loading_with(monkeypatch, quantize_again)
    _, loaded = quantized(case, tmp_path / "checkpoint")

    assert loaded.tensors == built.tensors
    assert loaded.converted == LINEAR


def test_one_scale_that_is_off_by_a_bit_is_another_tensor(
    make_case: MakeCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, built, _ = saved(make_case, INT8WO, Loader.TORCH_SAVE, tmp_path / "checkpoint")

    def change_one_bit(pipeline: Any) -> None:
        scale = pipeline.transformer.proj_out.weight.scale
        scale.view(torch.int16).view(-1)[0] += 1

    loading_with(monkeypatch, change_one_bit)
    _, loaded = quantized(case, tmp_path / "checkpoint")

    different = [name for name in built.tensors if built.tensors[name] != loaded.tensors[name]]
    assert different == ["transformer.proj_out.weight.scale"]


# What cannot be loaded


@pytest.mark.parametrize(
    ("loader", "folder", "message"),
    [
        (Loader.TORCH_SAVE, None, "loads its transformer, and the folder to load it from is None"),
        (Loader.BUILT, "somewhere", "makes its own transformer, and the folder to load it from is somewhere"),
    ],
)
def test_a_folder_that_is_missing_or_too_much_is_refused(
    make_case: MakeCase, loader: Loader, folder: str | None, message: str
) -> None:
    build = make_case(Recipe(scheme=INT8WO, loader=loader)).build
    with pytest.raises(WorkerError, match=message):
        checkpoint.made(build, folder, torch.device("cpu"))


def test_a_fire_drill_cannot_drop_what_a_loaded_case_does_not_quantize(make_case: MakeCase) -> None:
    build = make_case(Recipe(scheme=INT8WO, loader=Loader.TORCH_SAVE)).build
    with pytest.raises(WorkerError, match="quantizes nothing, so that no quantization can be dropped"):
        apply.apply(None, build, drop=1)
