"""Values for tests: whole records with defaults, of which a test names only what it is about."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from perf_tests.harness.baselines import files, transaction
from perf_tests.harness.baselines.entry import Accepted, Baselines, Entry, Provenance
from perf_tests.harness.records.builds import BuildReport
from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.runs.record import (
    FORMAT_VERSION,
    Process,
    Progress,
    Run,
    RunRecord,
    Status,
    Verdict,
)
from perf_tests.harness.stats.sequential_bounds import metric_level
from perf_tests.harness.verdicts.gates import gated_metrics
from perf_tests.harness.verdicts.noisy import Significance
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.reports import (
    CompileCache,
    ComponentState,
    Environment,
    Gpu,
    LayerError,
    MemoryWindow,
    ModuleGroup,
    PipelineState,
    PlanReport,
    Quantization,
    Sample,
    StepReport,
    Telemetry,
)
from perf_tests.tables.cases import Build, Case
from perf_tests.tables.metrics.rows import METRICS
from perf_tests.tables.metrics.spec import Metric, Reader
from perf_tests.tables.pipelines.flux import FLUX1_DEV, FLUX_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.platforms import CPU, Noise, Platform
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.schemes.rows import BF16, FP8DQROW, INT8WO

H100_UUID = "GPU-00000000-0000-0000-0000-000000000001"
CPU_MODEL = "Example CPU"
GPU = Gpu(
    name="NVIDIA H100 80GB HBM3",
    uuid=H100_UUID,
    capability=(9, 0),
    memory_gib=79.6,
    power_limit_w=700.0,
    driver="580.10",
)


def metric_named(name: str) -> Metric:
    """The row of the metric table."""
    return next(metric for metric in METRICS if metric.name == name)


def make_case(pipeline: PipelineSpec = FLUX_MINI, **recipe: Any) -> Case:
    """A case of `pipeline` with its default workload; bf16 eager unless `recipe` says otherwise."""
    return Case(
        build=Build(pipeline=pipeline, recipe=Recipe(**{"scheme": BF16, **recipe})),
        workload=pipeline.workload,
    )


MINI_BF16 = make_case()
MINI_INT8WO = make_case(scheme=INT8WO)
"""A quantized case of the CPU platform, in the matrix."""
FLUX_FP8 = make_case(FLUX1_DEV, scheme=FP8DQROW, compile=CompileMode.REGIONAL)
"""A quantized and compiled case of the GPU platforms, in the matrix."""


def make_environment(**changes: Any) -> Environment:
    """A worker on the CPU; `gpu=GPU` for one on an H100."""
    default = Environment(
        python="3.11.9",
        packages={"torch": "2.13.0", "torchao": "0.18.0"},
        gpu=None,
        cpu_model=CPU_MODEL,
        cpu_count=2,
        settings={"matmul_precision": "highest"},
        variables={},
    )
    return msgspec.structs.replace(default, **changes)


def make_memory(**changes: Any) -> MemoryWindow:
    """Peaks of a GPU worker."""
    default = MemoryWindow(allocated_mib=100.0, reserved_mib=120.0, device_mib=600.0, rss_mib=900.0)
    return msgspec.structs.replace(default, **changes)


def make_telemetry(**changes: Any) -> Telemetry:
    """An undisturbed GPU at its power cap, as is normal at full load."""
    default = Telemetry(
        sm_clock_mhz=1500.0,
        memory_clock_mhz=2619.0,
        power_w=690.0,
        temperature_c=60.0,
        throttle_reasons=("SwPowerCap",),
        throttled_ms={},
        compute_processes=1,
        device_used_mib=30000.0,
    )
    return msgspec.structs.replace(default, **changes)


MINI_COUNTS = {
    "transformer_calls": (4.0,),
    "text_encoder_calls": (1.0,),
    "text_encoder_2_calls": (1.0,),
    "decode_calls": (1.0,),
}
"""What a generation of the FLUX miniature counts."""


def make_sample(
    values: Mapping[str, Sequence[float]] | None = None,
    *,
    output: str = "a" * 64,
    telemetry: Telemetry | None = None,
) -> Sample:
    """One generation; every timed metric is 1.0 where `values` does not name it."""
    timed = {metric.name: (1.0,) for metric in METRICS if metric.reader is Reader.SAMPLES}
    named = {name: tuple(each) for name, each in (values or {}).items()}
    return Sample(values={**timed, **MINI_COUNTS, **named}, output_sha256=output, telemetry=telemetry)


def make_group(**changes: Any) -> ModuleGroup:
    """Four Linear modules of the transformer, quantized as int8wo says."""
    default = ModuleGroup(
        component="transformer",
        subclass="Int8Tensor",
        dtype="int8",
        scale="per-row",
        dynamic_activation=False,
        count=4,
        examples=("blocks.0.to_q", "blocks.0.to_k"),
    )
    return msgspec.structs.replace(default, **changes)


ORDINARY_GROUP = make_group(
    component="text_encoder",
    subclass="Parameter",
    dtype="bfloat16",
    scale=None,
    count=7,
    examples=("encoder.fc1",),
)


def make_quantization(*groups: ModuleGroup, **changes: Any) -> Quantization:
    """`groups`, or four modules quantized as int8wo says, with an ordinary text encoder."""
    default = Quantization(
        expected_modules=4,
        groups=(*(groups or (make_group(),)), ORDINARY_GROUP),
        excluded={},
        unquantized=(),
    )
    return msgspec.structs.replace(default, **changes)


def make_plan(**chosen: int) -> PlanReport:
    """A plan that was there already; `chosen`: scheme -> modules."""
    return PlanReport(file="plan.json", sha256="d" * 64, chosen=chosen, search_s=None)


LAYER = "transformer.transformer_blocks.0.attn.to_q"


def make_layers(**changes: Any) -> dict[str, LayerError]:
    """The errors of two layers, `changes` in that of the first, `LAYER`."""
    usual = LayerError(
        sqnr_db=40.0, gain=1.0, worst_row_sqnr_db=30.0, worst_row_gain=1.002, scale_error=0.001
    )
    first = msgspec.structs.replace(usual, **changes)
    return {LAYER: first, "transformer.transformer_blocks.1.attn.to_q": usual}


def make_state(*groups: ModuleGroup, **changes: Any) -> PipelineState:
    """A transformer with `groups`, by default four modules quantized as int8wo says; `changes` in it."""
    transformer = ComponentState(weight_bytes=4096, checksum=123456789, convolutions=2, channels_last=0)
    return PipelineState(
        components={"transformer": msgspec.structs.replace(transformer, **changes)},
        groups=groups or (make_group(),),
    )


EAGER_STEP = StepReport(
    blocks={"FluxTransformerBlock": 2, "FluxSingleTransformerBlock": 4},
    attention={"_scaled_dot_product_flash_attention_for_cpu": 10},
)
"""A step of the FLUX miniature in which nothing is compiled."""
COMPILED_STEP = msgspec.structs.replace(EAGER_STEP, blocks=dict.fromkeys(EAGER_STEP.blocks, 0))


def make_build(values: Mapping[str, float] | None = None, **changes: Any) -> BuildReport:
    """An eager int8wo build; what must be none is 0.0, every other metric of the whole process 1.0."""
    of_process = {metric.name: 1.0 for metric in METRICS if metric.reader is Reader.BUILD}
    default = BuildReport(
        seconds={"load": 1.0, "quantize": 1.0},
        memory={"load": make_memory()},
        weights={"transformer.proj_out.weight": "b" * 64},
        quantization=make_quantization(),
        cache=None,
        values={**of_process, "compiled_graphs": 0.0, "unfused_attention_calls": 0.0, **(values or {})},
        layers=make_layers(),
        state=make_state(),
        final_state=make_state(),
        step=EAGER_STEP,
    )
    return msgspec.structs.replace(default, **changes)


COLD_CACHE = CompileCache(hits=0, misses=6, bypasses=0)


FIDELITY = Fidelity(
    psnr_db=45.0,
    ssim=0.95,
    identical=False,
    step_sqnrs_db=(35.0, 34.0, 33.0, 34.0, 35.0),
    latents_sqnr_db=25.0,
)
"""Of one pair of pictures, and of the answers of a transformer."""


def make_process(**changes: Any) -> Process:
    """One process with five samples, a twin's sample for each, and a comparison with the reference."""
    makers: dict[str, Callable[[], Any]] = {
        "environment": make_environment,
        "build": make_build,
        "samples": lambda: (make_sample(),) * 5,
        "twin_samples": lambda: (make_sample(),) * 5,
        "fidelity": lambda: FIDELITY,
    }
    missing = {name: make() for name, make in makers.items() if name not in changes}
    return Process(**missing, **changes)


DIGESTS: list[tuple[Case, str]] = []


def digest_of(case: Case) -> str:
    """Its digest, computed once for each case: that takes longer than making all the rest of a run."""
    found = next((digest for known, digest in DIGESTS if known is case), None)
    if found is None:
        found = case.digest
        DIGESTS.append((case, found))
    return found


def make_run(case: Case = MINI_INT8WO, platform: Platform = CPU, **changes: Any) -> Run:
    """A measured run of `case` that was not judged, with one process."""
    if "processes" not in changes:
        environment = make_environment(gpu=GPU if platform.gpu else None)
        changes["processes"] = (make_process(environment=environment),)
    default = Run(
        id=case.id,
        digest=digest_of(case),
        platform=platform.id,
        pipeline=case.build.pipeline.id,
        status=Status.INCONCLUSIVE,
        reason="measured, not judged",
        progress=Progress.MEASURED,
        reference=None if case.is_reference else case.reference.id,
    )
    return msgspec.structs.replace(default, **changes)


def make_reference(case: Case = MINI_INT8WO, platform: Platform = CPU, **changes: Any) -> Run:
    """The run of the bf16 twin of `case`."""
    return make_run(case.reference, platform, **changes)


def make_verdict(metric: str, status: Status, **changes: Any) -> Verdict:
    """A verdict with a reason and no numbers."""
    default = Verdict(
        metric=metric,
        status=status,
        measured=None,
        baseline=None,
        change_pct=None,
        ci_pct=None,
        limit=None,
        reason=f"because of {metric}",
    )
    return msgspec.structs.replace(default, **changes)


def make_failure(**changes: Any) -> Failure:
    """A worker that ran out of memory while loading."""
    default = Failure(kind=FailureKind.OOM, phase=Phase.LOAD, message="out of memory at 79 GiB")
    return msgspec.structs.replace(default, **changes)


def make_provenance(**changes: Any) -> Provenance:
    """A first recording on the default CPU; `unit=H100_UUID` for one on the default GPU."""
    default = Provenance(
        recorded_at="2026-08-02T10:00:00+00:00",
        reason="first recording",
        run_sha256="c" * 64,
        unit=CPU_MODEL,
        gpu=None,
        power_limit_w=None,
        driver=None,
        python="3.11.9",
        packages={"torch": "2.13.0"},
        settings={},
    )
    return msgspec.structs.replace(default, **changes)


def make_entry(
    metrics: Mapping[str, Sequence[float]] | None = None, *, case: Case = MINI_INT8WO, **changes: Any
) -> Entry:
    """The accepted numbers of `case`; every gated metric of the CPU platform is 1.0 by default."""
    named = {metric.name: (1.0,) for metric in gated_metrics(case, CPU)} if metrics is None else metrics
    values = {name: tuple(each) for name, each in named.items()}
    default = Entry(
        digest=digest_of(case),
        provenance="p1",
        processes=max(len(each) for each in values.values()),
        metrics=values,
        layers=make_layers(),
    )
    return msgspec.structs.replace(default, **changes)


def make_accepted(entry: Entry | None = None, **provenance: Any) -> Accepted:
    """`entry` as it was accepted, recorded on the default CPU; `unit=H100_UUID` for the default GPU."""
    return Accepted(entry=entry or make_entry(), provenance=make_provenance(**provenance))


def make_baselines(**changes: Any) -> Baselines:
    """flux-mini on the CPU platform, with one entry."""
    default = Baselines(
        platform=CPU.id,
        pipeline=FLUX_MINI.id,
        cases={MINI_INT8WO.id: make_entry()},
        provenance={"p1": make_provenance()},
    )
    return msgspec.structs.replace(default, **changes)


def store_baselines(root: Path, baselines: Baselines) -> None:
    """Write `baselines` under `root`, in place of others of the same pipeline and platform."""
    with transaction.exclusive(root):
        transaction.replace_all(root, files.contents(root, baselines))


def make_record(*cases: Run, references: tuple[Run, ...] | None = None, **changes: Any) -> RunRecord:
    """A session of `cases`, or of int8wo on flux-mini, with the bf16 reference."""
    default = RunRecord(
        format_version=FORMAT_VERSION,
        created_at="2026-08-02T10:00:00+00:00",
        command="pytest -m cpu",
        environment=make_environment(),
        cases=cases or (make_run(),),
        references=(make_reference(),) if references is None else references,
    )
    return msgspec.structs.replace(default, **changes)


def make_significance(**changes: Any) -> Significance:
    """60 noisy metrics of a platform with 0.36 % between processes, of which up to five may be asked for."""
    noise = {metric.name: Noise(sd_pct=0.36, dof=60) for metric in METRICS if metric.is_noisy}
    default = Significance(noise=noise, level=metric_level(60), max_processes=5)
    return dataclasses.replace(default, **changes)


T = TypeVar("T")


def for_each(rows: Iterable[T]) -> Callable[[Callable[[T], None]], Callable[[], None]]:
    """One test of all `rows`: to report thousands of tests would take longer than to check the rows."""

    def decorate(check: Callable[[T], None]) -> Callable[[], None]:
        def test() -> None:
            for row in rows:
                check(row)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate
