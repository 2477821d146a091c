"""The replay through pytest-benchmark itself: samples in, its files and tables out."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.records.builds import BuildReport
from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.report.pytest_benchmark import extra_info, machine_info
from perf_tests.harness.runs.record import Process, Run, Status, Verdict
from perf_tests.protocol.reports import Environment, Gpu, MemoryWindow

REPLAYED = """
    import pytest
    from perf_tests.harness.report.pytest_benchmark import CLOCK, replay

    @pytest.mark.benchmark(timer=CLOCK, group="{group}")
    def test_latency(benchmark):
        benchmark.extra_info["case"] = "flux-mini"
        replay(benchmark, {seconds})
"""
ENVIRONMENT = Environment(
    python="3.11.7",
    packages={"torch": "2.13.0"},
    gpu=Gpu(
        name="NVIDIA H100 80GB HBM3",
        uuid="GPU-1",
        capability=(9, 0),
        memory_gib=79.6,
        power_limit_w=700.0,
        driver="580.1",
    ),
    cpu_model="Xeon",
    cpu_count=16,
    settings={"threads": "16"},
    variables={},
)


@pytest.fixture(autouse=True)
def pytest_benchmark_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load no other plugin that is installed: they take longer than the sessions themselves."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_benchmark.plugin")


def run_replayed(
    pytester: pytest.Pytester, *options: str, seconds: str = "[2.5, 0.1, 4.0]", group: str = "flux"
) -> pytest.RunResult:
    pytester.makepyfile(test_latency=REPLAYED.format(seconds=seconds, group=group))
    return pytester.runpytest("-p", "no:cacheprovider", *options)


def benchmark_json(pytester: pytest.Pytester) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))
    return result


def test_samples_reach_the_json_unchanged_and_in_order(pytester: pytest.Pytester) -> None:
    run_replayed(pytester, "--benchmark-json=out.json").assert_outcomes(passed=1)

    (benchmark,) = benchmark_json(pytester)["benchmarks"]
    assert benchmark["stats"]["data"] == [2.5, 0.1, 4.0]
    assert (benchmark["stats"]["rounds"], benchmark["stats"]["median"]) == (3, 2.5)
    assert benchmark["stats"]["iterations"] == 1
    assert benchmark["options"]["timer"] == "replayed"
    assert benchmark["extra_info"] == {"case": "flux-mini"}


def test_profiling_does_not_run_out_of_samples(pytester: pytest.Pytester) -> None:
    run_replayed(
        pytester, "--benchmark-json=out.json", "--benchmark-cprofile=tottime", "--benchmark-cprofile-loops=5"
    ).assert_outcomes(passed=1)

    assert benchmark_json(pytester)["benchmarks"][0]["stats"]["data"] == [2.5, 0.1, 4.0]


def test_disabled_benchmarks_do_not_fail_the_test(pytester: pytest.Pytester) -> None:
    run_replayed(pytester, "--benchmark-disable").assert_outcomes(passed=1)


def test_group_by_shows_device_seconds_under_the_group(pytester: pytest.Pytester) -> None:
    result = run_replayed(pytester, "--benchmark-group-by=group", "--benchmark-columns=min,max", group="mine")

    result.stdout.fnmatch_lines(
        ["*benchmark 'mine': 1 tests*", "*Name (time in ms)*", "test_latency*100.0000*4,000.0000*"]
    )


def test_comparison_with_a_saved_run_sees_the_change(pytester: pytest.Pytester) -> None:
    run_replayed(pytester, "--benchmark-save=before", seconds="[1.0]").assert_outcomes(passed=1)

    result = run_replayed(
        pytester, "--benchmark-compare=0001", "--benchmark-columns=median", seconds="[1.25]"
    )

    result.stdout.fnmatch_lines(
        ["test_latency (0001_before)*1.0000 (1.0)*", "test_latency (NOW)*1.2500 (1.25)*"]
    )


@pytest.mark.skipif(find_spec("pygal") is None, reason="the histogram extra is not installed")
def test_histogram_is_drawn(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    # A process of its own: pygal's importlib_metadata does not survive that pytester unloads it again.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[4]))
    pytester.makepyfile(test_latency=REPLAYED.format(seconds="[1.0, 2.0]", group="mine"))

    pytester.runpytest_subprocess("--benchmark-histogram=plot").assert_outcomes(passed=1)

    (plot,) = pytester.path.glob("plot*.svg")
    assert "test_latency" in plot.read_text(encoding="utf-8")


def test_a_test_without_the_clock_fails_instead_of_recording_the_replay(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from perf_tests.harness.report.pytest_benchmark import replay

        def test_unmarked(benchmark):
            replay(benchmark, [1.0])
        """
    )
    result = pytester.runpytest("-p", "no:cacheprovider")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*UsageError: test_unmarked: *mark the test with pytest.mark.benchmark(timer=CLOCK)*"]
    )


def test_no_samples_are_an_error(pytester: pytest.Pytester) -> None:
    result = run_replayed(pytester, seconds="[]")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*UsageError: test_latency: no samples*"])


def test_extra_info_holds_memory_fidelity_and_what_was_judged() -> None:
    window = MemoryWindow(allocated_mib=12.5, reserved_mib=None, device_mib=None, rss_mib=800.0)
    build = BuildReport(
        seconds={}, memory={"load": window}, weights={}, quantization=None, cache=None, values={}
    )
    process = Process(
        environment=ENVIRONMENT, build=build, fidelity=Fidelity(psnr_db=45.6, ssim=0.99, identical=False)
    )
    verdict = Verdict(
        metric="ssim",
        status=Status.REGRESSED,
        measured=0.5,
        baseline=0.9,
        change_pct=-44.4,
        ci_pct=None,
        limit=0.87,
        reason="0.5 is below 0.87.",
    )
    run = Run(
        id="flux-mini-b1-int8wo-eager",
        digest="d1",
        platform="cpu",
        pipeline="flux-mini",
        status=Status.REGRESSED,
        reason="ssim",
        reference="flux-mini-b1-bf16-eager",
        injected=("memory:+2%",),
        verdicts=(verdict,),
        processes=(process,),
    )

    info = extra_info(run)

    assert json.loads(json.dumps(info)) == {
        "case": "flux-mini-b1-int8wo-eager",
        "digest": "d1",
        "platform": "cpu",
        "status": "REGRESSED",
        "reason": "ssim",
        "reference": "flux-mini-b1-bf16-eager",
        "injected": ["memory:+2%"],
        "verdicts": {"ssim": {"status": "REGRESSED", "measured": 0.5}},
        "memory": [
            {"load": {"allocated_mib": 12.5, "reserved_mib": None, "device_mib": None, "rss_mib": 800.0}}
        ],
        "fidelity": [{"psnr_db": 45.6, "ssim": 0.99, "identical": False}],
    }


def test_machine_info_names_the_card_and_replaces_the_momentary_clock_rate() -> None:
    info = json.loads(json.dumps(machine_info(ENVIRONMENT)))

    assert info["unit"] == "GPU-1"
    assert info["gpu"]["driver"] == "580.1"
    assert info["cpu"] == {"brand_raw": "Xeon", "count": 16}
    assert info["packages"] == {"torch": "2.13.0"}
