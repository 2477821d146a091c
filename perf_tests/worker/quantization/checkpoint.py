"""Quantized transformers on disk: saved by one process, loaded by another, in each of the usual ways."""

from __future__ import annotations

import enum
import pickle
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.cases import Build
from perf_tests.tables.recipes import Loader
from perf_tests.worker.model import build as model
from perf_tests.worker.model.lazy import construct, resolve
from perf_tests.worker.quantization import apply

TRANSFORMER = "transformer"
"""The component that is saved, in a folder of this name."""
WEIGHTS = (".pt", ".safetensors")
"""How the names of files end that hold weights."""
UNQUANTIZED = "unquantized"
"""The folder of the weights that a library reads and quantizes by itself; gone once that is done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way to save and to load."""

    write: Callable[[Any, Path], None]
    """Writes the transformer of a pipeline into a folder that exists."""
    read: Callable[[Build, Path, torch.device], Any]
    """The pipeline of a build, on the device, with the transformer in that folder."""
    quantize: Callable[[Build, Path, torch.device], Any] | None = None
    """The pipeline to write, where the way quantizes with functions of its own, and needs a folder for that;
    None where it writes what the worker has quantized."""


def save(pipeline: Any, build: Build, folder: Path, device: torch.device) -> tuple[float, dict[str, int]]:
    """Write the quantized transformer of `pipeline` into `folder` as `build` loads it.

    Returns the seconds that writing took, and path -> bytes of what was written. Raises what the libraries
    raise for tensors that they cannot write.
    """
    way = WAYS[build.recipe.loader]
    folder.mkdir(parents=True)
    if way.quantize:
        pipeline = way.quantize(build, folder / UNQUANTIZED, device)
        shutil.rmtree(folder / UNQUANTIZED)
    started_s = time.perf_counter()
    way.write(pipeline, folder)
    seconds = time.perf_counter() - started_s
    # Not those of other components, which a pipeline is saved with, nor JSON, which names folders.
    files = [each for each in (folder / TRANSFORMER).iterdir() if each.suffix in WEIGHTS]
    return seconds, {str(each.relative_to(folder)): each.stat().st_size for each in sorted(files)}


def made(build: Build, folder: str | None, device: torch.device) -> Any:
    """The pipeline of `build` on `device`: where the recipe loads the transformer, with the one that another
    process wrote into `folder`, else unquantized.

    Raises WorkerError(load) where a folder is missing, or was not to be loaded.
    """
    if build.recipe.is_loaded is (folder is None):
        asked = "loads its transformer" if build.recipe.is_loaded else "makes its own transformer"
        message = f"the recipe {build.recipe.id} {asked}, and the folder to load it from is {folder}"
        raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.LOAD, message=message))
    if folder is None:
        return model.build(build, device)
    pipeline = WAYS[build.recipe.loader].read(build, Path(folder), device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# torch.save, and torchao's safetensors


class _EnumsByValue:
    """In place of the module `pickle`: members of enumerations are written as their class and value.

    So do all versions of Python but 3.11.0 to 3.11.2, which write a call of `getattr`, and `weights_only`
    refuses that: no file could be loaded there whose tensors know, like torchao's, their mapping or kernel.
    """

    class Pickler(pickle.Pickler):
        def reducer_override(self, member: Any) -> Any:
            """What `member` is made from; NotImplemented for what the usual way is right for."""
            return (type(member), (member.value,)) if isinstance(member, enum.Enum) else NotImplemented


def _write_pickle(pipeline: Any, folder: Path) -> None:
    torch.save(pipeline.transformer.state_dict(), _file(folder, "pt"), pickle_module=_EnumsByValue)


def _read_pickle(build: Build, folder: Path, device: torch.device) -> Any:
    state = torch.load(_file(folder, "pt"), map_location=_indexed(device), weights_only=True)
    return _assembled(build, state, device)


def _indexed(device: torch.device) -> torch.device:
    """The same with its index: a tensor subclass takes what it is mapped to for its device, and `cuda` is not
    the `cuda:0` of what it is made of, so that no parameter could be made from it."""
    return torch.empty(0, device=device).device


def _write_safetensors(pipeline: Any, folder: Path) -> None:
    from safetensors.torch import save_file
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    tensors, metadata = flatten_tensor_state_dict(pipeline.transformer.state_dict())
    save_file(tensors, _file(folder, "safetensors"), metadata=metadata)


def _read_safetensors(build: Build, folder: Path, device: torch.device) -> Any:
    from safetensors import safe_open
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict

    with safe_open(_file(folder, "safetensors"), framework="pt", device=str(device)) as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 # it is no dict
    state, _ = unflatten_tensor_state_dict(tensors, metadata)
    return _assembled(build, state, device)


def _file(folder: Path, suffix: str) -> Path:
    # torch writes the name into the file, whose size depends on it.
    file = folder / TRANSFORMER / f"{TRANSFORMER}.{suffix}"
    file.parent.mkdir(exist_ok=True)
    return file


def _assembled(build: Build, state: Mapping[str, torch.Tensor], device: torch.device) -> Any:
    transformer = model.empty(build.pipeline.modules[TRANSFORMER])
    # Strict: a name that is missing on either side raises.
    transformer.load_state_dict(state, assign=True)
    return model.build(build, device, given={TRANSFORMER: transformer.to(device)})


# diffusers


def _quantized_transformer(build: Build, folder: Path, device: torch.device) -> Any:
    unquantized = model.build(build, device)
    unquantized.transformer.save_pretrained(folder)
    transformer = _from_pretrained(build, folder, device, quantization_config=_config(build, unquantized))
    return model.build(build, device, given={TRANSFORMER: transformer})


def _write_transformer(pipeline: Any, folder: Path) -> None:
    pipeline.transformer.save_pretrained(folder / TRANSFORMER)


def _read_transformer(build: Build, folder: Path, device: torch.device) -> Any:
    transformer = _from_pretrained(build, folder / TRANSFORMER, device)
    return model.build(build, device, given={TRANSFORMER: transformer})


def _from_pretrained(build: Build, folder: Path, device: torch.device, **keywords: Any) -> nn.Module:
    # Not `device_map={"": device}`, which leaves everything unquantized on a CPU.
    transformer: nn.Module = resolve(build.pipeline.modules[TRANSFORMER].cls).from_pretrained(
        folder, torch_dtype=_dtype(build), device_map=str(device), **keywords
    )
    return transformer.requires_grad_(False)


def _quantized_pipeline(build: Build, folder: Path, device: torch.device) -> Any:
    unquantized = model.build(build, device)
    unquantized.save_pretrained(folder)
    mapping = {TRANSFORMER: _config(build, unquantized)}
    config = resolve("diffusers:PipelineQuantizationConfig")(quant_mapping=mapping)
    return resolve(build.pipeline.cls).from_pretrained(
        folder, dtype=_dtype(build), quantization_config=config
    )


def _write_pipeline(pipeline: Any, folder: Path) -> None:
    pipeline.save_pretrained(folder)


def _read_pipeline(build: Build, folder: Path, device: torch.device) -> Any:
    pipeline = resolve(build.pipeline.cls).from_pretrained(folder, dtype=_dtype(build)).to(device)
    for module in model.components(pipeline).values():
        module.requires_grad_(False)
    return pipeline


def _config(build: Build, unquantized: Any) -> Any:
    config = build.config_of(build.recipe.scheme)
    assert config is not None, "a recipe that quantizes nothing has nothing to configure"
    targets = dict(apply.quantizable(unquantized, build))
    left = [name for name, _ in apply.linear_modules(unquantized) if name not in targets]
    prefix = f"{TRANSFORMER}."
    names = [name.removeprefix(prefix) for name in left if name.startswith(prefix)]
    return resolve("diffusers:TorchAoConfig")(construct(config), modules_to_not_convert=names)


def _dtype(build: Build) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, build.recipe.scheme.dtype)
    return dtype


WAYS: Mapping[Loader, Way] = {
    Loader.TORCH_SAVE: Way(write=_write_pickle, read=_read_pickle),
    Loader.SAFETENSORS: Way(write=_write_safetensors, read=_read_safetensors),
    Loader.TORCHAO_CONFIG: Way(
        write=_write_transformer, read=_read_transformer, quantize=_quantized_transformer
    ),
    Loader.PIPELINE_CONFIG: Way(write=_write_pipeline, read=_read_pipeline, quantize=_quantized_pipeline),
}
"""Every way but the default, which loads nothing."""
