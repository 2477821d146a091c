"""A case's pipeline on the device, unquantized, with weights from the hub or computed ones."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.cases import Build, Weights
from perf_tests.tables.pipelines.spec import Module, PipelineSpec
from perf_tests.tables.recipes import bf16_twin
from perf_tests.worker.model import noise, synthetic
from perf_tests.worker.model.lazy import construct, resolve
from perf_tests.worker.model.tokenizers import offline

Given = Mapping[str, nn.Module]
"""Component -> module that is already there, with its weights."""
NOTHING: Given = MappingProxyType({})


def build(case_build: Build, device: torch.device, given: Given = NOTHING) -> Any:
    """The pipeline of `case_build` on `device`, in its scheme's dtype, without progress bars.

    Components that are `given` become part of it as they are. It draws the noise of its reference, whatever
    its own dtype. Raises WorkerError(load) where pretrained weights are not in the local cache.
    """
    recipe = case_build.recipe
    dtype, drawn = (getattr(torch, each.scheme.dtype) for each in (recipe, bf16_twin(recipe)))
    pipeline = BUILDERS[case_build.weights](case_build.pipeline, dtype, device, given)
    pipeline.set_progress_bar_config(disable=True)
    noise.draw_in(pipeline, None if drawn is dtype else drawn)
    return pipeline


def components(pipeline: Any) -> dict[str, nn.Module]:
    """Name -> module, for every component with weights."""
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}


def empty(row: Module) -> nn.Module:
    """The component of `row` with its parameters on the meta device, that is, without values."""
    from accelerate import init_empty_weights

    cls = resolve(row.cls)
    # Parameters on the meta device, buffers (rotary tables, position ids) computed for real.
    with init_empty_weights(include_buffers=False):
        module = cls(**row.config) if row.config_cls is None else cls(resolve(row.config_cls)(**row.config))
    if row.config_cls is not None:
        # The empty-weights context copies each parameter that is registered, which unties shared embeddings.
        module.tie_weights()
    frozen: nn.Module = module.eval().requires_grad_(False)
    return frozen


class Alone:
    """A transformer that stands in for its pipeline, whose other components are not built."""

    def __init__(self, transformer: nn.Module) -> None:
        self.transformer = transformer

    @property
    def components(self) -> dict[str, nn.Module]:
        """As those of a pipeline."""
        return {"transformer": self.transformer}


def component(case_build: Build, name: str, device: torch.device) -> nn.Module:
    """One component of the pipeline of `case_build` on `device`, in its scheme's dtype, with the weights that
    it has there, and none of them to be trained.

    Raises WorkerError(load) where pretrained weights are not in the local cache.
    """
    dtype = getattr(torch, case_build.recipe.scheme.dtype)
    spec = case_build.pipeline
    if case_build.weights is Weights.SYNTHETIC:
        return _made(spec, name, dtype, device)
    module: nn.Module = _from_cache(spec, spec.modules[name].cls, dtype=dtype, subfolder=name).to(device)
    return module.requires_grad_(False)


def _made(spec: PipelineSpec, name: str, dtype: torch.dtype, device: torch.device) -> nn.Module:
    row = spec.modules[name]
    module = empty(row)
    synthetic.materialise(name, module, dtype=dtype, device=device, gains=row.gains)
    return module


def _synthetic(spec: PipelineSpec, dtype: torch.dtype, device: torch.device, given: Given) -> Any:
    assert spec.scheduler is not None, f"{spec.id} is no pipeline"
    parts: dict[str, Any] = {"scheduler": construct(spec.scheduler), **given}
    for name, tokenizer in spec.tokenizers.items():
        parts[name] = offline(tokenizer)
    for name in spec.modules:
        if name not in given:
            parts[name] = _made(spec, name, dtype, device)
    return resolve(spec.cls)(**parts, **spec.arguments)


def _pretrained(spec: PipelineSpec, dtype: torch.dtype, device: torch.device, given: Given) -> Any:
    pipeline = _from_cache(spec, spec.cls, dtype=dtype, **given)
    assert spec.scheduler is not None, f"{spec.id} is no pipeline"
    pipeline.scheduler = construct(spec.scheduler)
    return pipeline.to(device)


def _from_cache(spec: PipelineSpec, cls: str, **arguments: Any) -> Any:
    try:
        return resolve(cls).from_pretrained(
            spec.repo, revision=spec.revision, local_files_only=True, **arguments
        )
    except (OSError, ValueError) as error:
        licence = f"accept the licence at {spec.licence}, then " if spec.licence else ""
        message = (
            f"weights of {spec.repo} at revision {spec.revision} are not in the local cache (HF_HOME): "
            f"{licence}run `hf download {spec.repo} --revision {spec.revision}`"
        )
        failure = Failure(kind=FailureKind.LOAD, phase=Phase.LOAD, message=message, details=str(error))
        raise WorkerError(failure) from error


BUILDERS = {Weights.SYNTHETIC: _synthetic, Weights.PRETRAINED: _pretrained}


def weight_digests(pipeline: Any) -> dict[str, str]:
    """Parameter name -> sha256 of each component's first matrix, which identifies a set of weights; without
    components that were loaded quantized."""
    digests = {}
    for name, module in components(pipeline).items():
        parameter, tensor = next((n, p) for n, p in module.named_parameters() if p.ndim >= 2)
        if type(tensor) is nn.Parameter:
            digests[f"{name}.{parameter}"] = synthetic.sha256(tensor)
    return digests
