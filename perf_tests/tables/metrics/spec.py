"""What a row of the metric table holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.host_bound import is_busy_timed, is_host_bound
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import Activity, QuantizedOn
from perf_tests.tables.schemes.spec import Range

CONSTANT_STD: Final = 2 / 255
"""An output, or one of its frames, whose values in [0, 1] vary by less than this is of a single colour."""
IDENTICAL_DB: Final = 20 * math.log10(2**24)
"""What stands for the infinite ratio of two identical signals: that of one rounding step of float32."""

STEP: Final = "denoise_step_ms"
"""The metric that everything timed comes down to: one steady denoise step."""
STEP_BUSY: Final = "step_busy_ms"
"""The metric of how long the device is busy in one: for rows whose steps wait for the host."""
TRAIN_STEP: Final = "train_step_ms"
"""The same of training: the gradients of one batch, and the optimizer's step."""
TRAIN_BUSY: Final = "train_busy_ms"
"""How long the device is busy in one, but for the optimizer's step."""
BUSY_TIMES: Final = {Activity.GENERATING: STEP_BUSY, Activity.TRAINING: TRAIN_BUSY}
"""What a case is doing while it is measured -> the metric of how long the device is busy in a step of it."""
ANSWER: Final = "answer_ms"
"""Of a model that is only quantized and moved: what it answers to a few tokens."""
STAGES: Final = ("encode_ms", "first_step_ms", STEP, "decode_ms")
"""The metrics of a generation's stages, in the order in which they run."""

INSTRUCTION_SET: Final = "cpu_capability"
"""The name in `Environment.settings` of the vector instructions that torch's kernels for a CPU use."""
INSTRUCTION_SETS: Final = frozenset(
    {"DEFAULT", "NO AVX", "AVX2", "AVX512", "VSX", "Z VECTOR", "SVE", "SVE128", "SVE256", "SVE512"}
)
"""What `torch.backends.cpu.get_cpu_capability` may answer."""

DRIFT_LIMIT_PCT: Final = 5.0
"""Of all accepted changes together: five steps of 1 % are too many."""


class Better(StrEnum):
    """The direction in which a metric improves."""

    LOWER = "lower"
    HIGHER = "higher"
    EXACT = "exact"
    """Neither: any difference from the baseline is a regression, beyond the tolerance where there is one."""


class Group(StrEnum):
    """The test that judges a metric: `test_<group>.py`."""

    LATENCY = "latency"
    MEMORY = "memory"
    COMPILE = "compile"
    QUANTIZATION = "quantization"
    FIDELITY = "fidelity"
    NUMERICS = "numerics"


class Reader(StrEnum):
    """How the value of a process is read from the record (`stats.observations.READERS`)."""

    SAMPLES = "samples"
    """The trimmed mean of all that the timed generations reported under the metric's name."""
    EVERY_SAMPLE = "every-sample"
    """Each different value that any generation reported under the metric's name, warm-ups included: for
    values of which one alone can be wrong."""
    BUILD = "build"
    """What the worker reported once for the whole process, under the metric's name."""
    TWIN_RATIO = "twin-ratio"
    """The median, over interleaved pairs of generations, of this case's `of` / the fp32 twin's."""
    REFERENCE_RATIO = "reference-ratio"
    """The bf16 reference's `of` / this case's, as a speed-up."""
    OUTPUTS = "outputs"
    """How many different outputs the process's generations of one prompt and seed gave, at most."""
    GROWTH = "growth"
    """By how much `of` grows with each timed generation, from the second to the last."""
    TREND = "trend"
    """By how much the last timed generation took longer than the first, in percent, where each took longer
    than the one before it; else 0."""
    STALLS = "stalls"
    """How many generations took far longer than the median of their process (`runs.stalls`)."""
    LAYERS = "layers"
    """`field` of the worst of the transformer's layers."""
    CAPTURE = "capture"
    """`field` of the comparison of the first process's output with the bf16 reference's."""
    PAIRS = "pairs"
    """`field` of that comparison: one value for each pair of prompt and seed, not one for each process."""
    NOISE = "noise"
    """`field` of the comparison of a compiled bf16 reference's first process with itself before compiling."""

    @property
    def divides_by_reference(self) -> bool:
        """Whether a time of the bf16 reference enters the value."""
        return self is Reader.REFERENCE_RATIO

    @property
    def reads_every_process(self) -> bool:
        """Whether each process of a run gives a value, not only those that left something to compare."""
        return self not in (Reader.CAPTURE, Reader.PAIRS, Reader.NOISE)

    @property
    def compares_outputs(self) -> bool:
        """Whether the value comes from the outputs of the case and of its bf16 reference."""
        return self in (Reader.CAPTURE, Reader.PAIRS)


class Rule(StrEnum):
    """How a metric is judged where it is gated (`verdicts.judge.RULES`)."""

    EXPECTED_RANGE = "expected range"
    """Every process lies within `expected`; there is no baseline."""
    EXPECTED_OF_LAYERS = "expected range of layers"
    """As `EXPECTED_RANGE`, and the verdict names the worst layers."""
    CONFIRMED = "confirmed"
    """As `EXPECTED_RANGE`, but one process outside it has to be confirmed by another one."""
    TAIL = "tail"
    """No generation stalled; one that did is no verdict against the code, two are."""
    NOISY = "noisy"
    """A sequential test that knows how far unchanged processes lie apart and asks for more of them."""
    PER_LAYER = "per layer"
    """Each layer is within the tolerance, and the noise of its rounding, of itself in the baseline."""
    PER_PAIR = "per pair"
    """The pairs of prompt and seed are within the tolerance of themselves in the baseline, each and in the
    mean, and above the floor of the scheme."""
    EXACT = "exact"
    """Every process has the value of the baseline."""
    WITHIN_TOLERANCE = "within tolerance"
    """The median of the processes is within the tolerance of the baseline's."""


class Trait(StrEnum):
    """What a case must be for a metric to say anything about it."""

    COMPILED = "compiled"
    ROUNDS_AS_EAGER = "rounds as eager"
    """What is compiled of it rounds where eager code does."""
    REFERENCE = "reference"
    """It is its own bf16 reference."""
    COMPARED = "compared"
    """It has a bf16 reference other than itself."""
    QUANTIZED = "quantized"
    """Its scheme quantizes layers."""
    VIDEO = "video"
    MADE_HERE = "made here"
    """The process that is measured makes its weights, and quantizes them."""
    LOADED = "loaded"
    """Another process made its transformer's weights, which it loads."""
    OFFLOADED = "offloaded"
    """Its weights are on the host until they are needed."""
    STREAMED = "streamed"
    """They are copied to a GPU while kernels run."""
    SAVES_MEMORY = "saves memory"
    """Its weights are offloaded, or its VAE decodes in parts."""
    PACKAGED = "packaged"
    """Its repeated blocks are those of packages that another process compiled."""
    BUSY_TIMED = "busy-timed"
    """The time that the device is busy in its steps is recorded."""
    HOST_BOUND = "host-bound"
    """Its steps wait for the host, so it is judged by the time of the device."""
    UNTWINNED = "untwinned"
    """It has no built twin whose layers and pictures would be its own (`Recipe.repeats_twin`)."""
    FLOAT8_TRAINING = "float8 training"
    """Its frozen layers multiply in float8 while it trains."""
    MOVED_WHOLE = "moved whole"
    """All weights are moved to the device together, before or after they are quantized."""
    RESHAPED = "reshaped"
    """It generates in other shapes, too, with what is compiled."""


HAS_TRAIT: Mapping[Trait, Callable[[Case], bool]] = {
    Trait.COMPILED: lambda case: case.build.recipe.compiles,
    Trait.ROUNDS_AS_EAGER: lambda case: case.build.recipe.rounds_as_eager,
    Trait.REFERENCE: lambda case: case.is_reference,
    Trait.COMPARED: lambda case: not case.is_reference,
    Trait.QUANTIZED: lambda case: case.build.recipe.scheme.config is not None,
    Trait.VIDEO: lambda case: case.workload.num_frames is not None,
    Trait.MADE_HERE: lambda case: not case.build.recipe.is_loaded,
    Trait.LOADED: lambda case: case.build.recipe.is_loaded,
    Trait.OFFLOADED: lambda case: case.build.recipe.offload is not None,
    Trait.STREAMED: lambda case: bool(case.build.recipe.offload and case.build.recipe.offload.streams),
    Trait.SAVES_MEMORY: lambda case: case.build.recipe.saves_memory,
    Trait.PACKAGED: lambda case: case.build.recipe.is_packaged,
    Trait.BUSY_TIMED: is_busy_timed,
    Trait.HOST_BOUND: is_host_bound,
    Trait.UNTWINNED: lambda case: not case.build.recipe.repeats_twin,
    Trait.MOVED_WHOLE: lambda case: case.build.recipe.quantized_on is not QuantizedOn.MODULE,
    Trait.RESHAPED: lambda case: case.build.recipe.reshaping is not None,
    Trait.FLOAT8_TRAINING: lambda case: case.build.recipe.trains_in_float8,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """The larger of a relative allowance (percent of the baseline) and an absolute one (in the metric's
    units)."""

    relative_pct: float = 0.0
    absolute: float = 0.0

    def allowance(self, baseline: float) -> float:
        """The largest difference from `baseline` that is tolerated, in the metric's units."""
        return max(abs(baseline) * self.relative_pct / 100.0, self.absolute)


COUNT_ELSEWHERE: Final = Tolerance(relative_pct=30.0)
"""How far an exact count may lie from that of another torch, triton, instruction set or choice of kernels,
which fuse and split work in another way: twice the work is beyond it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """When a change of a metric is a failure, on one type of device."""

    tolerance: Tolerance = Tolerance()
    surprise: Tolerance | None = None
    """An improvement beyond this fails until it is accepted with a reason; None: no improvement does."""


GENERATING: Final = (Activity.GENERATING,)
TRAINING: Final = (Activity.TRAINING,)
QUANTIZING: Final = (Activity.QUANTIZING,)
UNTRAINED: Final = (*GENERATING, *QUANTIZING)
ANY: Final = tuple(Activity)

BY_RULE: Final = Gate()
"""The gate of a metric whose rule needs no tolerance."""
BY_RULE_EVERYWHERE: Final = dict.fromkeys(Device, BY_RULE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One measured quantity: where it is read, which cases it is about, and how it is judged."""

    name: str
    units: str
    """As printed after a value; empty for counts and ratios without one."""
    better: Better
    group: Group
    reader: Reader
    of: str | None = None
    """For ratios: the metric they are formed from."""
    field: str = ""
    """For readers of comparisons and layers: the field of the record that is read."""
    badness: Callable[[float], float] | None = None
    """For `Reader.LAYERS`: what is largest for the worst of several values."""
    rule: Rule = Rule.WITHIN_TOLERANCE
    gates: Mapping[Device, Gate]
    """The devices whose platforms gate it; on others it is shown."""
    expected: Callable[[Case], Range | None] | None = None
    """For the rules of expected ranges: the range that the tables imply for a case; None where they imply
    none, and the metric does not apply."""
    component: str = ""
    """The component that it is about: it does not apply to a pipeline without that one. Empty for others."""
    activities: tuple[Activity, ...] = GENERATING
    """What a case must do while it is measured, one of them."""
    only_for: tuple[Trait, ...] = ()
    """What a case must be, all of it."""
    gated_for: tuple[Trait, ...] = ()
    """What a case must be, all of it, to fail by the metric; for others it is shown."""
    by_device: bool = False
    """Whether it is a time of the device alone, which is the same on a busy host."""
    per_unit: bool = False
    """Whether the value belongs to one card or processor, so that another unit is judged at
    `Platform.unit_tolerance_pct`."""
    precise: bool = False
    """Whether a process is sampled until its own error is small compared with the noise between processes."""
    drift_limit_pct: float | None = None
    """How far accepted baselines may move for the worse from the first one, where it is gated; None: it is
    not compared with the first."""
    needs_verification: bool = False
    """A time or an amount of memory: means nothing, and is not judged, where a run failed verification (it
    is that of something else) or was disturbed."""
    cold_caches_only: bool = False
    """Not compared where all processes loaded their compile caches from files."""
    follows_search: bool = False
    """Only shown where a search chooses the schemes: the value follows from the plan then, and another metric
    judges whether the plan was followed."""
    some_processes: bool = False
    """Whether one process that reports it is enough: only the first compiles into an empty cache."""
    same_packages: tuple[str, ...] = ()
    """Packages whose version decides the value: against a baseline of another version of one of them,
    `elsewhere` takes the place of the gate."""
    same_settings: tuple[str, ...] = ()
    """Names in `Environment.settings` that decide the value as `same_packages` do. One that a baseline is too
    old to have recorded may always have been as it is now. Baselines hold a value for each instruction set,
    where the value is gated."""
    where_tuned: Tolerance | None = None
    """How far the value may lie from the baseline where each process chooses kernels by timing them
    (`Recipe.is_tuned`); None: as far as it may for other recipes."""
    where_offloaded: Tolerance | None = None
    """How far the value may lie from the baseline where weights are copied meanwhile, which takes as long as
    the memory of the host; None: as far as it may for other recipes."""
    elsewhere: Tolerance | None = None
    """How far the value may lie from a baseline of other `same_packages` or `same_settings`, in either
    direction where the metric is `Better.EXACT`; None: the two are not compared."""

    def applies(self, case: Case) -> bool:
        """Whether it says anything about `case`."""
        exists = not self.component or self.component in case.build.pipeline.modules
        is_about = exists and case.build.activity in self.activities
        is_what_it_must_be = is_about and all(HAS_TRAIT[trait](case) for trait in self.only_for)
        return is_what_it_must_be and (self.expected is None or self.expected(case) is not None)

    def follows_instructions(self, device: Device) -> bool:
        """Whether it is gated on `device` by a baseline that holds only for the same instruction set."""
        return INSTRUCTION_SET in self.same_settings and device in self.gates

    @property
    def is_noisy(self) -> bool:
        """Whether it is judged by relative changes, with the noise between processes."""
        return self.rule is Rule.NOISY

    @property
    def asks_for_processes(self) -> bool:
        """Whether its verdict may take more processes than were measured."""
        return self.rule in (Rule.NOISY, Rule.CONFIRMED)

    @property
    def has_baseline(self) -> bool:
        """Whether it is judged by comparison with a baseline: not where the tables imply its range."""
        return self.expected is None

    @property
    def is_in_decibels(self) -> bool:
        """Whether its values are logarithms, of which a percentage says nothing."""
        return self.units == "dB"

    @property
    def is_relation(self) -> bool:
        """Whether it must hold by itself: a baseline in which it is broken would make no sense."""
        return self.reader is Reader.OUTPUTS

    @property
    def follows_host(self) -> bool:
        """Whether it is a time that the host decides, where the host is what a step waits for."""
        return self.group is Group.LATENCY and self.needs_verification and not self.by_device

    @property
    def watches_images(self) -> bool:
        """Whether it is about single images that took longer than others, which a host can do to any."""
        return self.reader in (Reader.TREND, Reader.STALLS)

    @property
    def rests_on_step(self) -> bool:
        """Whether it is the time of a step, or a ratio of two."""
        return not {STEP, TRAIN_STEP}.isdisjoint((self.name, self.of))

    def can_fail(self, case: Case) -> bool:
        """Whether `case` is one that it is gated for."""
        if self.watches_images and is_host_bound(case):
            return False
        return all(HAS_TRAIT[trait](case) for trait in self.gated_for)

    @property
    def is_device_time(self) -> bool:
        """Whether it is a time that the clock of the card decides."""
        return self.per_unit and self.reader is Reader.SAMPLES
