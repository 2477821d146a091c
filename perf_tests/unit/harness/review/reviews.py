"""What the tests of reviews share: a store of five cases, and a run in which all five have changed."""

from __future__ import annotations

from pathlib import Path

import msgspec

from perf_tests.harness.baselines import files
from perf_tests.harness.runs.record import RunRecord
from perf_tests.harness.runs.record_file import write_record
from perf_tests.tables.cases import Case
from perf_tests.tables.schemes.rows import FP8WO, INT4DQ, INT8DQ
from perf_tests.unit.builders import (
    MINI_BF16,
    MINI_INT8WO,
    make_build,
    make_case,
    make_process,
    make_record,
    make_run,
)
from perf_tests.unit.conftest import rebaseline

FIVE: tuple[Case, ...] = (
    MINI_BF16,
    MINI_INT8WO,
    make_case(scheme=INT8DQ),
    make_case(scheme=FP8WO),
    make_case(scheme=INT4DQ),
)
"""In the order of the run. Where the last has grown most, it is asked about first."""
LARGEST_FIRST = tuple(case.id for case in reversed(FIVE))


def record(*grown_pct: float) -> RunRecord:
    """A run of the five cases, with weights that have grown by that many percent."""
    runs = tuple(
        make_run(case, processes=(make_process(build=make_build({"weight_bytes": 1000.0 + 10 * pct})),))
        for case, pct in zip(FIVE, grown_pct, strict=True)
    )
    return msgspec.structs.replace(make_record(*runs), created_at="2026-08-03T10:00:00+00:00")


def write_run(folder: Path, made: RunRecord) -> Path:
    """Write a run directory."""
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder / "run.json", made)
    return folder


def stored(tmp_path: Path) -> Path:
    """A store that holds the five cases as they were."""
    run = write_run(tmp_path / "first", record(0, 0, 0, 0, 0))
    root = tmp_path / "baselines"
    accept = ["apply", str(run), "--only", "*", "--reason", "first numbers", "--write"]
    assert rebaseline([*accept, "--baselines", str(root)]) == 0
    return root


def weights(root: Path) -> dict[str, float]:
    """Case id -> its accepted bytes of weights."""
    loaded = files.load(root, "cpu")
    return {
        case: entry.metrics["weight_bytes"][0]
        for baselines in loaded.values()
        for case, entry in baselines.cases.items()
    }
