"""TABLE: the machines that have baselines, and how each is recognised."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from perf_tests.tables.schemes.rows import SCHEMES


class Device(StrEnum):
    """The torch device type a platform's pipelines live on."""

    CPU = "cpu"
    CUDA = "cuda"


class WorkerStart(StrEnum):
    """How the process of a worker comes by the stack that it imports."""

    AHEAD = "ahead"
    """It is an interpreter of its own, which imports while another worker does what is not timed."""
    FORKED = "forked"
    """It is forked from a process that has imported the stack. Workers then share the addresses of libraries,
    which is part of the noise between processes: only where no time is judged by that noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """Seconds a worker may take for each phase before it is killed."""

    import_s: float
    load_s: float
    quantize_s: float
    compile_s: float
    generate_s: float
    """One generation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuMatch:
    """What a GPU must report to be this platform. The name alone is not enough: MIG slices,
    power-limited cards and PCIe cards share it, or parts of it, with the full-speed card."""

    name: str
    """The exact product name, as NVML reports it."""
    capability: tuple[int, int]
    memory_gib: tuple[float, float]
    """Lowest and highest total memory."""
    power_limit_w: tuple[float, float]
    """Lowest and highest enforced power limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """How far the statistics of fresh processes scatter while the code is unchanged."""

    sd_pct: float
    """Standard deviation, in percent."""
    dof: int
    """Degrees of freedom of that estimate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Platform:
    """A kind of machine: pytest marker, folder under baselines/, and the name in every record."""

    id: str
    device: Device
    gpu: GpuMatch | None
    """None for the CPU platform."""
    timeouts: Timeouts
    process_noise: Noise | None
    """The noise of noisy metrics that is assumed until the platform has baselines, which refine it
    (`baselines/<platform>/noise.json`); None where no noisy metric is gated."""
    unit_tolerance_pct: float
    """Relative tolerance of absolute times on another unit (another card; another processor model) of
    the same platform than the one the baseline was taken on."""
    between_cards: Mapping[str, Noise] = field(default_factory=dict, hash=False, kw_only=True)
    """Noisy metric of absolute time -> how far unchanged code lies apart on different cards of the platform;
    others are judged by `unit_tolerance_pct` on another card."""
    cold_start_s: float
    """How much longer importing and loading take in the first worker of a session, whose files are not in
    memory yet; only used to forecast costs."""
    samples: int
    """Timed generations per process: exactly so many with `interleave_twin`, at least so many without. More
    than there are pairs of prompt and seed, so that the first pair is repeated."""
    probe: bool
    """Whether the transformer's output is compared with its own before quantization."""
    interleave_twin: bool
    """Whether every case is measured alternately with its fp32 eager twin."""
    worker_start: WorkerStart
    required_schemes: tuple[str, ...]
    """Ids of the schemes whose loss of support is a failure, not a skip."""
    peak_tflops: dict[str, float] = field(default_factory=dict, hash=False)
    """What a GEMM multiplies (`Scheme.gemm`) -> the peak TFLOP/s of the processor; empty where times are not
    compared with a roofline."""


def _schemes_with_kernels(capability: tuple[int, int] | None) -> tuple[str, ...]:
    """Ids of the schemes whose kernels a GPU of that compute capability has; None: a CPU."""
    return tuple(scheme.id for scheme in SCHEMES if scheme.has_kernels(capability))


HOPPER_CAPABILITY = (9, 0)
# NVIDIA H100 SXM data sheet, dense: 989.4 TFLOP/s in 16 bits, twice that in 8; int4 is multiplied as int8.
# The H200 has the same processor.
HOPPER_PEAK_TFLOPS = {
    "bfloat16": 989.4,
    "float16": 989.4,
    "float8_e4m3fn": 1978.9,
    "int8": 1978.9,
    "int4": 1978.9,
    "int8-2:4": 3957.8,
}
# On an H200, tuning all kernels of a float8 transformer and a decoder took 1214 s: half as long again.
GPU_TIMEOUTS = Timeouts(import_s=180, load_s=600, quantize_s=180, compile_s=1800, generate_s=900)

CPU = Platform(
    id="cpu",
    device=Device.CPU,
    gpu=None,
    timeouts=Timeouts(import_s=120, load_s=60, quantize_s=60, compile_s=300, generate_s=60),
    process_noise=None,
    unit_tolerance_pct=300.0,
    cold_start_s=0.0,
    # Each pair once and the first again: all that pictures and counters need. In 66 processes of 16 rows the
    # ratio to fp32 of five images lay within 15 % of that of nine (standard deviation 5 %, and the gate is
    # 75 %), and no process grew by 0.01 MiB an image by either.
    samples=5,
    probe=True,
    interleave_twin=True,
    worker_start=WorkerStart.FORKED,
    required_schemes=_schemes_with_kernels(None),
)
H100 = Platform(
    id="h100",
    device=Device.CUDA,
    gpu=GpuMatch(
        name="NVIDIA H100 80GB HBM3",
        capability=HOPPER_CAPABILITY,
        memory_gib=(79.0, 81.0),
        power_limit_w=(650.0, 750.0),
    ),
    timeouts=GPU_TIMEOUTS,
    # Seven fresh processes of FLUX.1-dev: 0.36 % quantized and compiled, 0.27 % bf16 eager.
    process_noise=Noise(sd_pct=0.36, dof=6),
    unit_tolerance_pct=8.0,
    # 10 rows on 2 to 8 of 16 cards each (`unit/data/h100-between-cards.csv`); the rows share the cards, which
    # leaves as many degrees of freedom as 8 cards of one row would.
    between_cards={
        "denoise_step_ms": Noise(sd_pct=0.82, dof=7),
        "decode_ms": Noise(sd_pct=0.38, dof=7),
    },
    # Seen at the start of three sessions on fresh machines: 16, 16 and 24.
    cold_start_s=16.0,
    samples=5,
    probe=False,
    interleave_twin=False,
    worker_start=WorkerStart.AHEAD,
    required_schemes=_schemes_with_kernels(HOPPER_CAPABILITY),
    peak_tflops=HOPPER_PEAK_TFLOPS,
)


def _not_yet_measured(platform_id: str, gpu: GpuMatch, peak_tflops: dict[str, float]) -> Platform:
    """The platform of a card whose noise and timeouts nobody has measured: `gpu` and `peak_tflops` are from
    its data sheet, everything else is the H100's until it is, but how far cards lie apart is not guessed."""
    return dataclasses.replace(
        H100,
        id=platform_id,
        gpu=gpu,
        required_schemes=_schemes_with_kernels(gpu.capability),
        peak_tflops=peak_tflops,
        # Two H200s lay 7 % apart in a step of unchanged code, which the H100's noise calls a regression.
        between_cards={},
    )


H200 = _not_yet_measured(
    "h200",
    GpuMatch(
        name="NVIDIA H200",
        capability=HOPPER_CAPABILITY,
        memory_gib=(139.0, 142.0),
        power_limit_w=(650.0, 750.0),
    ),
    HOPPER_PEAK_TFLOPS,
)
# NVIDIA A100 80GB SXM data sheet, dense, 400 W. It has no float8 units: where autoquant would choose
# float8, int8 is the fastest that is left.
A100 = _not_yet_measured(
    "a100",
    GpuMatch(
        name="NVIDIA A100-SXM4-80GB",
        capability=(8, 0),
        memory_gib=(79.0, 81.0),
        power_limit_w=(375.0, 425.0),
    ),
    {
        "bfloat16": 312.0,
        "float16": 312.0,
        "float8_e4m3fn": 624.0,
        "int8": 624.0,
        "int4": 1248.0,
        "int8-2:4": 1248.0,
    },
)
# NVIDIA HGX B200 data sheet, an eighth of the board, dense, 1000 W; int4 is multiplied as int8. The memory
# is what nvidia-smi reports (183359 MiB).
B200 = _not_yet_measured(
    "b200",
    GpuMatch(
        name="NVIDIA B200",
        capability=(10, 0),
        memory_gib=(178.0, 181.0),
        power_limit_w=(950.0, 1050.0),
    ),
    {
        "bfloat16": 2250.0,
        "float16": 2250.0,
        "float8_e4m3fn": 4500.0,
        "float4_e2m1": 9000.0,
        "int8": 4500.0,
        "int4": 4500.0,
        "int8-2:4": 9000.0,
    },
)

PLATFORMS = (CPU, H100, H200, A100, B200)
PLATFORM_BY_ID = {platform.id: platform for platform in PLATFORMS}
