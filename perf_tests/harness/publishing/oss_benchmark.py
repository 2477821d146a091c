"""A run for PyTorch's benchmark database: one record a metric, in version 3 of its format; pure.

The columns are those of `benchmark.oss_ci_benchmark_v3` in pytorch/test-infra, whose uploader reads a JSON
object a line. Values are Float32 there: bytes are given in MiB, and exactly in `extra_info`, a map of texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

import msgspec

from perf_tests.harness.history.night import COMMIT, METHODOLOGY, PACKAGES, card_of
from perf_tests.harness.processes.plain_text import harmless
from perf_tests.harness.publishing.measurements import Measurement
from perf_tests.harness.runs.record import RunRecord
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import RecordError
from perf_tests.protocol.reports import Environment

NAME = "diffusion-perf-tests"
VERSION = "v3"
MIB = 1 << 20
FLOAT32_EXACT = 1 << 24
"""The largest integer up to which Float32 holds every one."""
HEAD = re.compile(r"([0-9a-f]{40})(?:\+[0-9a-f]{12})?$")
"""The last commit that measured; what was changed in its checkout is told beside it, in full."""
REPOSITORIES = {
    "torch": "pytorch/pytorch",
    "triton": "triton-lang/triton",
    "torchao": "pytorch/ao",
    "diffusers": "huggingface/diffusers",
    "transformers": "huggingface/transformers",
}


class OssOrigin(Struct):
    """Where a run took place, as GitHub tells it; for one by hand the zeros that the database has then."""

    repo: str = ""
    branch: str = ""
    workflow_id: int = 0
    run_attempt: int = 0
    job_id: int = 0


class OssRunner(Struct, omit_defaults=True):
    """A card or processor that measured."""

    name: str
    """What the dashboards call the device: `cuda` or `cpu`."""
    type: str
    """What they call the architecture: the model of the card or processor."""
    cpu_info: str
    cpu_count: int
    gpu_info: str = ""
    gpu_count: int = 0
    gpu_mem_info: str = ""
    avail_gpu_mem_in_gb: int = 0
    extra_info: dict[str, str] = msgspec.field(default_factory=dict)


class OssBenchmark(Struct):
    """What was measured, and how."""

    name: str
    mode: str
    dtype: str
    extra_info: dict[str, str]


class OssModel(Struct):
    """The case, by its id, so that rows of one pipeline which differ in batch size or toggles stay apart."""

    name: str
    type: str
    backend: str
    origins: tuple[str, ...]
    extra_info: dict[str, str]


class OssInput(Struct):
    """What one generation is asked for."""

    dtype: str
    extra_info: dict[str, str]


class OssDependency(Struct):
    """A package of the stack."""

    repo: str
    branch: str
    sha: str
    version: str
    extra_info: dict[str, str]


class OssMetric(Struct):
    """The values, one for each process."""

    name: str
    benchmark_values: tuple[float, ...]
    extra_info: dict[str, str]


class OssRecord(Struct):
    """One row of the database."""

    timestamp: int
    """Seconds since 1970: when the run began."""
    schema_version: str
    name: str
    repo: str
    head_branch: str
    head_sha: str
    workflow_id: int
    run_attempt: int
    job_id: int
    runners: tuple[OssRunner, ...]
    benchmark: OssBenchmark
    model: OssModel
    inputs: dict[str, OssInput]
    dependencies: dict[str, OssDependency]
    metric: OssMetric


def records(
    record: RunRecord, found: Iterable[Measurement], origin: OssOrigin, wheels: Mapping[str, str]
) -> Iterator[OssRecord]:
    """A row of the database for each of the measurements `found` in `record`.

    `wheels` maps packages to the addresses that they were installed from. Raises RecordError for a record
    without a date.
    """
    timestamp = _timestamp(record)
    suite = record.plan.commit if record.plan is not None else None
    head = HEAD.search(suite or "")
    for each in found:
        environments = [process.environment for process in each.run.processes]
        yield OssRecord(
            timestamp=timestamp,
            schema_version=VERSION,
            name=NAME,
            repo=origin.repo,
            head_branch=origin.branch,
            head_sha=head[1] if head else "",
            workflow_id=origin.workflow_id,
            run_attempt=origin.run_attempt,
            job_id=origin.job_id,
            runners=tuple(_runners(environments)),
            benchmark=_benchmark(each, environments[0], suite),
            model=_model(each),
            inputs={"workload": OssInput(dtype="", extra_info=_workload(each))},
            dependencies=_dependencies(environments[0], wheels),
            metric=_metric(each),
        )


def dumps(rows: Iterable[OssRecord]) -> str:
    """A line of JSON for each row."""
    return "".join(f"{msgspec.json.encode(row).decode()}\n" for row in rows)


def _timestamp(record: RunRecord) -> int:
    try:
        began = datetime.fromisoformat(record.created_at)
    except ValueError:
        raise RecordError(f"the run began at {record.created_at!r}, which is no date") from None
    return int((began.replace(tzinfo=UTC) if began.tzinfo is None else began).timestamp())


def _texts(**known: object) -> dict[str, str]:
    """A Map(String, String), without what is not known."""
    return {name: harmless(str(value)) for name, value in known.items() if value not in (None, "")}


def _runners(environments: Iterable[Environment]) -> Iterator[OssRunner]:
    """Each card or processor once; cards under a hash, since the database is public."""
    for environment in {each.unit: each for each in environments}.values():
        gpu = environment.gpu
        if gpu is None:
            yield OssRunner(
                name="cpu",
                type=harmless(environment.cpu_model),
                cpu_info=harmless(environment.cpu_model),
                cpu_count=environment.cpu_count,
            )
            continue
        yield OssRunner(
            name="cuda",
            type=harmless(gpu.name),
            cpu_info=harmless(environment.cpu_model),
            cpu_count=environment.cpu_count,
            gpu_info=harmless(gpu.name),
            gpu_count=1,
            gpu_mem_info=f"{gpu.memory_gib:.1f} GiB",
            avail_gpu_mem_in_gb=int(gpu.memory_gib),
            extra_info=_texts(
                card=card_of(environment.unit), driver=gpu.driver, power_limit_w=f"{gpu.power_limit_w:g}"
            ),
        )


def _benchmark(each: Measurement, environment: Environment, suite: str | None) -> OssBenchmark:
    recipe = each.case.build.recipe
    return OssBenchmark(
        name=NAME,
        mode="training" if each.case.is_training else "inference",
        dtype=recipe.scheme.id,
        extra_info=_texts(
            device="cuda" if environment.gpu else "cpu",
            arch=environment.gpu.name if environment.gpu else environment.cpu_model,
            use_compile=str(recipe.compiles).lower(),
            platform=each.run.platform,
            digest=each.run.digest,
            methodology=METHODOLOGY,
            suite=suite,
        ),
    )


def _model(each: Measurement) -> OssModel:
    build = each.case.build
    return OssModel(
        name=each.run.id,
        type=build.pipeline.id,
        backend=build.recipe.compile.value,
        origins=(build.pipeline.repo,),
        extra_info=_texts(revision=build.pipeline.revision, weights=build.weights.value),
    )


def _workload(each: Measurement) -> dict[str, str]:
    workload = each.case.workload
    return _texts(
        batch_size=workload.batch_size,
        height=workload.height,
        width=workload.width,
        frames=workload.num_frames,
        steps=each.case.steps,
    )


def _dependencies(environment: Environment, wheels: Mapping[str, str]) -> dict[str, OssDependency]:
    return {
        name: OssDependency(
            repo=REPOSITORIES[name],
            branch="",  # a version and a commit say more
            sha=commit[1] if (commit := COMMIT.search(environment.packages[name])) else "",
            version=harmless(environment.packages[name].partition(" (")[0]),
            extra_info=_texts(wheel=wheels.get(name)),
        )
        for name in PACKAGES
        if name in environment.packages
    }


def _metric(each: Measurement) -> OssMetric:
    metric, verdict = each.metric, each.verdict
    in_bytes = metric.units == "B"
    is_rounded = any(value.is_integer() and abs(value) > FLOAT32_EXACT for value in each.values)
    exact = " ".join(f"{value:.0f}" if value.is_integer() else repr(value) for value in each.values)
    return OssMetric(
        name=metric.name.replace("bytes", "mib") if in_bytes else metric.name,
        benchmark_values=tuple(value / MIB for value in each.values) if in_bytes else each.values,
        extra_info=_texts(
            unit="MiB" if in_bytes else metric.units,
            better=metric.better.value,
            status=verdict.status.value,
            exact_bytes=exact if in_bytes else None,
            exact=exact if is_rounded and not in_bytes else None,
            baseline=None if verdict.baseline is None else repr(verdict.baseline),
            limit=None if verdict.limit is None else repr(verdict.limit),
        ),
    )
