"""A worker without torch: the real command line and protocol, and numbers that depend on the case alone.

The variable PERF_FAKE makes it misbehave. It holds `SWITCH[:ARGUMENT][@GLOB]`, several of them separated by
commas. A switch applies to the cases whose id matches GLOB, or to all cases.

    at the start, for every case        no-torch  die-on-start  hang-on-start  old-protocol  new-torch:MARKER
                                        dead-card:UUID (for every case on that card)
                                        platform:ID (on a card of that platform, not on an H100)
                                        instructions:SET (which vector instructions torch would use)
                                        versions:TORCH+TORCHAO (that it reports)
    instead of an answer                SWITCH:PHASE of empty-reply, garbage, wrong-type, exit, segfault,
                                        killed, hang, flood, escapes, excuses-itself, answers-twice;
                                        without PHASE at a timed generation
    at a timed generation               die-once:MARKER
    in the answers                      missing-metric:NAME  doubles:NAME[+NAME...] (counts or sizes)
                                        reports:NAME=VALUE (once, or with each generation)
                                        dequantizes (after the first image)  leaves-blocks-eager
                                        activations:HOW (they are quantized)
                                        huge-reply  refused-scheme  same-picture
                                        throttled:COUNT (the first timed generations on a GPU)
                                        busy-host:PERCENT (of a generation that tasks waited for a core)
                                        leaks:MIB  slows:PERCENT (more with each timed generation)
                                        slower:PERCENT
                                        stalls:COUNT (the timed generations from the third on)
                                        next-pair  one-step  captures-elsewhere  claims-terabytes
                                        one-hash:HASH (of every output)
                                        drifts:COUNT (other outputs after so many timed generations)
                                        never-repeats (another output each time)  ineffective-setting
                                        quantizes-again  stays-on-device  other-tensor  other-picture
                                        grown-file:PERCENT  compiles-packages  one-block-for-all
                                        copies-weights
                                        loses-hooks (after the first image)  decodes-otherwise
                                        keeps-weights:DEVICE (they are still there after the last image)

MARKER is a file: once it exists, `new-torch` reports another torch and `die-once` no longer dies; both
create it.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import math
import os
import random
import signal
import struct
import sys
import threading
import zipfile
import zlib
from array import array
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import msgspec

from perf_tests.protocol.base import Struct
from perf_tests.protocol.messages import (
    PHASE_OF_REQUEST,
    PROTOCOL_VERSION,
    Compile,
    Compiled,
    Failure,
    FailureKind,
    Fault,
    Generate,
    Generated,
    Inspect,
    Inspected,
    Load,
    Loaded,
    Package,
    Packaged,
    Phase,
    Quantize,
    Quantized,
    Ready,
    Reply,
    Request,
    Save,
    Saved,
    SwitchWorkload,
    WorkloadSwitched,
)
from perf_tests.protocol.offloading import MemorySaving, OffloadedComponent
from perf_tests.protocol.packages import LoadedPackages, Packages
from perf_tests.protocol.reports import (
    Arrays,
    Capture,
    CompileCache,
    ComponentState,
    Environment,
    Gpu,
    LayerError,
    MemoryWindow,
    ModuleGroup,
    PipelineState,
    Quantization,
    Recorded,
    Sample,
    SettingReport,
    StepReport,
    Telemetry,
    TunedChoices,
    WeightCount,
)
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.host_bound import is_busy_timed
from perf_tests.tables.metrics.spec import INSTRUCTION_SET, STEP_BUSY
from perf_tests.tables.pipelines.spec import PROMPTS
from perf_tests.tables.platforms import H100, PLATFORM_BY_ID, Device
from perf_tests.tables.recipes import CompileMode, Decoding
from perf_tests.worker import parent_watch

REQUESTS = msgspec.json.Decoder(Request)
OMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")
STEP_MS = 20.0
MODULES = 24
BYTES_PER_MODULE = 1 << 20
PEAK_MIB = 400.0
STEP_TFLOP = 1.0
STEP_BUSY_MS = 6.25
"""Of which a GPU computes in a denoise step that waits for the host."""
KERNELS = {"kernels_per_encode": 900.0, "kernels_per_step": 1530.0, "kernels_per_decode": 400.0}
OPERATORS = {"operators_per_encode": 1036.0, "operators_per_step": 2926.0, "operators_per_decode": 743.0}
QUANTIZING = {"operators_in_quantize": 4898.0, "quantize_peak_allocated_mib": 40.0}
HOST_SAVING = {"host_weights_mib": 48.0, "offload_set_up_s": 0.25}
SAVING = {
    **HOST_SAVING,
    "encode_peak_allocated_mib": 20.0,
    "denoise_peak_allocated_mib": 90.0,
    "decode_peak_allocated_mib": 60.0,
    "resident_mib": 0.25,
    "host_pinned_mib": 0.0,
    "h2d_bytes_per_image": 5e7,
    "d2h_bytes_per_image": 4e7,
    "copies_under_kernels_pct": 12.5,
    "resident_vs_largest": 0.005,
    "h2d_vs_needed": 1.0,
}
CHECKPOINT = "transformer/transformer.pt"
PACKAGE = "Block.pt2"
SIDE = 16
NOISE = 0.004
"""Standard deviation of what quantization does to a picture with values in [0, 1]."""
GPU = Gpu(
    name="NVIDIA H100 80GB HBM3",
    uuid="GPU-00000000-fake",
    capability=(9, 0),
    memory_gib=80.0,
    power_limit_w=700.0,
    driver="575.57",
)


class Failed(Exception):
    """A request that is answered with a failure."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Switches:
    """The parsed value of PERF_FAKE."""

    def __init__(self, text: str) -> None:
        self._switches = [self._parse(switch) for switch in text.split(",") if switch]

    @staticmethod
    def _parse(switch: str) -> tuple[str, str, str]:
        action, _, pattern = switch.partition("@")
        name, _, argument = action.partition(":")
        return name, argument, pattern or "*"

    def argument(self, name: str, case: Case | None = None) -> str | None:
        """The argument of the switch, None where the switch is off."""
        for switch, argument, pattern in self._switches:
            # Composing an id takes longer than all the rest of an answer.
            if switch == name and (pattern == "*" or (case is not None and fnmatchcase(case.id, pattern))):
                return argument
        return None

    def strikes(self, name: str, phase: Phase, case: Case) -> bool:
        """Whether the switch is on in `phase`; a switch without an argument is on while generating."""
        argument = self.argument(name, case)
        return argument is not None and (argument or Phase.GENERATE) == phase


class Session:
    """One fake build."""

    case: Case

    def __init__(self, switches: Switches) -> None:
        self._switches = switches
        self._amounts: dict[Fault, float] = {}
        self._device = Device.CPU
        self._probed = False
        self._timed = 0
        self._groups: tuple[ModuleGroup, ...] = ()
        self._is_loaded = False

    def load(self, request: Load) -> Loaded:
        self._device = request.device
        self._is_loaded = request.checkpoint is not None
        if request.checkpoint is not None and not (Path(request.checkpoint) / CHECKPOINT).exists():
            raise Failed(FailureKind.LOAD, f"there is no {request.checkpoint}")
        self._amounts = {injection.fault: injection.amount or 0.0 for injection in request.injections}
        weights = {"transformer.proj_out.weight": _sha256(request.case.build.pipeline.id)}
        if self._switches.argument("huge-reply", request.case) is not None:
            weights |= {f"tensor.{number}": "0" * 64 for number in range(5000)}
        return Loaded(seconds=0.5, memory=self._window(300.0), weights=weights)

    def quantize(self, request: Quantize) -> Quantized:
        if self._switches.argument("refused-scheme", self.case) is not None:
            raise Failed(FailureKind.UNSUPPORTED, "this torchao has no config of that name")
        weight = self.case.build.recipe.scheme.weight
        plain = ModuleGroup(
            component="transformer",
            subclass="Parameter",
            dtype=self.case.build.recipe.scheme.dtype,
            scale=None,
            dynamic_activation=False,
            count=MODULES if weight is None else self._dropped,
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
                    activation=self._switches.argument("activations", self.case) or weight.activation,
                    count=self._quantized,
                    examples=("transformer_blocks.0.attn.to_k",),
                )
            )
        quantization = Quantization(
            expected_modules=0 if weight is None else MODULES,
            groups=tuple(groups),
            excluded=dict.fromkeys(self.case.build.exclusions, 1),
            unquantized=tuple(f"transformer_blocks.{number}.attn.to_q" for number in range(self._dropped)),
            weights=self._weight_count(),
        )
        self._probed = request.probe
        return Quantized(
            seconds=0.25,
            memory=self._window(320.0),
            quantization=quantization,
            layers=self._layers() if request.layers and weight is not None else {},
            recorded={each.case.id: self._recorded(each.case, each.stem) for each in request.traces},
            fidelity_s=0.125 if request.traces else 0.0,
            state=self._state(tuple(groups)),
            tensors=self._tensors() if request.tensors else {},
            converted=self._converted,
        )

    def _weight_count(self) -> WeightCount:
        stays = self._switches.argument("stays-on-device", self.case) is not None
        return WeightCount(elements=1, scales=1, other_bytes=0, device="cuda" if stays else "cpu")

    def _tensors(self) -> dict[str, str]:
        other = self._switches.argument("other-tensor", self.case) is not None
        return {
            "transformer.proj_out.weight": "other" if other else "same",
            "transformer.norm.weight": "same",
        }

    @property
    def _converted(self) -> int:
        again = self._switches.argument("quantizes-again", self.case) is not None
        return 0 if self._is_loaded and not again else self._quantized

    def save(self, request: Save) -> Saved:
        grown = 1 + self._number("grown-file") / 100
        path = Path(request.folder) / CHECKPOINT
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")
        weight_bytes = (2 * MODULES - self._quantized) * BYTES_PER_MODULE
        return Saved(seconds=0.5, files={CHECKPOINT: round((weight_bytes + 600) * grown)})

    def package(self, request: Package) -> Packaged:
        (Path(request.folder) / PACKAGE).write_bytes(b"package")
        size = round(3_000_000 * (1 + self._number("grown-file") / 100))
        return Packaged(packages=Packages(export_s=1.5, compile_s=20.0, files={PACKAGE: size}))

    def _packages(self, folder: str | None) -> LoadedPackages | None:
        if not self.case.build.recipe.is_packaged:
            return None
        if folder is None or not (Path(folder) / PACKAGE).exists():
            raise Failed(FailureKind.LOAD, f"there are no packages in {folder}")
        copies = self._switches.argument("copies-weights", self.case) is not None
        return LoadedPackages(
            seconds=0.25, blocks={"Block": 4}, constant_mib=40.0, added_mib=40.0 if copies else 1.0
        )

    def _state(self, groups: tuple[ModuleGroup, ...]) -> PipelineState:
        self._groups = groups
        transformer = ComponentState(
            weight_bytes=(2 * MODULES - self._quantized) * BYTES_PER_MODULE,
            checksum=1,
            convolutions=2,
            channels_last=2 if self.case.build.recipe.channels_last else 0,
        )
        return PipelineState(components={"transformer": transformer}, groups=groups)

    def _step(self) -> StepReport:
        eager = self.case.build.recipe.compile is CompileMode.EAGER
        left = self._switches.argument("leaves-blocks-eager", self.case) is not None
        return StepReport(
            blocks={"Block": 4 if eager or left else 0}, attention={"_scaled_dot_product_flash": 4}
        )

    def _recorded(self, case: Case, stem: str) -> Recorded:
        compiled = self._compiles and case.is_reference and case.build.recipe.rounds_as_eager
        picture = self._capture(f"{stem}.eager", case) if compiled else None
        return Recorded(arrays=self._arrays(f"{stem}.eager.npz", noise=0.0), picture=picture)

    def _arrays(self, file: str, noise: float) -> Arrays:
        path, shape = Path(file), (SIDE, SIDE, 3)
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as opened:
            for name, copies in (("answers.npy", (5,)), ("latents.npy", ())):
                # Its time is fixed: the same content has the same hash whenever it is written.
                opened.writestr(zipfile.ZipInfo(name), _npy(_picture(noise), copies, shape))
        return Arrays(file=file, sha256=hashlib.sha256(path.read_bytes()).hexdigest())

    def _layers(self) -> dict[str, LayerError]:
        gain = 1.0 + self._amounts.get(Fault.SCALE, 0.0) / 100
        return {
            f"transformer.transformer_blocks.{number}.attn.to_q": LayerError(
                sqnr_db=40.0,
                gain=gain if number == MODULES // 2 else 1.0,
                worst_row_sqnr_db=30.0,
                worst_row_gain=1.002,
                scale_error=0.001,
            )
            for number in range(self._dropped, MODULES)
        }

    def compile(self, request: Compile) -> Compiled:
        if not self._compiles:
            packages = self._packages(request.packages)
            return Compiled(seconds=0.125, memory=self._window(330.0), cache=None, packages=packages)
        marker = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) / f"graph.{self.case.digest}"
        file = None if request.artifacts is None else Path(request.artifacts)
        done = None if file is None else "loaded" if file.exists() else "saved"
        warm = marker.exists() or done == "loaded"
        for written in (marker, file):
            if written is not None:
                written.parent.mkdir(parents=True, exist_ok=True)
                written.touch()
        tuned = None if warm else self._tuned(request.tuned)
        cache = CompileCache(
            hits=2 if warm else 0, misses=0 if warm else 2, bypasses=0, artifacts=done, tuned=tuned
        )
        tuning_s = 160.0 if tuned and tuned.misses else 0.0
        return Compiled(seconds=1.5 if warm else 6.0 + tuning_s, memory=self._window(350.0), cache=cache)

    def _tuned(self, folder: str | None) -> TunedChoices | None:
        recipe = self.case.build.recipe
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

    def generate(self, request: Generate) -> Generated:
        if not request.warmup:
            self._strike()
        self._timed += not request.warmup
        values = {
            name: tuple(value * self._slower for value in spans) for name, spans in self._times().items()
        }
        values = {
            name: spans
            for name, spans in (values | self._live() | self._counts()).items()
            if name != self._switches.argument("missing-metric", self.case)
        }
        capture = self._capture(request.capture, self.case) if request.capture else None
        telemetry = self._telemetry(request.warmup) if self._device is Device.CUDA else None
        if self._switches.argument("one-step", self.case) is not None:
            values["denoise_step_ms"] = values["denoise_step_ms"][:1]
        sample = Sample(
            values=values,
            output_sha256=self._switches.argument("one-hash", self.case) or self._output_sha256(),
            telemetry=telemetry,
            pair=request.pair + (self._switches.argument("next-pair", self.case) is not None),
        )
        return Generated(sample=sample, capture=capture)

    def _telemetry(self, warmup: bool) -> Telemetry:
        throttled = not warmup and self._timed <= int(self._switches.argument("throttled", self.case) or 0)
        return msgspec.structs.replace(
            TELEMETRY,
            throttled_ms={"hw_thermal": 12.5} if throttled else {},
            cpu_pressure_pct=self._number("busy-host") or None,
        )

    @property
    def _slower(self) -> float:
        """Times as slow as it should be."""
        slows_pct = self._number("slows") * max(0, self._timed - 1)
        stalls = 2.0 if 3 <= self._timed < 3 + self._number("stalls") else 1.0
        slower = 1 + self._number("slower") / 100
        return slower * stalls * (1 + self._amounts.get(Fault.LATENCY, 0.0) / 100) * (1 + slows_pct / 100)

    def _live(self) -> dict[str, tuple[float, ...]]:
        mib = 300.0 + self._number("leaks") * self._timed
        return {"live_allocated_mib": (mib,), "live_host_mib": (mib,)}

    def _number(self, switch: str) -> float:
        return float(self._switches.argument(switch, self.case) or 0)

    def inspect(self, request: Inspect) -> Inspected:
        weight_bytes = (2 * MODULES - self._quantized) * BYTES_PER_MODULE
        peak_mib = PEAK_MIB * (1 + self._amounts.get(Fault.MEMORY, 0.0) / 100)
        values = {
            "quantized_modules": float(self._quantized),
            "weight_bytes": float(weight_bytes),
            "model_memory_mib": weight_bytes / 2**20,
            "compiled_graphs": 2.0 if self._compiles else 0.0,
            "graph_breaks": 0.0,
            "recompiles": 0.0,
            "distinct_prompt_embeddings": float(PROMPTS),
            "distinct_prompt_latents": 2.0,
            "unfused_attention_calls": 0.0,
            "peak_rss_mib": peak_mib,
            "step_tflop": STEP_TFLOP,
            **{f"{name}_bytes": float(BYTES_PER_MODULE) for name in self.case.build.pipeline.modules},
            "transformer_bytes": float(weight_bytes),
        }
        sqnr_db = self.case.build.recipe.scheme.output_sqnr_db
        if self._quantized:
            values["weight_bytes_vs_implied"] = 1.0
        if self._probed and sqnr_db is not None:
            values["output_sqnr_db"] = (sqnr_db.low + sqnr_db.high) / 2
        if self.case.is_reference:
            values |= {
                "anchor_schedule": 0.0,
                "anchor_embeds_sqnr_db": 60.0,
                "anchor_sqnr_db": 60.0,
                "anchor_latents_sqnr_db": 60.0,
                "anchor_picture_sqnr_db": 60.0,
            }
        values |= self._work(peak_mib)
        if self._compiles:
            values |= {"generated_kernels": 126.0, "extern_calls": 32.0}
        if self.case.build.recipe.saves_memory:
            values |= SAVING if self._device is Device.CUDA else HOST_SAVING
        if self.case.build.recipe.is_packaged:
            compiles = self._switches.argument("compiles-packages", self.case) is not None
            alike = self._switches.argument("one-block-for-all", self.case) is None
            values["generated_kernels"] = 12.0 if compiles else 0.0
            values["package_sqnr_db"] = 48.8 if alike else -1.9
        values.pop(self._switches.argument("missing-metric", self.case) or "", None)
        values = {name: self._reported(name, value) for name, value in values.items()}
        noise = NOISE if self._quantized else 0.0
        arrays = self._arrays(f"{request.trace}.timed.npz", noise) if request.trace else None
        dequantized = self._switches.argument("dequantizes", self.case) is not None
        plain = tuple(
            msgspec.structs.replace(each, subclass="Parameter", scale=None) for each in self._groups
        )
        state = self._state(plain if dequantized else self._groups)
        return Inspected(
            values=values,
            memory=self._window(peak_mib),
            arrays=arrays,
            state=state,
            step=self._step(),
            settings=self._settings(),
            memory_saving=self._saving() if self.case.build.recipe.saves_memory else None,
        )

    def _work(self, peak_mib: float) -> dict[str, float]:
        """What the device is counted to do, and the peaks that only a GPU has."""
        if self._device is Device.CPU:
            return {**OPERATORS, **(QUANTIZING if self._quantized else {})}
        peaks = dict.fromkeys(("peak_allocated_mib", "peak_reserved_mib", "peak_device_mib"), peak_mib)
        busy = {STEP_BUSY: STEP_BUSY_MS} if is_busy_timed(self.case) else {}
        return {**peaks, **KERNELS, **busy}

    def _saving(self) -> MemorySaving:
        recipe, batch = self.case.build.recipe, self.case.workload.batch_size
        otherwise = self._switches.argument("decodes-otherwise", self.case) is not None
        tiled = (recipe.decoding is Decoding.TILED) is not otherwise
        parts = batch if recipe.decoding is Decoding.SLICED else 1
        decodes = {"decode": 1, "_decode": parts, "tiled_decode": parts * tiled}
        if recipe.offload is None:
            return MemorySaving(set_up={}, final={}, decodes=decodes)
        moved = OffloadedComponent(
            hooks={recipe.offload.hook: 7},
            unmoved_bytes=0,
            bytes_on={recipe.offload.waits_on: BYTES_PER_MODULE},
        )
        final, kept = moved, self._switches.argument("keeps-weights", self.case)
        if self._switches.argument("loses-hooks", self.case) is not None:
            final = msgspec.structs.replace(moved, hooks={}, unmoved_bytes=BYTES_PER_MODULE)
        if kept is not None:
            final = msgspec.structs.replace(moved, bytes_on={kept: BYTES_PER_MODULE})
        names = self.case.build.pipeline.modules
        return MemorySaving(
            set_up=dict.fromkeys(names, moved), final=dict.fromkeys(names, final), decodes=decodes
        )

    def _settings(self) -> dict[str, SettingReport]:
        ineffective = self._switches.argument("ineffective-setting", self.case) is not None
        return {
            setting.id: SettingReport(
                inductor={name: str(value) for name, value in setting.inductor.items()},
                kernels=None if setting.kernels is None else 0 if ineffective else 7,
            )
            for setting in self.case.build.recipe.settings
        }

    @property
    def _compiles(self) -> bool:
        return self.case.build.recipe.compiles

    @property
    def _dropped(self) -> int:
        return int(self._amounts.get(Fault.DROP_QUANTIZATION, 0.0))

    @property
    def _quantized(self) -> int:
        return 0 if self.case.build.recipe.scheme.weight is None else MODULES - self._dropped

    def _window(self, mib: float) -> MemoryWindow:
        on_gpu = mib if self._device is Device.CUDA else None
        return MemoryWindow(allocated_mib=on_gpu, reserved_mib=on_gpu, device_mib=on_gpu, rss_mib=mib)

    def _times(self) -> dict[str, tuple[float, ...]]:
        recipe, steps = self.case.build.recipe, self.case.workload.generated_steps
        eager = recipe.compile is CompileMode.EAGER and not recipe.compile_vae
        faster = (0.5 if recipe.scheme.weight else 1.0) * (1.0 if eager else 0.5)
        step_ms = (
            STEP_MS
            * self.case.workload.batch_size
            * faster
            * (2.0 if recipe.scheme.dtype == "float32" else 1.0)
        )
        times = {
            "encode_ms": (5.0,),
            "first_step_ms": (step_ms * 1.1,),
            "denoise_step_ms": (step_ms,) * (steps - 1),
            "decode_ms": (10.0,),
            "latency_s": ((15.0 + step_ms * (steps + 0.1)) / 1000,),
        }
        return {**times, "device_latency_s": times["latency_s"]}

    def _counts(self) -> dict[str, tuple[float, ...]]:
        calls = {
            "transformer_calls": self.case.workload.generated_steps,
            "decode_calls": 1,
            **{f"{name}_calls": n for name, n in self.case.build.pipeline.encoder_calls.items()},
        }
        return {
            **{name: (self._reported(name, float(n)),) for name, n in calls.items()},
            "batch_psnr_db": (self._reported("batch_psnr_db", 12.0),),
        }

    def _reported(self, name: str, value: float) -> float:
        reported, _, instead = (self._switches.argument("reports", self.case) or "").partition("=")
        twice = name in (self._switches.argument("doubles", self.case) or "").split("+")
        return float(instead) if reported == name else value * 2 if twice else value

    def _strike(self) -> None:
        """Apply the faults that spoil a timed generation, like the real worker."""
        marker = self._switches.argument("die-once", self.case)
        if marker is not None and not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        for fault in self._amounts:
            STRIKES.get(fault, _nothing)()

    def _output(self, case: Case) -> tuple[array[float], tuple[int, ...]]:
        """The picture, and the shape of the copies of it that one generation of `case` makes."""
        workload = case.workload
        same = self._switches.argument("same-picture", case) is not None
        quantized = case.build.recipe.scheme.weight is not None and not same
        frames = () if workload.num_frames is None else (workload.num_frames,)
        return _picture(noise=NOISE if quantized else 0.0), (workload.batch_size, *frames)

    def _output_sha256(self) -> str:
        picture, copies = self._output(self.case)
        drifts = self._switches.argument("drifts", self.case)
        if drifts is not None and self._timed > int(drifts):
            return _sha256("drifted")
        if self._switches.argument("never-repeats", self.case) is not None:
            return _sha256(f"{os.getpid()} {self._timed}")
        if self._switches.argument("other-picture", self.case) is not None:
            return _sha256("another picture")
        return hashlib.sha256(picture.tobytes() * math.prod(copies)).hexdigest()

    def _capture(self, path: str, case: Case) -> Capture:
        if self._switches.argument("captures-elsewhere", self.case) is not None:
            path = f"{path}.elsewhere"
        picture, copies = self._output(case)
        array_path, image_path = Path(f"{path}.npy"), Path(f"{path}.png")
        array_path.parent.mkdir(parents=True, exist_ok=True)
        content = _npy(picture, copies, (SIDE, SIDE, 3))
        if self._switches.argument("claims-terabytes", self.case) is not None:
            content = _npy(array("f"), (), (1_000_000, 1_000_000, 3))
        array_path.write_bytes(content)
        image_path.write_bytes(_png(bytes(round(value * 255) for value in picture), SIDE, SIDE))
        digest = hashlib.sha256(array_path.read_bytes()).hexdigest()
        return Capture(array=str(array_path), sha256=digest, image=str(image_path))


TELEMETRY = Telemetry(
    sm_clock_mhz=1980.0,
    memory_clock_mhz=2619.0,
    power_w=650.0,
    temperature_c=55.0,
    throttle_reasons=(),
    throttled_ms={},
    compute_processes=1,
    device_used_mib=PEAK_MIB,
)


def main() -> None:
    """Read the command line of a worker, then `serve`."""
    parser = argparse.ArgumentParser(prog="python -m perf_tests.unit.fake_worker")
    parser.add_argument("--request-fd", type=int, required=True)
    parser.add_argument("--reply-fd", type=int, required=True)
    arguments = parser.parse_args()
    serve(arguments.request_fd, arguments.reply_fd)


def serve(request_fd: int, reply_fd: int) -> None:
    """Send Ready, then answer requests until the pipe closes or a request fails."""
    parent_watch.hold(request_fd)
    switches = Switches(os.environ.get("PERF_FAKE", ""))
    with os.fdopen(request_fd, "rb") as requests, os.fdopen(reply_fd, "wb", buffering=0) as replies:
        _send(replies, msgspec.json.encode(ready(switches)))
        session = Session(switches)
        for line in requests:
            reply = _answer(session, switches, REQUESTS.decode(line))
            _send(replies, reply if isinstance(reply, bytes) else msgspec.json.encode(reply))
            if isinstance(reply, Failure):
                return


def ready(switches: Switches) -> Ready:
    """What the worker says of itself before it is asked anything."""
    if switches.argument("no-torch") is not None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    if switches.argument("die-on-start") is not None:
        sys.exit(3)
    dead = switches.argument("dead-card")
    if dead is not None and dead == os.environ.get("CUDA_VISIBLE_DEVICES"):
        sys.exit("CUDA error: device not ready")
    if switches.argument("hang-on-start") is not None:
        _hang()
    torch, _, torchao = (switches.argument("versions") or "2.13.0+0.18.0").partition("+")
    if (marker := switches.argument("new-torch")) is not None:
        torch = "2.14.0" if Path(marker).exists() else torch
        Path(marker).touch()
    environment = Environment(
        python="3.11.7",
        packages={"torch": torch, "torchao": torchao, "diffusers": "0.42.1"},
        gpu=_gpu(os.environ.get("CUDA_VISIBLE_DEVICES"), switches.argument("platform")),
        cpu_model="fake processor",
        cpu_count=2,
        settings={"float32_matmul_precision": "highest"} | _instructions(switches),
        variables={name: os.environ[name] for name in OMP if name in os.environ},
    )
    old = switches.argument("old-protocol") is not None
    return Ready(protocol_version=0 if old else PROTOCOL_VERSION, environment=environment)


def _instructions(switches: Switches) -> dict[str, str]:
    found = switches.argument("instructions")
    return {INSTRUCTION_SET: found} if found else {}


def _gpu(visible: str | None, platform_id: str | None) -> Gpu | None:
    """The card that is shown by its UUID, else always the same one; None where none is shown."""
    if visible == "":
        return None
    match = PLATFORM_BY_ID[platform_id or H100.id].gpu
    assert match is not None, f"{platform_id} has no card"
    return msgspec.structs.replace(
        GPU,
        name=match.name,
        uuid=visible if visible and visible.startswith("GPU-") else GPU.uuid,
        capability=match.capability,
        memory_gib=sum(match.memory_gib) / 2,
        power_limit_w=sum(match.power_limit_w) / 2,
    )


def _answer(session: Session, switches: Switches, request: Request) -> Reply | bytes:
    if isinstance(request, Load | SwitchWorkload):
        session.case = request.case
    phase = PHASE_OF_REQUEST[type(request)]
    warming_up = isinstance(request, Generate) and request.warmup
    for name, instead in INSTEAD.items():
        if not warming_up and switches.strikes(name, phase, session.case):
            return instead()
    try:
        return _handle(session, request)
    except Failed as failed:
        return Failure(kind=failed.kind, phase=phase, message=str(failed))


def _handle(session: Session, request: Request) -> Reply:
    handlers: dict[type[Struct], Callable[[Any], Reply]] = {
        Load: session.load,
        Quantize: session.quantize,
        Save: session.save,
        Package: session.package,
        Compile: session.compile,
        Generate: session.generate,
        SwitchWorkload: lambda _: WorkloadSwitched(seconds=0.125),
        Inspect: session.inspect,
    }
    return handlers[type(request)](request)


def _send(replies: BinaryIO, message: bytes) -> None:
    """Send the message in two pieces, as a pipe may deliver it."""
    middle = len(message) // 2
    for piece in (message[:middle], message[middle:] + b"\n"):
        while piece:
            piece = piece[replies.write(piece) :]


def _hang() -> NoReturn:
    while True:
        threading.Event().wait()


def _nothing() -> None:
    pass


def _fail(kind: FailureKind, message: str) -> NoReturn:
    raise Failed(kind, message)


def _kill_self(number: signal.Signals) -> NoReturn:
    print("fake worker: about to end", file=sys.stderr)
    os.kill(os.getpid(), number)
    _hang()


STRIKES: dict[Fault, Callable[[], None]] = {
    Fault.HANG: _hang,
    Fault.OOM: lambda: _fail(FailureKind.OOM, "injected: out of memory"),
    Fault.NAN: lambda: _fail(FailureKind.NUMERICS, "injected: the output holds NaN"),
    Fault.CRASH: lambda: _kill_self(signal.SIGSEGV),
}
ESCAPES = Failure(
    kind=FailureKind.LOAD,
    phase=Phase.LOAD,
    message="\x1b]0;owned\x07\x1b[2Jall is well\u202e",
    details="\x9b31mred\nnext line\tafter a tab",
)
EXCUSED = Failure(
    kind=FailureKind.LOAD, phase=Phase.LOAD, message="it was the host", excuse="the host was busy"
)
INSTEAD: dict[str, Callable[[], bytes]] = {
    "empty-reply": lambda: b"",
    "garbage": lambda: b"Segmentation fault (core dumped)",
    "wrong-type": lambda: msgspec.json.encode(ready(Switches(""))),
    "exit": lambda: sys.exit(3),
    "segfault": lambda: _kill_self(signal.SIGSEGV),
    "killed": lambda: _kill_self(signal.SIGKILL),
    "hang": _hang,
    "flood": lambda: b"x" * (8 << 20),
    "escapes": lambda: msgspec.json.encode(ESCAPES),
    "excuses-itself": lambda: msgspec.json.encode(EXCUSED),
    "answers-twice": lambda: b"\n".join([msgspec.json.encode(WorkloadSwitched(seconds=0.0))] * 2),
}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def warm_up() -> None:
    """Compute what every worker computes, once for all that are forked from this process."""
    for noise in (0.0, NOISE):
        _picture(noise)


@functools.cache
def _picture(noise: float) -> array[float]:
    """Ramps of SIDE by SIDE pixels plus normal noise with a standard deviation of `noise`, all in (0, 1)."""
    chance = random.Random(0)
    ramp = [0.1 + 0.8 * step / (SIDE - 1) for step in range(SIDE)]
    clean = (value for down in ramp for right in ramp for value in (0.1 + 0.8 * down * right, down, right))
    return array("f", (value + noise * chance.gauss() for value in clean))


def _npy(picture: array[float], copies: tuple[int, ...], shape: tuple[int, ...]) -> bytes:
    """The picture as a .npy file, version 1.0, without numpy, whose import takes longer than all the rest.

    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {(*copies, *shape)}}}".encode()
    header = header.ljust(118 - 1) + b"\n"  # with magic, version and length a multiple of 64
    content = picture.tobytes() * math.prod(copies)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def _png(rgb: bytes, height: int, width: int) -> bytes:
    """An 8-bit RGB image as a .png file, rows without filter (https://www.w3.org/TR/png-3)."""
    rows = b"".join(b"\0" + rgb[row * width * 3 : (row + 1) * width * 3] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


if __name__ == "__main__":
    main()
