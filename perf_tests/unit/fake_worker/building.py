"""Answers to what is asked before the first image: load, quantize, save, package, compile."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from perf_tests.protocol.messages import (
    Compile,
    Compiled,
    FailureKind,
    Fault,
    Load,
    Loaded,
    Package,
    Packaged,
    Quantize,
    Quantized,
    Save,
    Saved,
)
from perf_tests.protocol.packages import LoadedPackages, Packages
from perf_tests.protocol.reports import (
    CompileCache,
    LayerError,
    ModuleGroup,
    Quantization,
    Recorded,
    TunedChoices,
    WeightCount,
)
from perf_tests.tables.cases import Case
from perf_tests.tables.recipes import CompileMode
from perf_tests.unit.fake_worker import quantizing
from perf_tests.unit.fake_worker.endings import Failed
from perf_tests.unit.fake_worker.generating import capture
from perf_tests.unit.fake_worker.pictures import write_arrays
from perf_tests.unit.fake_worker.subject import MODULES, Subject

CHECKPOINT = "transformer/transformer.pt"
PACKAGE = "Block.pt2"


def load(subject: Subject, request: Load) -> Loaded:
    """Load what was saved, or make it."""
    subject.device = request.device
    subject.is_loaded = request.checkpoint is not None
    if request.checkpoint is not None and not (Path(request.checkpoint) / CHECKPOINT).exists():
        raise Failed(FailureKind.LOAD, f"there is no {request.checkpoint}")
    subject.amounts = {injection.fault: injection.amount or 0.0 for injection in request.injections}
    pipeline = hashlib.sha256(request.case.build.pipeline.id.encode()).hexdigest()
    weights = {"transformer.proj_out.weight": pipeline}
    if subject.has("huge-reply"):
        weights |= {f"tensor.{number}": "0" * 64 for number in range(5000)}
    return Loaded(seconds=0.5, memory=subject.window(300.0), weights=weights)


def quantize(subject: Subject, request: Quantize) -> Quantized:
    """Quantize, and record what the bf16 pipeline answers."""
    if subject.has("refused-scheme"):
        raise Failed(FailureKind.UNSUPPORTED, "this torchao has no config of that name")
    is_quantized = subject.case.build.recipe.scheme.weight is not None
    subject.groups = _groups(subject)
    subject.probed = request.probe
    return Quantized(
        seconds=0.25,
        memory=subject.window(320.0),
        quantization=_quantization(subject),
        layers=_layers(subject) if request.layers and is_quantized else {},
        recorded={each.case.id: _recorded(subject, each.case, each.stem) for each in request.traces},
        fidelity_s=1e-6 if request.traces else 0.0,  # less than the answer takes, of which it is a part
        state=subject.state,
        tensors=_tensors(subject) if request.tensors else {},
        converted=0 if subject.is_loaded and not subject.has("quantizes-again") else subject.quantized,
    )


def save(subject: Subject, request: Save) -> Saved:
    """Write a checkpoint."""
    path = Path(request.folder) / CHECKPOINT
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    return Saved(seconds=0.5, files={CHECKPOINT: _grown(subject, subject.weight_bytes + 600)})


def package(subject: Subject, request: Package) -> Packaged:
    """Write the package of a compiled block."""
    (Path(request.folder) / PACKAGE).write_bytes(b"package")
    size = _grown(subject, 3_000_000)
    return Packaged(packages=Packages(export_s=1.5, compile_s=20.0, files={PACKAGE: size}))


def compile_blocks(subject: Subject, request: Compile) -> Compiled:
    """Load packages, or compile: quickly where the cache or the artifacts have it already."""
    if not subject.compiles:
        packages = _packages(subject, request.packages)
        return Compiled(seconds=0.125, memory=subject.window(330.0), cache=None, packages=packages)
    marker = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) / f"graph.{subject.case.digest}"
    file = None if request.artifacts is None else Path(request.artifacts)
    done = None if file is None else "loaded" if file.exists() else "saved"
    warm = marker.exists() or done == "loaded"
    for written in (marker, file):
        if written is not None:
            written.parent.mkdir(parents=True, exist_ok=True)
            written.touch()
    tuned = None if warm else _tuned(subject, request.tuned)
    cache = CompileCache(
        hits=2 if warm else 0, misses=0 if warm else 2, bypasses=0, artifacts=done, tuned=tuned
    )
    tuning_s = 160.0 if tuned and tuned.misses else 0.0
    return Compiled(seconds=1.5 if warm else 6.0 + tuning_s, memory=subject.window(350.0), cache=cache)


# What is quantized


def _groups(subject: Subject) -> tuple[ModuleGroup, ...]:
    scheme = subject.case.build.recipe.scheme
    weight = scheme.weight
    plain = ModuleGroup(
        component="transformer",
        subclass="Parameter",
        dtype=scheme.dtype,
        scale=None,
        dynamic_activation=False,
        count=MODULES if weight is None else subject.dropped,
        examples=("transformer_blocks.0.attn.to_q",),
    )
    groups = [plain] if plain.count else []
    if weight is not None:
        groups.append(
            ModuleGroup(
                component="transformer",
                subclass=weight.subclass,
                dtype=weight.dtype,
                scale=weight.granularity,
                dynamic_activation=weight.dynamic_activation,
                activation=subject.argument("activations") or weight.activation,
                count=subject.quantized,
                examples=("transformer_blocks.0.attn.to_k",),
            )
        )
    return tuple(groups)


def _quantization(subject: Subject) -> Quantization:
    on_device = subject.has("stays-on-device") or quantizing.begins_on_device(subject)
    device = "cuda" if on_device else "cpu"
    return Quantization(
        expected_modules=0 if subject.case.build.recipe.scheme.weight is None else MODULES,
        groups=subject.groups,
        excluded=dict.fromkeys(subject.case.build.exclusions, 1),
        unquantized=tuple(f"transformer_blocks.{number}.attn.to_q" for number in range(subject.dropped)),
        weights=WeightCount(elements=1, scales=1, other_bytes=0, device=device),
    )


def _layers(subject: Subject) -> dict[str, LayerError]:
    gain = 1.0 + subject.amounts.get(Fault.SCALE, 0.0) / 100
    return {
        f"transformer.transformer_blocks.{number}.attn.to_q": LayerError(
            sqnr_db=40.0,
            gain=gain if number == MODULES // 2 else 1.0,
            worst_row_sqnr_db=30.0,
            worst_row_gain=1.002,
            scale_error=0.001,
        )
        for number in range(subject.dropped, MODULES)
    }


def _recorded(subject: Subject, case: Case, stem: str) -> Recorded:
    compiled = subject.compiles and case.is_reference and case.build.recipe.rounds_as_eager
    picture = capture(subject, f"{stem}.eager", case) if compiled else None
    return Recorded(arrays=write_arrays(f"{stem}.eager.npz", noise=0.0), picture=picture)


def _tensors(subject: Subject) -> dict[str, str]:
    proj_out = "other" if subject.has("other-tensor") else "same"
    return {"transformer.proj_out.weight": proj_out, "transformer.norm.weight": "same"}


# Files


def _grown(subject: Subject, size: int) -> int:
    """Bytes of a file that holds so many."""
    return round(size * (1 + subject.number("grown-file") / 100))


def _packages(subject: Subject, folder: str | None) -> LoadedPackages | None:
    if not subject.case.build.recipe.is_packaged:
        return None
    if folder is None or not (Path(folder) / PACKAGE).exists():
        raise Failed(FailureKind.LOAD, f"there are no packages in {folder}")
    added_mib = 40.0 if subject.has("copies-weights") else 1.0
    return LoadedPackages(
        seconds=0.25, first_s=0.125, blocks={"Block": 4}, constant_mib=40.0, added_mib=added_mib
    )


def _tuned(subject: Subject, folder: str | None) -> TunedChoices | None:
    recipe = subject.case.build.recipe
    times_kernels = any(setting.tuning_s for setting in recipe.settings)
    if not times_kernels and recipe.compile is not CompileMode.MAX_AUTOTUNE:
        return None
    # All cases are of the same five shapes.
    file = None if folder is None else Path(folder) / "fake-device"
    if file is not None and file.exists():
        return TunedChoices(hits=5, misses=0)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return TunedChoices(hits=0, misses=5)
