from __future__ import annotations

import pytest

from perf_tests.tables.metrics.rows import METRICS
from perf_tests.tables.pipelines.spec import PROMPTS
from perf_tests.tables.platforms import CPU, H100, PLATFORMS, Device, Platform


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


def test_noise_is_known_where_a_noisy_metric_gates() -> None:
    gated = {device for metric in METRICS if metric.is_noisy for device in metric.gates}
    known = {platform.device for platform in PLATFORMS if platform.process_noise is not None}
    assert gated == known == {Device.CUDA}
