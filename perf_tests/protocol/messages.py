"""The messages between the parent (pytest) and a worker: one JSON object per line, both ways.

The worker speaks first (`Ready`), then answers each request with exactly one reply: the one named
in the request's docstring, or `Failure`. It ends when its request pipe closes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import dataclass_transform

import msgspec

from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Device
from perf_tests.tables.schemes import QuantizedWeight

PROTOCOL_VERSION = 1


# msgspec's own declaration does not tell type checkers that `frozen` is inherited.
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all messages and records: immutable, keywords only, strict."""


class Phase(StrEnum):
    """What a worker is doing; each phase has its own timeout."""

    IMPORT = "import"
    LOAD = "load"
    SEARCH = "search"
    """A part of the answer to `Quantize`, where a scheme is to be chosen for each module."""
    QUANTIZE = "quantize"
    COMPILE = "compile"
    GENERATE = "generate"
    FIDELITY = "fidelity"
    """Parts of the answers to `Quantize` and `Inspect`: layers, and what the transformer answers."""
    SWITCH_WORKLOAD = "turn"
    INSPECT = "inspect"


class FailureKind(StrEnum):
    """Why a worker could not do what it was asked."""

    OOM = "oom"
    TIMEOUT = "timeout"
    CRASH = "crash"
    NUMERICS = "numerics"
    LOAD = "load"
    UNPROVEN = "unproven"
    UNSUPPORTED = "unsupported"


class Fault(StrEnum):
    """What a fire drill breaks (`--perf-inject`)."""

    LATENCY = "latency"
    MEMORY = "memory"
    DROP_QUANTIZATION = "drop-quantization"
    SCALE = "scale"
    HANG = "hang"
    OOM = "oom"
    NAN = "nan"
    CRASH = "crash"


class Injection(Struct):
    """One fault and how much of it."""

    fault: Fault
    amount: float | None = None
    """Percent for latency, memory and scale, modules for drop-quantization, None for the others."""


# What both sides tell about the machine


class Gpu(Struct):
    """The GPU a worker runs on, as NVML reports it."""

    name: str
    uuid: str
    capability: tuple[int, int]
    memory_gib: float
    power_limit_w: float
    driver: str


class Environment(Struct):
    """Everything a number depends on besides the case."""

    python: str
    packages: dict[str, str]
    """Version of every package of the stack that is installed, git revision included where known."""
    gpu: Gpu | None
    """None for a worker on the CPU."""
    cpu_model: str
    cpu_count: int
    """Processors this process may use."""
    settings: dict[str, str]
    """torch settings and library versions that change numbers: matmul precision, threads, CUDA, cuDNN."""
    variables: dict[str, str]
    """Environment variables handed to the worker that change numbers."""

    @property
    def unit(self) -> str:
        """What absolute times belong to: the card's UUID, or the processor model."""
        return self.gpu.uuid if self.gpu else self.cpu_model


# Evidence and measurements


class MemoryWindow(Struct):
    """Peaks in MiB between two points in time; None where the device has no such counter."""

    allocated_mib: float | None
    """Live tensors: torch.cuda.max_memory_allocated."""
    reserved_mib: float | None
    """Held by torch's allocator, CUDA graph pools included: torch.cuda.max_memory_reserved."""
    device_mib: float | None
    """Used on the whole device, CUDA context included: NVML, highest of the looks taken."""
    rss_mib: float
    """Peak resident memory of the worker's process since its start."""


ORDINARY = "Parameter"
"""`ModuleGroup.subclass` of a weight that is no tensor subclass."""


class ModuleGroup(Struct):
    """Linear modules of one component whose weights look the same."""

    component: str
    subclass: str
    """`type(weight).__name__`; `Parameter` for an ordinary one."""
    dtype: str
    """Of the quantized values, as the subclass declares it, else of the stored data."""
    scale: str | None
    """`per-row`, `per-tensor`, `per-group-32`, another shape written out, or None without scales."""
    dynamic_activation: bool
    count: int
    examples: tuple[str, ...]
    """Up to three qualified module names."""
    chosen: str | None = None
    """Id of the scheme that the plan of a search chose for them; None where it did not choose for them."""

    def looks_like(self, weight: QuantizedWeight | None) -> bool:
        """Whether they are quantized exactly as `weight` says; None: not at all."""
        if weight is None:
            return self.subclass == ORDINARY
        return weight.describes(self.subclass, self.dtype, self.scale, self.dynamic_activation)


class LayerError(Struct, array_like=True):
    """What quantization costs one layer in one step, on the inputs that an unquantized pipeline gives it."""

    sqnr_db: float
    """20 log10(||ref|| / ||ref - y||) against the layer's bf16 twin; an identical answer has
    `tables.metrics.IDENTICAL_DB`."""
    gain: float
    """<ref, y> / <ref, ref>: 1 where the error has no part of the signal, 1.01 for scales 1 % too large."""
    worst_row_sqnr_db: float | None = None
    """The lowest of any output feature, over all tokens; None where there are too few tokens to tell."""
    worst_row_gain: float | None = None
    """Of the output feature farthest from 1, over all tokens; None as above."""
    tokens: int | None = None
    features: int | None = None
    """Of the output that was compared; None in records of before."""
    scale_error: float | None = None
    """By how much the weight is off where a single scale applies, as a share of what it is elsewhere in the
    layer and beyond what chance explains: the largest of all scales; None in records of before."""


class WeightCount(Struct):
    """What the parameters of the quantized components are to become, counted before quantizing."""

    elements: int
    """Of the weights to quantize, with the padding that their packing needs."""
    scales: int
    """Of those weights, with padding, too; a zero point belongs to its scale."""
    other_bytes: int
    """Of all other parameters."""
    quantized_bytes: float | None = None
    """Of those elements and scales, as the bit widths of their schemes imply; None in records of before."""


class PlanReport(Struct):
    """Which scheme was chosen for which modules, in short; the whole plan is a file."""

    file: str
    """Its name in the folder of plans."""
    sha256: str
    chosen: dict[str, int]
    """Scheme -> modules it was chosen for, those that stay as they are included."""
    search_s: float | None
    """Seconds that this process took to find it; None where the file was there."""


class Quantization(Struct):
    """What the linear modules of a pipeline are, beside what the recipe says they should be."""

    expected_modules: int
    """Linear modules of the quantized components minus the recipe's exclusions and those whose shape the
    scheme leaves alone, counted before quantizing; with a search those that the plan quantizes."""
    groups: tuple[ModuleGroup, ...]
    excluded: dict[str, int]
    """Exclusion pattern, or the scheme's rule about shapes -> modules it took out."""
    unquantized: tuple[str, ...]
    """Names of up to ten modules that should have been quantized and are not as the scheme says."""
    weights: WeightCount | None = None
    """None where nothing was to be quantized."""
    plan: PlanReport | None = None
    """None without a search."""


class CompileCache(Struct):
    """Inductor's own counters over the compile phase: what was looked up, and what was found."""

    hits: int
    misses: int
    bypasses: int
    artifacts: str | None = None
    """What was done with the file of artifacts: `loaded`, `saved`, or `empty`, where compiling left nothing
    to save; None where none was asked for."""

    @property
    def state(self) -> str:
        """`cold`, `warm`, or `mixed`, where hits stand beside misses or the cache was bypassed."""
        if self.bypasses or (self.hits and self.misses):
            return "mixed"
        return "warm" if self.hits else "cold"


class Telemetry(Struct):
    """The GPU and its host over one generation: NVML's readings, and the kernel's.

    What a card, its driver or a container refuses is None or left out, and `unavailable` says why.
    """

    sm_clock_mhz: float | None
    memory_clock_mhz: float | None
    power_w: float | None
    temperature_c: float | None
    throttle_reasons: tuple[str, ...] | None
    """Just after the generation."""
    throttled_ms: dict[str, float]
    """Milliseconds throttled during the generation, by cause."""
    compute_processes: int | None
    """Processes with a context on the GPU, this worker included."""
    device_used_mib: float | None
    throttle_counters: str | None = None
    """Which of NVML's families of counters `throttled_ms` is from."""
    foreign_processes: tuple[str, ...] | None = None
    """One phrase for each that is not this session's."""
    ecc_errors: dict[str, int] = msgspec.field(default_factory=dict)
    """`corrected` and `uncorrected` memory errors during the generation."""
    unaccounted_mib: float | None = None
    """By how much memory in use grew during the generation beyond what this worker's allocator took."""
    allocated_before_mib: float | None = None
    """Held by processes before this worker computed; None where another of the session did."""
    idle_utilization_pct: float | None = None
    """Of the GPU before this worker computed."""
    load_per_core: float | None = None
    """Load average of the host's last minute over its processors."""
    cpu_pressure_pct: float | None = None
    """Share of the generation in which some task waited for a processor (PSI)."""
    unavailable: dict[str, str] = msgspec.field(default_factory=dict)
    """Reading -> why there is none."""


class Sample(Struct):
    """One generation."""

    values: dict[str, tuple[float, ...]]
    """Metric name -> what was measured; one value per step for `denoise_step_ms`."""
    output_sha256: str
    telemetry: Telemetry | None = None
    """None on the CPU."""
    pair: int = 0
    """Which prompt and seed it was asked for (`Workload.of_pair`); 0 in records of before."""


class Capture(Struct):
    """The output of one generation, as files of the run directory."""

    array: str
    """float32 `.npy` in [0, 1]: images as (batch, height, width, 3), videos as (batch, frames, height,
    width, 3)."""
    sha256: str
    """Of the `.npy` file."""
    image: str
    """PNG of the first image or frame."""


class Arrays(Struct):
    """Outputs of a transformer on given inputs, as a file of the run directory."""

    file: str
    """`.npz` of float32 `answers` (calls, ...), one for each of five timesteps, and `latents`, as they are
    after four steps."""
    sha256: str


class Recorded(Struct):
    """What a pipeline gave before it was quantized and compiled: bf16 eager, of the same process."""

    arrays: Arrays
    picture: Capture | None = None
    """Of the first pair; only of a pipeline that is merely compiled, which it shows the noise of."""


# Requests


class Trace(Struct):
    """Ask for `Recorded` of a workload of the build."""

    case: Case
    stem: str
    """Path of the files without suffix."""


class Load(Struct, tag="load"):
    """Build the case's pipeline, unquantized -> Loaded."""

    case: Case
    device: Device
    injections: tuple[Injection, ...] = ()


class Quantize(Struct, tag="quantize"):
    """Fuse and quantize as the recipe says -> Quantized."""

    probe: bool = False
    """Whether the transformer's output is compared with its own before quantization (`output_sqnr_db`)."""
    plan: str | None = None
    """File of the plan, where the scheme has a search: followed where it is there, else searched for and
    written. None without a search."""
    layers: bool = False
    """Whether each quantized layer of the transformer is compared with its bf16 twin."""
    traces: tuple[Trace, ...] = ()
    """What is recorded before anything is quantized, of each workload that the worker will turn to."""


class Compile(Struct, tag="compile"):
    """Compile as the recipe says and prime with a two-step generation, eager pipelines, too -> Compiled."""

    artifacts: str | None = None
    """File of compile-cache artifacts: loaded before compiling where it is there, else written afterwards.
    None: neither."""


class Generate(Struct, tag="generate"):
    """Generate once -> Generated."""

    warmup: bool = False
    """The first warm-up also arms the injected faults, which need its timings."""
    pair: int = 0
    """Which prompt and seed (`Workload.of_pair`)."""
    capture: str | None = None
    """Path without suffix to save the output to; None: it is only hashed."""


class SwitchWorkload(Struct, tag="turn"):
    """Turn to another workload of the same build -> Turned.

    Afterwards the worker is as it was before Compile: compiler reset, caches emptied, peaks reset.
    """

    case: Case


class Inspect(Struct, tag="inspect"):
    """Report what is known once everything was generated -> Inspected."""

    trace: str | None = None
    """Path without suffix for what the timed transformer answers to the calls recorded for this workload;
    None: it is not asked."""


Request = Load | Quantize | Compile | Generate | SwitchWorkload | Inspect


# Replies


class Ready(Struct, tag="ready"):
    """A worker's first message."""

    protocol_version: int
    environment: Environment


class Loaded(Struct, tag="loaded"):
    """The pipeline stands on the device."""

    seconds: float
    memory: MemoryWindow
    weights: dict[str, str]
    """sha256 of a few named tensors."""


class Quantized(Struct, tag="quantized"):
    """The pipeline is quantized."""

    seconds: float
    """Without those of a search."""
    memory: MemoryWindow
    quantization: Quantization
    layers: dict[str, LayerError] = msgspec.field(default_factory=dict)
    """By `transformer.qualified.name`; empty where it was not asked for, and where nothing is quantized."""
    recorded: dict[str, Recorded] = msgspec.field(default_factory=dict)
    """By the id of the case."""
    fidelity_s: float = 0.0
    """What comparing layers and recording took, beside `seconds`."""


class Compiled(Struct, tag="compiled"):
    """The pipeline ran once."""

    seconds: float
    memory: MemoryWindow
    cache: CompileCache | None
    """None for eager pipelines."""


class Generated(Struct, tag="generated"):
    """One generation."""

    sample: Sample
    capture: Capture | None = None


class WorkloadSwitched(Struct, tag="turned"):
    """The worker is ready to compile for another workload."""

    seconds: float


class Inspected(Struct, tag="inspected"):
    """What describes the whole process."""

    values: dict[str, float]
    """Metric name -> value."""
    memory: MemoryWindow
    """From the first warm-up to the last sample."""
    arrays: Arrays | None = None
    """None where it was not asked for."""
    fidelity_s: float = 0.0
    """What asking took."""


class Failure(Struct, tag="failure"):
    """The request could not be fulfilled; the worker ends."""

    kind: FailureKind
    phase: Phase
    message: str
    """One sentence."""
    details: str = ""
    """Traceback, or the end of the worker's log."""


Reply = Ready | Loaded | Quantized | Compiled | Generated | WorkloadSwitched | Inspected | Failure
