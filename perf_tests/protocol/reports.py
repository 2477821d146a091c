"""What a worker reports: the machine it runs on, what it built, and what it measured.

Replies carry these values (see `messages`), and run records store them as they came.
"""

from __future__ import annotations

import msgspec

from perf_tests.protocol.base import Struct
from perf_tests.protocol.packages import CompiledHere, Packages
from perf_tests.tables.schemes.spec import QuantizedWeight, Scheme

# The machine


class Gpu(Struct):
    """The GPU a worker runs on, as NVML reports it."""

    name: str
    uuid: str
    capability: tuple[int, int]
    memory_gib: float
    power_limit_w: float
    driver: str


class Environment(Struct):
    """Everything a number depends on apart from the case."""

    python: str
    packages: dict[str, str]
    """Version of each installed package of the stack, with its git revision where that is known."""
    gpu: Gpu | None
    """None for a worker on the CPU."""
    cpu_model: str
    cpu_count: int
    """Processors that this process may use."""
    settings: dict[str, str]
    """torch settings and library versions that change numbers: matmul precision, threads, CUDA, cuDNN."""
    variables: dict[str, str]
    """Environment variables handed to the worker that change numbers."""

    @property
    def unit(self) -> str:
        """The piece of hardware that absolute times belong to: the card's UUID, or the processor model."""
        return self.gpu.uuid if self.gpu else self.cpu_model


# What was built


class MemoryWindow(Struct):
    """Peaks in MiB between two points in time; None where the device has no such counter."""

    allocated_mib: float | None
    """Live tensors: torch.cuda.max_memory_allocated."""
    reserved_mib: float | None
    """Held by torch's allocator, CUDA graph pools included: torch.cuda.max_memory_reserved."""
    device_mib: float | None
    """Used on the whole device, CUDA context included: the highest of NVML's readings."""
    rss_mib: float
    """Peak resident memory of the worker process since it started."""


ORDINARY = "Parameter"
"""`ModuleGroup.subclass` of a weight that is not a tensor subclass."""


class ModuleGroup(Struct):
    """Linear modules of one component whose weights look the same."""

    component: str
    subclass: str
    """`type(weight).__name__`; `Parameter` for an ordinary one."""
    dtype: str
    """Of the quantized values as the subclass declares it, otherwise of the stored data."""
    scale: str | None
    """`per-row`, `per-tensor`, `per-group-32`, any other shape written out, or None without scales."""
    dynamic_activation: bool
    count: int
    examples: tuple[str, ...]
    """Up to three qualified module names."""
    chosen: str | None = None
    """Id of the scheme that the plan of a search chose for them; None where no plan chose one."""
    activation: str | None = None
    """dtype and granularity that their activations are quantized to, as `int8 per-row`; None where they are
    not, and in older records."""

    def looks_like(self, weight: QuantizedWeight | None) -> bool:
        """Whether they are quantized exactly as `weight` describes; None stands for not quantized."""
        if weight is None:
            return self.subclass == ORDINARY
        return weight.describes(self.subclass, self.dtype, self.scale, self.activation)

    def is_quantized_as(self, scheme: Scheme) -> bool:
        """Whether they are quantized exactly as `scheme` says, or as the plan of its search does."""
        weight = scheme.weight_of(self.chosen)
        return weight is not None and self.looks_like(weight)


class LayerError(Struct, array_like=True):
    """What quantization costs one layer in one step, on the inputs that an unquantized pipeline gives it."""

    sqnr_db: float
    """20 log10(||ref|| / ||ref - y||) against the layer's bf16 twin; `tables.metrics.IDENTICAL_DB` for an
    identical output."""
    gain: float
    """<ref, y> / <ref, ref>: 1 where the error contains none of the signal, 1.01 for scales 1 % too large."""
    worst_row_sqnr_db: float | None = None
    """The lowest of any output feature, over all tokens; None where there are too few tokens to tell."""
    worst_row_gain: float | None = None
    """Of the output feature farthest from 1, over all tokens; None where there are too few tokens to tell."""
    tokens: int | None = None
    """Of the output that was compared; None in older records."""
    features: int | None = None
    """Of the output that was compared; None in older records."""
    scale_error: float | None = None
    """How far the gain of any single scale of the weight is from the layer's median, as a share of that and
    beyond what chance explains: the largest of all scales; None in older records."""


class WeightCount(Struct):
    """What the parameters of the quantized components will become, counted before quantizing."""

    elements: int
    """Of the weights to quantize, including the padding that their packing needs."""
    scales: int
    """Of those weights, including padding; a zero point counts with its scale."""
    other_bytes: int
    """Of all other parameters."""
    quantized_bytes: float | None = None
    """Of those elements and scales, as the bit widths of their schemes imply; None in older records."""
    device: str | None = None
    """Type of the device that holds the parameters, or types, as `cpu, cuda`; None in older records."""


class PlanReport(Struct):
    """Which scheme a search chose for which modules, in short; the whole plan is a file."""

    file: str
    """Its name in the folder of plans."""
    sha256: str
    chosen: dict[str, int]
    """Scheme -> modules it was chosen for, including those left unquantized."""
    search_s: float | None
    """Seconds that this process searched for it; None where the file already existed."""


class Quantization(Struct):
    """What the linear modules of a pipeline are, next to what the recipe says they should be."""

    expected_modules: int
    """Linear modules of the quantized components, without the recipe's exclusions and those whose shape the
    scheme does not quantize, counted before quantizing; with a search, those that the plan quantizes."""
    groups: tuple[ModuleGroup, ...]
    excluded: dict[str, int]
    """Exclusion pattern, or the scheme's rule about shapes -> modules it took out."""
    unquantized: tuple[str, ...]
    """Names of up to ten modules that should have been quantized and are not as the scheme says."""
    weights: WeightCount | None = None
    """None where nothing was to be quantized."""
    plan: PlanReport | None = None
    """None without a search."""


class BuiltTwin(Struct):
    """What another worker made of the same case in the default way: loading its files, or building in another
    way, must lead to the same tensors, and to the same picture unless packages compute it."""

    seconds: dict[str, float]
    """Of loading, quantizing and, where it saved anything, saving, by phase."""
    memory: dict[str, MemoryWindow]
    """Peaks of loading and of quantizing, by phase."""
    tensors: dict[str, str]
    """Qualified name -> hash, as `Quantized.tensors`."""
    output_sha256: str
    """Of the first prompt and seed."""
    files: dict[str, int]
    """What it saved: path -> bytes; empty where nothing is loaded."""
    converted: int | None = None
    """Modules that it was seen to quantize, as `Quantized.converted`."""
    packages: Packages | None = None
    """None where it was to make none."""
    compiled: CompiledHere | None = None
    """None without packages, and where no time is judged."""


class ComponentState(Struct):
    """The parameters of one component at one moment."""

    weight_bytes: int
    checksum: int
    """Sum of the 64-bit words that they are stored in; it stays as long as no value changes."""
    convolutions: int
    """Weights of two-dimensional convolutions whose strides tell their memory format."""
    channels_last: int
    """How many of these are in `torch.channels_last`."""


class PipelineState(Struct):
    """What a quantized pipeline is at one moment; generating must not change any of it."""

    components: dict[str, ComponentState]
    groups: tuple[ModuleGroup, ...]
    """Of all linear modules, without what a plan chose for them."""


class StepReport(Struct):
    """What ran in one denoise step of the timed pipeline."""

    blocks: dict[str, int]
    """Class of repeated blocks -> how often its own Python code ran: never where it is compiled."""
    attention: dict[str, int] | None
    """Operator that carried out `scaled_dot_product_attention` -> calls; None where none was recorded."""


class SettingReport(Struct):
    """What became of one of the recipe's settings, at the end of a process."""

    inductor: dict[str, str]
    """Name in `torch._inductor.config` -> its value, as text; empty for a setting of something else."""
    kernels: int | None
    """How often a denoise step ran one of the kernels that tell that the setting took effect; None where no
    kernel tells, or the step was not recorded."""


class TunedChoices(Struct):
    """For how many products inductor chose a kernel by timing, and how many of those were timed before."""

    hits: int
    misses: int


class CompileCache(Struct):
    """Inductor's own counters over the compile phase: lookups that hit, missed, or were bypassed."""

    hits: int
    misses: int
    bypasses: int
    artifacts: str | None = None
    """What was done with the file of artifacts: `loaded`, `saved`, or `empty`; None without one."""
    tuned: TunedChoices | None = None
    """None where nothing was to be tuned."""
    began_empty: bool = False
    """Whether no graph was in it before: what hit was compiled in the same phase."""

    @property
    def was_spared(self) -> bool:
        """Whether something that takes most of a cold compilation was found: not in this process's cache, but
        in files of others.

        Without such files, products are only found that the process tuned for a smaller workload.
        """
        tuned = self.artifacts is not None and self.tuned is not None and self.tuned.hits > 0
        return self.artifacts == "loaded" or tuned

    @property
    def state(self) -> str:
        """`cold`, `warm`, or `mixed` where the cache was bypassed, or spared a part of compiling."""
        if self.bypasses or (self.hits and self.misses and not self.began_empty):
            return "mixed"
        return "warm" if self.hits and not self.misses else "cold"


# What was measured


class Telemetry(Struct):
    """The GPU and its host over one generation: NVML's readings and the kernel's.

    A reading that the card, its driver or a container refuses is None or left out; `unavailable` says why.
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
    """Which of NVML's families of counters `throttled_ms` comes from."""
    foreign_processes: tuple[str, ...] | None = None
    """One phrase for each process that does not belong to this session."""
    ecc_errors: dict[str, int] = msgspec.field(default_factory=dict)
    """`corrected` and `uncorrected` memory errors during the generation."""
    unaccounted_mib: float | None = None
    """Growth of the memory in use during the generation beyond what this worker's allocator took."""
    allocated_before_mib: float | None = None
    """Held by processes before this worker computed; None where another of the session computed."""
    idle_utilization_pct: float | None = None
    """Of the GPU before this worker computed."""
    load_per_core: float | None = None
    """Load average of the host over the last minute, divided by its processors."""
    cpu_pressure_pct: float | None = None
    """Share of the generation in which some task waited for a processor (PSI); None where the session
    measures on other cards of the host, too."""
    launch_delay_pct: float | None = None
    """Share of the generation in which the thread that launches kernels was ready and had no processor; only
    where the session measures on other cards of the host, too."""
    unavailable: dict[str, str] = msgspec.field(default_factory=dict)
    """Reading -> why it is missing."""


class Sample(Struct):
    """One generation."""

    values: dict[str, tuple[float, ...]]
    """Metric name -> what was measured; one value per step for `denoise_step_ms`."""
    output_sha256: str
    """Of its output as float32, channels last: what a `.npy` capture of it holds after its header."""
    telemetry: Telemetry | None = None
    """None on the CPU."""
    pair: int = 0
    """Index of its prompt and seed (`Workload.of_pair`); 0 in older records."""


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
    """What a pipeline computed before it was quantized and compiled: bf16 eager, in the same process."""

    arrays: Arrays
    picture: Capture | None = None
    """Of the first prompt and seed; only of a pipeline that is compiled but not quantized, whose noise floor
    it shows."""
