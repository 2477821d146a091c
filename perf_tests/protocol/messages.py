"""The messages between the parent (pytest) and a worker: one JSON object per line, both ways.

The worker speaks first (`Ready`), then answers each request with exactly one reply: the one named
in the request's docstring, or `Failure`. It ends when its request pipe closes.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from perf_tests.protocol.base import Struct
from perf_tests.protocol.offloading import MemorySaving, Placement
from perf_tests.protocol.packages import LoadedPackages, Packages
from perf_tests.protocol.profiles import Profile, Profiled, Snapshot, Snapshotted
from perf_tests.protocol.reports import (
    Arrays,
    Capture,
    CompileCache,
    Environment,
    LayerError,
    MemoryWindow,
    PipelineState,
    Quantization,
    Recorded,
    Sample,
    SettingReport,
    StepReport,
)
from perf_tests.protocol.training import TrainingReport
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Device

PROTOCOL_VERSION = 1


class Phase(StrEnum):
    """What a worker is doing; each phase has its own timeout."""

    IMPORT = "import"
    LOAD = "load"
    SEARCH = "search"
    """The part of the answer to `Quantize` that chooses a scheme for each module."""
    QUANTIZE = "quantize"
    COMPILE = "compile"
    GENERATE = "generate"
    FIDELITY = "fidelity"
    """The parts of the answers to `Quantize` and `Inspect` that compare layers and record the transformer's
    answers."""
    SAVE = "save"
    PACKAGE = "package"
    SWITCH_WORKLOAD = "turn"
    INSPECT = "inspect"
    PROFILE = "profile"
    BUILT_TWIN = "built-twin"
    """No request: all that another worker did to make what this one loads, or must equal."""


class FailureKind(StrEnum):
    """Why a worker could not do what it was asked to do."""

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


# To a fork server, before there is a worker

MAX_FORK_BYTES = 1 << 17


class Fork(Struct):
    """Asks for a worker that is forked; the answer is its process id, in digits.

    It is 0 for a worker that became the child of another process than `parent`, and has ended.
    """

    variables: dict[str, str]
    """All of its environment."""
    imports: tuple[str, ...] = ()
    """What it will import, as `"package.module:Name"`."""
    parent: int = 0
    """Process id of what asks, whose child a forked worker must become."""
    capability: tuple[int, int] | None = None
    """Compute capability of the GPU, which modules ask for while they are imported; None without one."""


# Requests


class Trace(Struct):
    """Asks for `Recorded` of one workload of the build."""

    case: Case
    stem: str
    """Path of the files without suffix."""


class Load(Struct, tag="load"):
    """Build the case's pipeline, unquantized -> Loaded."""

    case: Case
    device: Device
    injections: tuple[Injection, ...] = ()
    checkpoint: str | None = None
    """Folder of what another worker was asked to `Save`; None where this one makes its own weights."""


class Quantize(Struct, tag="quantize"):
    """Fuse and quantize as the recipe says, or convert for training and add the adapters -> Quantized."""

    probe: bool = False
    """Whether to compare the transformer's output with its own before quantization (`output_sqnr_db`)."""
    plan: str | None = None
    """File of the plan that a search has found, or is to find and write; None without a search."""
    layers: bool = False
    """Whether to compare each quantized layer of the transformer with its bf16 twin."""
    traces: tuple[Trace, ...] = ()
    """What to record before anything is quantized, for each workload that the worker will switch to."""
    tensors: bool = False
    """Whether to hash every tensor of the quantized components."""


class Save(Struct, tag="save"):
    """Save the quantized transformer in `folder`, in the way in which `case` loads it -> Saved."""

    case: Case
    folder: str


class Package(Struct, tag="package"):
    """Export, compile and package each class of repeated blocks in `folder`, which exists -> Packaged.

    Compiled blocks run eager from then on.
    """

    folder: str


class Compile(Struct, tag="compile"):
    """Compile as the recipe says and prime, eager pipelines too, with a two-step generation -> Compiled."""

    artifacts: str | None = None
    """File of compile-cache artifacts: loaded before compiling if it exists, otherwise written afterwards.
    None: neither."""
    tuned: str | None = None
    """Folder of kernels chosen by timing: read before compiling, and added to afterwards. None: neither."""
    packages: str | None = None
    """Folder of what another worker was asked to `Package`; None where the recipe loads none."""


class Generate(Struct, tag="generate"):
    """Generate, train all steps of one seed from the same adapters, or answer a question -> Generated."""

    warmup: bool = False
    """The first warm-up also arms the injected faults, which need its timings."""
    pair: int = 0
    """Index of the prompt and seed (`Workload.of_pair`)."""
    capture: str | None = None
    """Path without suffix to save the output to; None: it is only hashed."""


class SwitchWorkload(Struct, tag="turn"):
    """Switch to another workload of the same build -> WorkloadSwitched.

    Afterwards the worker is as it was before Compile: compiler reset, caches emptied, peaks reset.
    """

    case: Case


class Inspect(Struct, tag="inspect"):
    """Report what is known once everything was generated -> Inspected."""

    trace: str | None = None
    """Path without suffix for the answers of the timed transformer to the calls recorded for this workload;
    None: it is not asked for any."""
    work: bool = True
    """Whether the kernels or operators of each stage are counted, in generations of their own."""


Request = (
    Load | Quantize | Save | Package | Compile | Generate | SwitchWorkload | Inspect | Profile | Snapshot
)
PHASE_OF_REQUEST: dict[type[Struct], Phase] = {
    Load: Phase.LOAD,
    Quantize: Phase.QUANTIZE,
    Save: Phase.SAVE,
    Package: Phase.PACKAGE,
    Compile: Phase.COMPILE,
    Generate: Phase.GENERATE,
    SwitchWorkload: Phase.SWITCH_WORKLOAD,
    Inspect: Phase.INSPECT,
    Profile: Phase.PROFILE,
    Snapshot: Phase.PROFILE,
}
"""What a worker is doing while it answers a request."""


# Replies


class Ready(Struct, tag="ready"):
    """A worker's first message."""

    protocol_version: int
    environment: Environment


class Loaded(Struct, tag="loaded"):
    """The pipeline is on the device."""

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
    """By `transformer.qualified.name`; empty where it was not asked for or nothing is quantized."""
    recorded: dict[str, Recorded] = msgspec.field(default_factory=dict)
    """By case id."""
    fidelity_s: float = 0.0
    """Seconds spent comparing layers and recording, not included in `seconds`."""
    state: PipelineState | None = None
    """What the pipeline became; None from earlier workers."""
    tensors: dict[str, str] = msgspec.field(default_factory=dict)
    """Qualified name -> hash (see `BuildReport.tensors`); empty where it was not asked for."""
    converted: int | None = None
    """Modules that torchao has quantized in this process since it loaded; None where that was not counted."""


class Saved(Struct, tag="saved"):
    """The transformer is saved."""

    seconds: float
    """Of writing alone."""
    files: dict[str, int]
    """Path in the folder -> bytes."""


class Packaged(Struct, tag="packaged"):
    """The blocks are packaged."""

    packages: Packages


class Compiled(Struct, tag="compiled"):
    """The pipeline is compiled and ran once."""

    seconds: float
    memory: MemoryWindow
    cache: CompileCache | None
    """None where nothing was to be compiled."""
    packages: LoadedPackages | None = None
    """None where none were to be loaded."""


class Generated(Struct, tag="generated"):
    """One generation is done."""

    sample: Sample
    capture: Capture | None = None
    """None where it was not asked for."""


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
    """Seconds spent answering the recorded calls."""
    uncounted: dict[str, str] = msgspec.field(default_factory=dict)
    """Metric name -> why this stack cannot count it."""
    guard_failures: tuple[str, ...] = ()
    """Why dynamo compiled again after the first warm-up, in its own words."""
    state: PipelineState | None = None
    """What the pipeline is after its last timed generation; None from earlier workers."""
    step: StepReport | None = None
    """None from earlier workers."""
    settings: dict[str, SettingReport] = msgspec.field(default_factory=dict)
    """By id of the recipe's setting."""
    memory_saving: MemorySaving | None = None
    """None for a recipe that saves none."""
    training: TrainingReport | None = None
    """None where the recipe does not train."""
    placement: Placement | None = None
    """None but for a model that is only quantized and moved."""


class Failure(Struct, tag="failure"):
    """The request could not be fulfilled; the worker ends."""

    kind: FailureKind
    phase: Phase
    message: str
    """One sentence."""
    details: str = ""
    """Traceback, or the end of the worker's log."""
    excuse: str = ""
    """Why it says nothing about the stack under test: then the case is INVALID. Empty where it does. Only the
    parent sets it; a worker cannot excuse itself."""


Built = Loaded | Quantized | Saved | Packaged | Compiled
Reply = Ready | Built | Generated | WorkloadSwitched | Inspected | Profiled | Snapshotted | Failure
