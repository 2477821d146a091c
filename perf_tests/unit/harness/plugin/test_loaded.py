"""A case that loads what another worker has saved: green as it is, and red for what can go wrong."""

from __future__ import annotations

import json

import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.unit.conftest import INT8WO, LOADED, Misbehave, Suite
from perf_tests.unit.harness.plugin.sessions import failed_tests

ONLY = f"--perf-case={LOADED}"


def red(suite: Suite) -> dict[str, Status]:
    return {metric: each for metric, each in suite.statuses(LOADED).items() if not each.is_green}


def test_a_loaded_case_is_green_without_any_other_case(suite: Suite) -> None:
    result = suite.run(ONLY)

    assert result.ret == pytest.ExitCode.OK
    record = suite.record()
    assert [run.id for run in record.cases] == [LOADED]
    assert record.references == ()
    (process,) = record.cases[0].processes
    twin = process.build.built_twin
    assert twin is not None
    assert twin.tensors == process.build.tensors
    assert process.build.converted == 0
    assert (len(process.samples), process.twin_samples) == (1, ())
    assert {"checkpoint_bytes", "outputs_unlike_built"} <= suite.statuses(LOADED).keys()


def test_nothing_of_a_checkpoint_is_left_once_it_was_loaded(suite: Suite) -> None:
    suite.run(ONLY)

    assert list(suite.out.rglob("transformer.pt")) == []
    assert list(suite.out.rglob("checkpoint.*")) == []


def test_a_loader_that_quantizes_again_is_unproven(suite: Suite, misbehave: Misbehave) -> None:
    misbehave(f"quantizes-again@{LOADED}")
    result = suite.run(ONLY)

    assert failed_tests(result) == [f"test_build[{LOADED}]"]
    assert suite.case(LOADED).status is Status.UNPROVEN
    assert "24 modules were quantized in a process that was to load them" in suite.case(LOADED).reason


def test_a_tensor_that_differs_is_unproven_and_named(suite: Suite, misbehave: Misbehave) -> None:
    misbehave(f"other-tensor@{LOADED}")
    suite.run(ONLY)

    run = suite.case(LOADED)
    assert run.status is Status.UNPROVEN
    assert "1 of 2 tensors are not those of the built twin: transformer.proj_out.weight" in run.reason


def test_a_file_that_grew_by_one_percent_has_regressed(suite: Suite, misbehave: Misbehave) -> None:
    misbehave(f"grown-file:1@{INT8WO}")
    suite.run(ONLY)

    assert red(suite) == {
        "checkpoint_bytes": Status.REGRESSED,
        "checkpoint_overhead_bytes": Status.REGRESSED,
    }


def test_another_picture_has_regressed(suite: Suite, misbehave: Misbehave) -> None:
    misbehave(f"other-picture@{INT8WO}")
    suite.run(ONLY)

    assert red(suite) == {"outputs_unlike_built": Status.REGRESSED}


def test_a_built_twin_that_fails_is_the_failure_of_the_case(suite: Suite, misbehave: Misbehave) -> None:
    misbehave(f"segfault:save@{INT8WO}")
    suite.run(ONLY)

    run = suite.case(LOADED)
    assert run.status is Status.CRASH
    assert run.reason == f"built twin {INT8WO}: worker was killed by SIGSEGV while saving"
    assert list(suite.out.rglob("checkpoint.*")) == []


def test_what_the_built_twin_took_counts_in_the_cost_of_the_case(suite: Suite) -> None:
    suite.run(ONLY)

    record = json.loads((suite.out / "run.json").read_text())
    assert record["cases"][0]["processes"][0]["build"]["seconds"]["built-twin"] > 0


# What is quantized elsewhere

ON_HOST = "flux-mini-b1-int8wo-eager-onhost"


def test_a_case_that_is_quantized_on_the_host_is_green_and_saves_nothing(suite: Suite) -> None:
    result = suite.run(f"--perf-case={ON_HOST}")

    assert result.ret == pytest.ExitCode.OK
    twin = suite.case(ON_HOST).processes[0].build.built_twin
    assert twin is not None
    assert twin.files == {}


def test_a_tensor_that_was_rounded_otherwise_on_the_host_is_unproven(
    suite: Suite, misbehave: Misbehave
) -> None:
    misbehave(f"other-tensor@{ON_HOST}")
    suite.run(f"--perf-case={ON_HOST}")

    run = suite.case(ON_HOST)
    assert run.status is Status.UNPROVEN
    assert "1 of 2 tensors are not those of the built twin: transformer.proj_out.weight" in run.reason


def test_what_was_not_moved_to_the_host_is_unproven(suite: Suite, misbehave: Misbehave) -> None:
    misbehave(f"stays-on-device@{ON_HOST}")
    result = suite.run(f"--perf-case={ON_HOST}")

    assert failed_tests(result) == [f"test_build[{ON_HOST}]"]
    assert suite.case(ON_HOST).status is Status.UNPROVEN
    assert "quantizes weights of the host, and they were on cuda" in suite.case(ON_HOST).reason
