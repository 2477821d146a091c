"""Measures a row of this suite in a version: a session whose workers use its interpreter."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perf_tests.harness.bisecting.commands import CandidateError, Commands
from perf_tests.harness.runs.record import RunRecord, Status
from perf_tests.harness.runs.record_file import read_record
from perf_tests.harness.stats import observations
from perf_tests.protocol.errors import RecordError
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.platforms import PLATFORM_BY_ID, Platform

ROOT = Path(__file__).parents[3]
TESTS = tuple(str(path) for path in sorted((ROOT / "perf_tests").glob("test_*.py")))
GREEN, RED = 0, 1
"""Exit codes of pytest with which a session has measured; what it says of the row is not asked."""
TWO_SIDED_95 = 1.96
MEDIAN_TO_MEAN_SD = math.sqrt(math.pi / 2)
"""Standard error of the median of many normal values, over that of their mean; of three it is 1.16."""
UNUSABLE = (Status.INVALID, Status.NOT_RUN, Status.UNSUPPORTED)


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteRow:
    """How a version is measured: by one metric of one case."""

    case: str
    metric: str
    processes: int
    out: Path
    """For the run directory of each version."""
    commands: Commands
    options: tuple[str, ...] = ()
    """Further ones of pytest."""
    # Else the first process would load more slowly, and warnings of what it compiles would be errors.
    uv_arguments: tuple[str, ...] = ("--compile-bytecode",)

    def measure(self, folder: Path | None, variables: Mapping[str, str | None]) -> tuple[float, float]:
        """The median over the processes, and half its 95 % interval.

        Raises CandidateError where the case cannot be measured as asked, so that its number is no level.
        """
        run_directory = self.out.absolute() / str(variables["VERSION"])
        python = variables["PYTHON"]
        command = (
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS),
            *(f"--perf-case={self.case}", f"--perf-python={python}", f"--perf-out={run_directory}"),
            *(f"--perf-processes={self.processes}", f"--perf-max-processes={self.processes}", *self.options),
        )
        self.commands.run(command, ROOT, accepted=(GREEN, RED))
        try:
            record = read_record(run_directory)
        except RecordError as error:
            raise CandidateError(str(error)) from error
        return self._level(record)

    def _level(self, record: RunRecord) -> tuple[float, float]:
        run = next((each for each in record.cases if each.id == self.case), None)
        if run is None:
            raise CandidateError(f"the session measured no {self.case}")
        if run.failure is not None or run.status in UNUSABLE:
            raise CandidateError(f"{run.status}: {run.reason}")
        reference = next(
            (each for each in record.references + record.cases if each.id == run.reference), None
        )
        metric = METRIC_BY_NAME[self.metric]
        found = observations.observe(metric, run, reference)
        if found.missing is not None:
            raise CandidateError(found.missing)
        level = statistics.median(found.values)
        return level, half_interval(
            level, found.values, PLATFORM_BY_ID[run.platform]
        ) if metric.is_noisy else 0.0


def half_interval(level: float, values: Sequence[float], platform: Platform) -> float:
    """Half the 95 % interval of the median of processes, whose noise is known, or else shown by them.

    Raises CandidateError for a single process whose noise nobody knows.
    """
    if platform.process_noise is not None:
        sd = level * platform.process_noise.sd_pct / 100 / math.sqrt(len(values))
        return TWO_SIDED_95 * sd * (MEDIAN_TO_MEAN_SD if len(values) > 2 else 1.0)  # of two it is the mean
    if len(values) == 1:
        raise CandidateError(f"nobody knows the noise of {platform.id}: give --processes 3 or more")
    return max(values) - min(values)
