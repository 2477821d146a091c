"""Stages other than the steady step: a change of kind is red, and what unchanged code does is not."""

from __future__ import annotations

import msgspec
import pytest

from perf_tests.harness.runs.record import Status, Verdict
from perf_tests.tables.metrics.rows.compile import kernel_count
from perf_tests.tables.metrics.spec import Metric, Rule
from perf_tests.unit.builders import GPU, make_build, make_environment, make_process, make_sample
from perf_tests.unit.harness.verdicts.judging import judged, run_of

SAME = {"torch": "2.13.0", "triton": "3.7.0"}


def of_process(metric: str | Metric, measured: float, baseline: float, **packages: str) -> Verdict:
    """The verdict on what the worker reports once, under `SAME` with `packages` changed."""
    name = metric if isinstance(metric, str) else metric.name
    environment = make_environment(gpu=GPU, packages={**SAME, **packages})
    process = make_process(build=make_build({name: measured}), environment=environment)
    run = msgspec.structs.replace(run_of(name, [measured]), processes=(process,))
    return judged(metric, [], [baseline], run=run, provenance={"packages": SAME})


def of_samples(name: str, measured: float, baseline: float) -> Verdict:
    """The verdict on what every generation reports."""
    process = make_process(samples=(make_sample({name: [measured]}),), environment=make_environment(gpu=GPU))
    run = msgspec.structs.replace(run_of(name, [measured]), processes=(process,))
    return judged(name, [], [baseline], run=run)


@pytest.mark.parametrize("name", ["kernels_per_encode", "kernels_per_decode"])
@pytest.mark.parametrize(
    ("measured", "torch", "status"),
    [
        pytest.param(1050.0, "2.13.0", Status.PASS, id="a-few-more"),
        pytest.param(1051.0, "2.13.0", Status.REGRESSED, id="more"),
        pytest.param(949.0, "2.13.0", Status.REGRESSED, id="less"),
        pytest.param(1300.0, "2.14.0", Status.PASS, id="more-of-another-torch"),
        pytest.param(2000.0, "2.14.0", Status.REGRESSED, id="twice-of-another-torch"),
    ],
)
def test_kernels_of_encoders_and_decoder_have_a_limit(
    name: str, measured: float, torch: str, status: Status
) -> None:
    assert of_process(name, measured, 1000.0, torch=torch).status is status


@pytest.mark.parametrize(
    ("rule", "measured", "torch", "status"),
    [
        pytest.param(Rule.WITHIN_TOLERANCE, 1001.0, "2.13.0", Status.PASS, id="one-more-within-5-pct"),
        pytest.param(Rule.EXACT, 1000.0, "2.13.0", Status.PASS, id="exactly"),
        pytest.param(Rule.EXACT, 1001.0, "2.13.0", Status.REGRESSED, id="one-more"),
        pytest.param(Rule.EXACT, 999.0, "2.13.0", Status.REGRESSED, id="one-less"),
        pytest.param(Rule.EXACT, 1001.0, "2.14.0", Status.PASS, id="one-more-of-another-torch"),
        pytest.param(Rule.EXACT, 2000.0, "2.14.0", Status.REGRESSED, id="twice-of-another-torch"),
    ],
)
def test_one_edit_of_the_table_makes_a_count_of_kernels_exact(
    rule: Rule, measured: float, torch: str, status: Status
) -> None:
    row = kernel_count("kernels_per_encode", rule)
    assert of_process(row, measured, 1000.0, torch=torch).status is status


@pytest.mark.parametrize(
    ("name", "baseline", "passed", "red"),
    [
        ("load_s", 30.0, 75.0, 75.1),
        ("load_s", 100.0, 160.0, 160.1),
        ("quantize_s", 1.0, 6.0, 60.0),
        ("quantize_s", 20.0, 32.0, 32.1),
        ("load_peak_allocated_mib", 30000.0, 30300.0, 30301.0),
        ("quantize_peak_allocated_mib", 30000.0, 30300.0, 45000.0),
        ("quantize_peak_reserved_mib", 1000.0, 1256.0, 1257.0),
    ],
)
def test_loading_and_quantizing_have_limits(name: str, baseline: float, passed: float, red: float) -> None:
    assert of_process(name, passed, baseline).status is Status.PASS
    assert of_process(name, red, baseline).status is Status.REGRESSED


@pytest.mark.parametrize(
    ("name", "baseline", "passed", "red"),
    [
        ("encode_ms", 20.0, 70.0, 70.1),
        ("encode_ms", 60.0, 198.0, 198.1),
        ("encode_ms", 146.8, 484.4, 484.5),
        ("first_step_ms", 100.0, 160.0, 200.0),
    ],
)
def test_encoders_and_first_step_have_limits(name: str, baseline: float, passed: float, red: float) -> None:
    assert of_samples(name, passed, baseline).status is Status.PASS
    assert of_samples(name, red, baseline).status is Status.REGRESSED


# What 36 processes of FLUX.1-dev at batch 1 took to encode, on seven H100s.
ENCODES_MS = (
    *(
        48.0,
        48.1,
        49.3,
        49.8,
        51.4,
        53.7,
        54.0,
        55.5,
        56.1,
        57.3,
        57.8,
        57.9,
        58.2,
        58.2,
        58.6,
        59.2,
        59.6,
        59.7,
    ),
    *(
        60.3,
        60.9,
        61.2,
        61.3,
        61.8,
        61.8,
        61.9,
        62.5,
        63.2,
        64.1,
        64.3,
        64.4,
        65.1,
        65.2,
        69.1,
        70.1,
        74.7,
        76.7,
    ),
)


@pytest.mark.parametrize("beside_siblings", [1.0, 2.03])
def test_encoders_of_unchanged_code_are_within_their_limit(beside_siblings: float) -> None:
    # What lies between the fastest and the slowest is within every limit that both are within.
    extremes = (min(ENCODES_MS), max(ENCODES_MS))
    pairs = [(baseline, now * beside_siblings) for baseline in ENCODES_MS for now in extremes]
    assert {of_samples("encode_ms", now, baseline).status for baseline, now in pairs} == {Status.PASS}


@pytest.mark.parametrize("name", ["transformer_bytes", "text_encoder_2_bytes", "vae_bytes"])
def test_bytes_of_a_component_are_exact_under_any_torch(name: str) -> None:
    assert of_process(name, 9_000_000.0, 9_000_000.0, torch="2.14.0").status is Status.PASS
    assert of_process(name, 9_027_900.0, 9_000_000.0, torch="2.14.0").status is Status.REGRESSED
