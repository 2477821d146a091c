"""What a run leaves behind, raw samples included: `run.json` is a `RunRecord` as JSON."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from perf_tests.harness.records.attributions import Attribution, Corner, cell_id, diagonal_id
from perf_tests.harness.records.builds import BuildReport
from perf_tests.harness.records.evidence import Evidence
from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.records.process_ends import SamplingEnd, WarmUpEnd
from perf_tests.harness.runs.plan import Plan
from perf_tests.protocol.base import Struct
from perf_tests.protocol.messages import Failure, FailureKind
from perf_tests.protocol.reports import (
    Arrays,
    Capture,
    Environment,
    Recorded,
    Sample,
)

FORMAT_VERSION = 1  # the first format


class Status(StrEnum):
    """The outcome of a verdict or of a whole case."""

    PASS = "PASS"
    IMPROVED = "IMPROVED"
    SURPRISE = "IMPROVED(unexplained)"
    """Better than the metric's surprise bound allows without a reason."""
    NOT_COMPARED = "NOT_COMPARED"
    """The baseline says nothing about the value: it is of other versions of the packages that decide it, or
    the run was spared what it measures."""
    REGRESSED = "REGRESSED"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    """Regressed, known, and put up with for a time (`baselines/<platform>/acknowledged.json`)."""
    STALE = "ACKNOWLEDGED(green)"
    """Green, while an acknowledgement says that it is regressed."""
    INCONCLUSIVE = "INCONCLUSIVE"
    INVALID = "INVALID"
    NO_BASELINE = "NO_BASELINE"
    OOM = "ERROR(oom)"
    TIMEOUT = "ERROR(timeout)"
    CRASH = "ERROR(crash)"
    NUMERICS = "ERROR(numerics)"
    LOAD = "ERROR(load)"
    UNPROVEN = "ERROR(unproven)"
    UNSUPPORTED = "UNSUPPORTED"
    NOT_RUN = "NOT_RUN(budget)"

    @property
    def is_error(self) -> bool:
        """Whether the case could not be measured as asked."""
        return self.value.startswith("ERROR(")

    @property
    def is_green(self) -> bool:
        """Whether the status leaves the session green."""
        return self in GREEN


GREEN = frozenset(
    {Status.PASS, Status.IMPROVED, Status.NOT_COMPARED, Status.UNSUPPORTED, Status.ACKNOWLEDGED}
)


class Progress(StrEnum):
    """How far a run has come; its status says how well it did."""

    PLANNED = "planned"
    """Nothing was measured yet."""
    INTERRUPTED = "interrupted"
    """The session ended before it had all its processes."""
    MEASURED = "measured"
    """It needs no further process: it has enough, or one failed. INCONCLUSIVE means "not judged yet"."""
    JUDGED = "judged"
    """Its outcome is filed. INCONCLUSIVE means that the measurements decide nothing."""


REASON_OF_PROGRESS = {
    Progress.PLANNED: "not measured",
    Progress.INTERRUPTED: "interrupted",
    Progress.MEASURED: "measured, not judged",
}
"""`Run.reason` of a run that is not judged yet and did not fail."""
STATUS_OF_FAILURE = {kind: Status[kind.name] for kind in FailureKind}


def status_of(failure: Failure) -> Status:
    """The status of a case that failed so: INVALID where the failure is excused."""
    return Status.INVALID if failure.excuse else STATUS_OF_FAILURE[failure.kind]


class Verdict(Struct):
    """One metric of one case, judged."""

    metric: str
    status: Status
    measured: float | None
    """None where nothing was measured."""
    baseline: float | None
    """None without a baseline."""
    change_pct: float | None
    ci_pct: tuple[float, float] | None
    """95 % interval of `change_pct`; None where the metric has no noise, or unknown noise."""
    limit: float | None
    """The value beyond which the metric is REGRESSED."""
    reason: str
    """One sentence, always."""
    family_ci_pct: tuple[float, float] | None = None
    """The interval at the error level of all noisy metrics and looks of the session together; it excludes 0
    for REGRESSED and IMPROVED."""
    wants_more: bool = False
    """Whether further processes could have decided it."""


class Process(Struct):
    """One fresh worker process: the unit of replication."""

    environment: Environment
    build: BuildReport
    warmups: tuple[Sample, ...] = ()
    samples: tuple[Sample, ...] = ()
    retaken: tuple[Sample, ...] = ()
    """Invalid samples that were replaced by others."""
    warmup_end: WarmUpEnd | None = None
    """None where it was not recorded or not reached."""
    sampling_end: SamplingEnd | None = None
    """None where it was not recorded or not reached."""
    twin_samples: tuple[Sample, ...] = ()
    """The fp32 twin's generations, the i-th measured along with `samples[i]`; empty where not interleaved."""
    captures: tuple[Capture, ...] = ()
    """The output of each pair of prompt and seed; in the first process only."""
    recorded: Recorded | None = None
    """What it computed before it was quantized and compiled; of the first process only."""
    arrays: Arrays | None = None
    """What the pipeline that was timed computes for those same inputs; of the first process only."""
    fidelity: Fidelity | None = None
    """None without a reference."""
    noise: Fidelity | None = None
    """How a compiled reference differs from itself before it was compiled: the noise floor."""
    log: str = ""
    """The worker's output, a file of the run directory."""


class Run(Struct):
    """Everything measured for one case."""

    id: str
    digest: str
    platform: str
    pipeline: str
    status: Status
    reason: str = ""
    """Why, for every status except PASS."""
    reference: str | None = None
    """Id of the bf16 reference; None for a case that is one."""
    injected: tuple[str, ...] = ()
    """The faults of a fire drill: a run with any of them is never accepted as a baseline."""
    verdicts: tuple[Verdict, ...] = ()
    measured: dict[str, float] = msgspec.field(default_factory=dict)
    """Metric name -> median over the processes; of every metric that was measured, gated or only shown."""
    processes: tuple[Process, ...] = ()
    failure: Failure | None = None
    projected: bool = False
    """Whether `latency_s` and `device_latency_s` are composed from stages of a shorter generation."""
    looks: tuple[str, ...] = ()
    """What the sampling rule answered after each process."""
    progress: Progress = Progress.JUDGED
    """How far it has come; `read_record` sets it for records that are older than this field."""
    part: int | None = None
    """Number of the shard that measured it, in a merged record."""


class Side(StrEnum):
    """One of the two stacks of a comparison."""

    STABLE = "stable"
    """A, the stack to compare with (`--perf-against`)."""
    CANDIDATE = "candidate"
    """B, the stack under test (`--perf-python`)."""


class Schedule(StrEnum):
    """How the two workers of a pair share the device."""

    RESIDENT = "resident"
    """Both hold their pipelines and take turns generating: A B B A."""
    BY_PROCESS = "by-process"
    """One after the other, each alone; the next pair starts with the other side."""


class Pair(Struct):
    """A fresh worker under each of two interpreters, measured together."""

    stable: Process
    candidate: Process


class Comparison(Struct):
    """A case measured under two stacks on one device in one session (A/B)."""

    id: str
    """Id of the case."""
    digest: str
    platform: str
    pipeline: str
    against: str
    """The interpreter of the stable stack, as the option gave it."""
    schedule: Schedule
    schedule_reason: str
    status: Status
    reason: str = ""
    """Why, for every status except PASS."""
    injected: tuple[str, ...] = ()
    """The faults of a fire drill, injected into the candidate only."""
    stable: Environment | None = None
    """None before a worker of the stable stack was ready."""
    candidate: Environment | None = None
    pairs: tuple[Pair, ...] = ()
    """Their device-level memory counters are left out where both workers were resident."""
    verdicts: tuple[Verdict, ...] = ()
    """Times of the candidate against those of the stable stack, which take the place of the baseline."""
    level: float | None = None
    """Upper bound on the probability of a red verdict where the stacks are equal; None without verdicts."""
    failure: Failure | None = None
    failed_side: Side | None = None
    """The side that failed; None without a failure."""
    python: str = ""
    """The interpreter of the candidate; empty for that of the session (`--perf-python`)."""

    def processes(self, side: Side) -> tuple[Process, ...]:
        """The processes of one side, in the order of the pairs."""
        return tuple(pair.stable if side is Side.STABLE else pair.candidate for pair in self.pairs)


class Diagonal(Struct):
    """Two of the four stacks of an attribution, compared on one case."""

    candidate: Corner
    stable: Corner
    comparison: Comparison

    @property
    def id(self) -> str:
        """What tells it from the others of a record."""
        return diagonal_id(self.comparison.id, (self.candidate, self.stable))


class CellProcess(Struct):
    """A case in one process of one of the four stacks, for what a process tells exactly."""

    case: str
    digest: str
    injected: tuple[str, ...]
    corner: Corner
    python: str
    """The interpreter, as `--perf-stacks` names it."""
    environment: Environment
    process: Process | None = None
    """None where it failed."""
    failure: Failure | None = None

    @property
    def id(self) -> str:
        """What tells it from the others of a record."""
        return cell_id(self.case, self.corner)


class RunRecord(Struct):
    """One session: `run.json`."""

    format_version: int
    created_at: str
    """ISO 8601, UTC."""
    command: str
    environment: Environment | None
    """None before the first worker was ready."""
    cases: tuple[Run, ...]
    references: tuple[Run, ...]
    missing: tuple[str, ...] = ()
    """`case: metric` for each that was planned and has neither a verdict nor a declared status."""
    comparisons: tuple[Comparison, ...] = ()
    """The A/B comparisons of this session; empty without `--perf-against`."""
    plan: Plan | None = None
    """None in older records."""
    diagonals: tuple[Diagonal, ...] = ()
    """The further comparisons that attribution took; empty without `--perf-stacks`."""
    cells: tuple[CellProcess, ...] = ()
    """The single processes that attribution took; empty without `--perf-stacks`, and in older records."""
    attributions: tuple[Attribution, ...] = ()
    """Which package made what red, a cluster of cases each; empty without `--perf-stacks`."""
    evidence: tuple[Evidence, ...] = ()
    """What was recorded of red cases once everything was timed; empty in older records."""
