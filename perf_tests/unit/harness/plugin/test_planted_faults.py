"""Faults that people reported against diffusers, torchao and others: red by the check of their kind.

That the real worker reports of each what the fake one reports here is tested under `perf_tests/unit/worker/`.
"""

from __future__ import annotations

import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.unit.conftest import BF16, COMPILED, INT8WO, ROOT, Misbehave, Suite
from perf_tests.unit.harness.plugin.sessions import BUILD, screen

BATCH = "flux-mini-b4-int8wo-eager"
INT8DQ = "flux-mini-b1-int8dq-eager"


@pytest.mark.parametrize(
    ("case_id", "switch", "metric", "headline"),
    [
        pytest.param(
            BF16, "reports:anchor_schedule=3", "anchor_schedule", "3 is outside 0 to 0", id="shift-lost"
        ),
        pytest.param(
            BF16,
            "reports:anchor_picture_sqnr_db=12",
            "anchor_picture_sqnr_db",
            "12 dB is outside",
            id="vae-factor",
        ),
        pytest.param(
            INT8WO,
            "reports:distinct_prompt_embeddings=1",
            "distinct_prompt_embeddings",
            "1 is outside 4 to 4",
            id="first-embeddings-for-all",
        ),
        pytest.param(
            BF16,
            "reports:distinct_prompt_latents=1",
            "distinct_prompt_latents",
            "1 is outside 2 to 2",
            id="prompt-ignored",
        ),
        pytest.param(
            BATCH,
            "reports:batch_psnr_db=144",
            "batch_psnr_db",
            "144 dB is outside 0 to 25 dB",
            id="noise-repeated",
        ),
        pytest.param(
            INT8WO,
            "reports:unfused_attention_calls=6",
            "unfused_attention_calls",
            "6 is outside 0 to 0",
            id="attention-by-the-math-kernel",
        ),
        pytest.param(INT8WO, "leaks:16.5", "leaked_mib_per_image", "16.5 MiB is above 1 MiB", id="leak"),
        pytest.param(
            INT8WO,
            "reports:text_encoder_2_bytes=1051648",
            "text_encoder_2_bytes",
            "1,051,648 B",
            id="t5-in-float32",
        ),
        pytest.param(
            INT8WO,
            "reports:quantize_peak_allocated_mib=80",
            "quantize_peak_allocated_mib",
            "80.00 MiB",
            id="old-weights-kept",
        ),
    ],
)
def test_what_is_wrong_with_the_picture_or_the_work_is_red_by_its_metric(
    suite: Suite, misbehave: Misbehave, case_id: str, switch: str, metric: str, headline: str
) -> None:
    misbehave(switch)
    judges = ROOT / "perf_tests" / f"test_{METRIC_BY_NAME[metric].group}.py"

    result = suite.run(f"--perf-case={case_id}", tests=(str(judges),))

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert suite.statuses(case_id)[metric] is Status.REGRESSED
    text = screen(result)
    assert f"{case_id} on cpu: {metric} " in text
    assert headline in text


@pytest.mark.parametrize(
    ("case_id", "switch", "headline"),
    [
        pytest.param(
            INT8WO,
            "dequantizes",
            "after the last image, 24 Linear modules of transformer are",
            id="dequantized",
        ),
        pytest.param(
            COMPILED,
            "leaves-blocks-eager",
            "compiles every Block, and 4 calls in a step were eager",
            id="eager-blocks",
        ),
        pytest.param(
            INT8DQ,
            "activations:int8 per-tensor",
            "0 of 24 Linear modules are quantized as int8dq says",
            id="one-scale",
        ),
        pytest.param(
            INT8DQ,
            "activations:bfloat16",
            "0 of 24 Linear modules are quantized as int8dq says",
            id="weight-only",
        ),
    ],
)
def test_a_build_that_is_not_what_was_asked_for_is_unproven(
    suite: Suite, misbehave: Misbehave, case_id: str, switch: str, headline: str
) -> None:
    misbehave(switch)

    result = suite.run(f"--perf-case={case_id}", tests=(BUILD,))

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert suite.case(case_id).status is Status.UNPROVEN
    text = " ".join(screen(result).split())
    assert f"{case_id} on cpu: ERROR(unproven)" in text
    assert headline in text
