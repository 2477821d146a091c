from __future__ import annotations

import pytest

from perf_tests.tables.matrix import GPU_ROWS, MATRIX
from perf_tests.tables.metrics.rows import METRICS
from perf_tests.tables.pipelines.spec import PROMPTS
from perf_tests.tables.platforms import A100, B200, CPU, H100, PLATFORMS, Device, Platform, WorkerStart


@pytest.mark.parametrize("name", ["id", "samples"])
def test_platforms_are_told_apart_and_measure_something(name: str) -> None:
    values = [getattr(platform, name) for platform in PLATFORMS]
    assert all(values)
    assert name != "id" or len(set(values)) == len(values)


def test_cpu_platform_alone_needs_no_gpu() -> None:
    assert [platform.id for platform in PLATFORMS if platform.gpu is None] == [CPU.id]


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.id)
def test_platform_id_is_a_marker(platform: Platform, pytestconfig: pytest.Config) -> None:
    assert platform.id in {line.partition(":")[0] for line in pytestconfig.getini("markers")}


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.id)
def test_process_repeats_the_first_prompt(platform: Platform) -> None:
    assert platform.samples > PROMPTS


def test_required_schemes_are_those_with_kernels_on_the_platform() -> None:
    assert {"int8wo", "int8dq", "fp8wo", "autoquant"} <= set(CPU.required_schemes)
    assert set(H100.required_schemes) - set(CPU.required_schemes) == {"int4wo", "fp8dq", "fp8dqrow"}
    assert not {"nvfp4", "mxfp8"} & set(H100.required_schemes)
    assert set(H100.required_schemes) - set(A100.required_schemes) == {"fp8dq", "fp8dqrow"}
    assert set(B200.required_schemes) - set(H100.required_schemes) == {"nvfp4", "mxfp8"}


def test_noise_is_known_where_a_noisy_metric_gates() -> None:
    gated = {device for metric in METRICS if metric.is_noisy for device in metric.gates}
    known = {platform.device for platform in PLATFORMS if platform.process_noise is not None}
    assert gated == known == {Device.CUDA}


def test_gpus_have_the_peaks_of_their_data_sheets() -> None:
    multiplied = {platform.id: platform.peak_tflops for platform in PLATFORMS}
    assert {gpu: peaks["bfloat16"] for gpu, peaks in multiplied.items() if peaks} == {
        "h100": 989.4,
        "h200": 989.4,
        "a100": 312.0,
        "b200": 2250.0,
    }
    assert multiplied["b200"]["float4_e2m1"] == 9000.0


def test_an_a100_measures_the_rows_whose_kernels_it_has() -> None:
    rows = [row for row in MATRIX if A100 in row.platforms]
    assert {row.recipe.scheme.id for row in rows} <= set(A100.required_schemes)
    assert {row.recipe.scheme.id for row in GPU_ROWS} - {row.recipe.scheme.id for row in rows} == {
        "fp8dq",
        "fp8dqrow",
        "nvfp4",
        "mxfp8",
    }


def test_workers_are_forked_only_where_no_time_is_judged_by_the_noise_between_processes() -> None:
    forking = [platform for platform in PLATFORMS if platform.worker_start is WorkerStart.FORKED]
    assert [(platform.id, platform.process_noise) for platform in forking] == [("cpu", None)]
