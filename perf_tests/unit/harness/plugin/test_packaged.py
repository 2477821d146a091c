"""A case whose blocks another worker has packaged: green as it is, and red for what can go wrong."""

from __future__ import annotations

import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.unit.conftest import Misbehave, Plug, Suite
from perf_tests.unit.harness.plugin.sessions import failed_tests

PACKAGED = "pixart-mini-b1-int8wo-aoti"
ITS_TWIN = "pixart-mini-b1-int8wo-regional"
ON_H100 = "flux1-dev-slim-b1-bf16-aoti"
TWIN_ON_H100 = "flux1-dev-slim-b1-bf16-regional"
ONLY = f"--perf-case={PACKAGED}"


def red(suite: Suite, case_id: str = PACKAGED) -> dict[str, Status]:
    return {metric: each for metric, each in suite.statuses(case_id).items() if not each.is_green}


def test_a_packaged_case_is_green_and_has_what_its_twin_took(suite: Suite) -> None:
    result = suite.run(ONLY)

    assert result.ret == pytest.ExitCode.OK
    (process,) = suite.case(PACKAGED).processes
    twin = process.build.built_twin
    assert twin is not None
    assert twin.packages is not None
    assert twin.packages.files == {"Block.pt2": 3_000_000}
    assert twin.tensors == process.build.tensors
    assert process.build.cache is None
    assert {
        name: process.build.values[name]
        for name in ("package_bytes", "export_s", "package_s", "packaged_blocks", "package_load_s")
    } == {
        "package_bytes": 3_000_000.0,
        "export_s": 1.5,
        "package_s": 20.0,
        "packaged_blocks": 4.0,
        "package_load_s": 0.25,
    }
    assert process.build.values["package_copied_share"] == 0.025
    # Nothing of it is timed: its blocks are compiled once, for the packages alone.
    assert twin.compiled is None
    assert "denoise_step_ms_vs_jit" not in process.build.values
    assert suite.statuses(PACKAGED)["package_sqnr_db"] is Status.PASS


def test_nothing_of_the_packages_is_left_once_they_were_loaded(suite: Suite) -> None:
    suite.run(ONLY)

    assert list(suite.out.rglob("*.pt2")) == []
    assert list(suite.out.rglob("checkpoint.*")) == []


def test_one_blocks_weights_for_all_blocks_have_regressed(suite: Suite, misbehave: Misbehave) -> None:
    misbehave(f"one-block-for-all@{PACKAGED}")
    suite.run(ONLY)

    assert red(suite) == {"package_sqnr_db": Status.REGRESSED}


def test_a_second_copy_of_the_weights_has_regressed(suite: Suite, misbehave: Misbehave) -> None:
    misbehave(f"copies-weights@{PACKAGED}")
    suite.run(ONLY)

    assert red(suite) == {"package_copied_share": Status.REGRESSED}


@pytest.mark.parametrize(
    ("misbehaviour", "why"),
    [
        ("compiles-packages", "loads compiled blocks, but 12 kernels were generated"),
        ("reports:compiled_graphs=2", "loads compiled blocks, but 2 graphs were compiled"),
        ("missing-metric:generated_kernels", "loads compiled blocks, and nobody counted generated kernels"),
        ("leaves-blocks-eager", "loads every Block, and 4 calls in a step were eager"),
        ("other-tensor", "1 of 2 tensors are not those of the built twin: transformer.proj_out.weight"),
    ],
)
def test_blocks_that_are_not_those_of_the_packages_are_unproven(
    suite: Suite, misbehave: Misbehave, misbehaviour: str, why: str
) -> None:
    misbehave(f"{misbehaviour}@{PACKAGED}")
    result = suite.run(ONLY)

    assert failed_tests(result) == [f"test_build[{PACKAGED}]"]
    assert suite.case(PACKAGED).status is Status.UNPROVEN
    assert why in suite.case(PACKAGED).reason


def test_a_twin_that_fails_while_packaging_is_the_failure_of_the_case(
    suite: Suite, misbehave: Misbehave
) -> None:
    misbehave(f"segfault:package@{ITS_TWIN}")
    suite.run(ONLY)

    run = suite.case(PACKAGED)
    assert run.status is Status.CRASH
    assert run.reason == f"built twin {ITS_TWIN}: worker was killed by SIGSEGV while packaging"
    assert list(suite.out.rglob("*.pt2")) == []


@pytest.mark.parametrize(
    ("throttled", "status"),
    [pytest.param(2, Status.PASS, id="taken-again"), pytest.param(9, Status.INCONCLUSIVE, id="for-ever")],
)
def test_steps_of_a_twin_that_was_disturbed_are_compared_with_nothing(
    suite: Suite, plug_gpu: Plug, misbehave: Misbehave, throttled: int, status: Status
) -> None:
    plug_gpu()
    misbehave(f"throttled:{throttled}@{TWIN_ON_H100}")
    suite.run("-m", "h100", f"--perf-case={ON_H100}")

    assert suite.statuses(ON_H100)["denoise_step_ms_vs_jit"] is status


def test_a_step_that_is_slower_than_the_twins_has_regressed_on_a_gpu(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    suite.run("-m", "h100", f"--perf-case={ON_H100}", "--perf-inject=latency:+20%")

    statuses = suite.statuses(ON_H100)
    assert suite.case(ON_H100).reference == "flux1-dev-slim-b1-bf16-regional"
    assert statuses["denoise_step_ms_vs_jit"] is Status.REGRESSED
    assert statuses["package_sqnr_db"] is Status.PASS
    # The fake compiles in 6 s, and from a file of artifacts in 1.5 s.
    twin = suite.case(ON_H100).processes[0].build.built_twin
    assert twin is not None
    assert twin.compiled is not None
    assert twin.compiled.cached_first_image_s == pytest.approx(twin.compiled.first_image_s - 4.5)
    assert list(suite.out.rglob("*.artifacts")) == []
    # Its pictures are compared with those of bf16, like those of any other case.
    assert {"psnr_db", "latents_sqnr_db"} <= statuses.keys()


GRAPHED = "flux1-dev-slim-b1-fp8dqrow-regional-graphed"


@pytest.mark.parametrize(
    ("misbehaviour", "expected"),
    [("", Status.PASS), (f"records-no-graph@{GRAPHED}", Status.REGRESSED)],
    ids=["one-launch", "none"],
)
def test_a_transformer_that_is_one_graph_is_launched_once_a_step(
    suite: Suite, misbehave: Misbehave, plug_gpu: Plug, misbehaviour: str, expected: Status
) -> None:
    plug_gpu()
    misbehave(misbehaviour)
    suite.run("-m", "h100", f"--perf-case={GRAPHED}")

    statuses = suite.statuses(GRAPHED)
    assert statuses["graph_launches_per_step"] is expected
    assert statuses["graph_sqnr_db"] is Status.PASS
    assert "unfused_attention_calls" not in statuses
