"""A case whose weights are offloaded: green as it is, and red for what can go wrong."""

from __future__ import annotations

import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.unit.conftest import INT8WO, Misbehave, Suite
from perf_tests.unit.harness.plugin.sessions import failed_tests

# In the cross product, which needs no baselines.
OFFLOADED = "flux-mini-b1-int8wo-eager-modeloffload"
SEQUENTIAL = "flux-mini-b1-bf16-eager-seqoffload"


def only(case_id: str) -> str:
    return f"--perf-case={case_id}"


def test_an_offloaded_case_is_green_without_any_other_case(suite: Suite) -> None:
    result = suite.run(only(OFFLOADED))

    assert result.ret == pytest.ExitCode.OK
    record = suite.record()
    assert [run.id for run in record.cases] == [OFFLOADED]
    assert record.references == ()
    (process,) = record.cases[0].processes
    assert process.build.memory_saving is not None
    assert process.build.built_twin is not None
    assert process.build.built_twin.files == {}
    assert {"outputs_unlike_built"} <= suite.statuses(OFFLOADED).keys()


MISTAKES = {
    "loses-hooks": "no CpuOffload moved 1048576 bytes of the weights of transformer",
    "keeps-weights:cuda": "1048576 bytes of the weights of transformer were on cuda",
    "decodes-otherwise": "the VAE was to decode whole",
    "other-tensor": "1 of 2 tensors are not those of the built twin",
}


@pytest.mark.parametrize("switch", MISTAKES)
def test_an_offload_that_is_not_as_asked_is_unproven(suite: Suite, misbehave: Misbehave, switch: str) -> None:
    misbehave(f"{switch}@{OFFLOADED}")
    result = suite.run(only(OFFLOADED))

    assert failed_tests(result) == [f"test_build[{OFFLOADED}]"]
    assert suite.case(OFFLOADED).status is Status.UNPROVEN
    assert MISTAKES[switch] in suite.case(OFFLOADED).reason


def test_weights_that_stay_where_they_are_used_are_unproven_on_a_cpu_too(
    suite: Suite, misbehave: Misbehave
) -> None:
    misbehave(f"keeps-weights:cpu@{SEQUENTIAL}")
    suite.run(only(SEQUENTIAL))

    assert suite.case(SEQUENTIAL).status is Status.UNPROVEN
    assert "were on cpu, and seqoffload leaves them on meta" in suite.case(SEQUENTIAL).reason


def test_a_picture_unlike_the_resident_twins_has_regressed(suite: Suite, misbehave: Misbehave) -> None:
    misbehave(f"other-picture@{INT8WO}")
    suite.run(only(OFFLOADED))

    red = {metric: each for metric, each in suite.statuses(OFFLOADED).items() if not each.is_green}
    assert red == {"outputs_unlike_built": Status.REGRESSED}
