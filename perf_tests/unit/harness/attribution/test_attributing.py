"""What the bf16 twin of a suspect says of the suspect."""

from __future__ import annotations

import msgspec
import pytest

from perf_tests.harness.attribution.attributing import twin_of
from perf_tests.harness.attribution.clusters import Suspect
from perf_tests.harness.attribution.diagonals import PairQuestion
from perf_tests.harness.runs.record import Status
from perf_tests.tables.platforms import H100, Noise
from perf_tests.unit.builders import MINI_INT8WO, make_run, make_verdict, metric_named
from perf_tests.unit.harness.verdicts.pairs import QUIET, compared

STEP = metric_named("denoise_step_ms")
QUESTION = PairQuestion(
    case=MINI_INT8WO, time=STEP, noise=Noise(sd_pct=0.36, dof=24), least_pairs=5, most_pairs=10
)
SUSPECT = Suspect(run=make_run(MINI_INT8WO, H100), case=MINI_INT8WO, metric=STEP)


@pytest.mark.parametrize(
    ("status", "moved"), [(Status.PASS, True), (Status.REGRESSED, True), (Status.INCONCLUSIVE, False)]
)
def test_a_twin_whose_pairs_said_nothing_excludes_no_package(status: Status, moved: bool) -> None:
    twin = msgspec.structs.replace(compared(*QUIET), verdicts=(make_verdict(STEP.name, status),))
    reference = SUSPECT.run.reference
    assert reference is not None
    assert (twin_of(SUSPECT, {reference: twin}, QUESTION) is not None) is moved
    assert twin_of(SUSPECT, {}, QUESTION) is None
