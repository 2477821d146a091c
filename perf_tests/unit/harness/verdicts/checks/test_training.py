from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perf_tests.harness.verdicts.build_checks import contradictions
from perf_tests.protocol.training import Float8Kernels, TrainingReport
from perf_tests.tables.recipes import CompileMode
from perf_tests.tables.training.spec import Float8Recipe, Training
from perf_tests.unit.builders import make_build, make_case

IN_BF16 = make_case(training=Training())
TENSORWISE = make_case(training=Training(float8=Float8Recipe.TENSORWISE))
COMPILED = make_case(training=Training(), compile=CompileMode.REGIONAL)
PRODUCTS = {"nvjet_qqtst_128x256": 61}
REPORT = TrainingReport(
    expected_float8=61,
    float8=61,
    wrong_linears=(),
    adapters=40,
    adapter_dtypes=("float32",),
    idle_adapters=(),
    frozen=140,
    frozen_sha256=("a", "a"),
    changed=(),
    kernels=Float8Kernels(forward=PRODUCTS, backward=PRODUCTS),
)
REPORT_IN_BF16 = msgspec.structs.replace(
    REPORT, expected_float8=0, float8=0, kernels=Float8Kernels(forward={}, backward={})
)


def found(**changes: Any) -> tuple[str, ...]:
    return contradictions(TENSORWISE, make_build(training=msgspec.structs.replace(REPORT, **changes)))


def test_training_that_agrees_has_no_contradictions() -> None:
    assert found() == ()
    assert contradictions(IN_BF16, make_build(training=REPORT_IN_BF16)) == ()


def test_kernels_that_were_not_recorded_are_no_contradiction() -> None:
    assert found(kernels=None) == ()


def test_a_worker_that_does_not_say_what_it_trained_is_disbelieved() -> None:
    assert contradictions(TENSORWISE, make_build()) == ("the worker did not report what it has trained",)


def test_a_compile_that_fell_back_is_a_contradiction() -> None:
    build = make_build(training=REPORT_IN_BF16)
    assert contradictions(COMPILED, build) == (
        "the recipe bf16-regional-lora compiles, but no graph was compiled: it fell back to eager",
        "the recipe bf16-regional-lora compiles, but inductor's cache was never asked",
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param(
            {"float8": 60, "wrong_linears": ("transformer_blocks.0.attn.to_q",)},
            "60 Linear modules multiply in float8, and the recipe bf16-eager-lora-fp8tensor says 61; not as "
            "it says: transformer_blocks.0.attn.to_q",
            id="one-left-out",
        ),
        pytest.param(
            {"wrong_linears": ("proj_out", "x_embedder")},
            "61 Linear modules multiply in float8, and the recipe bf16-eager-lora-fp8tensor says 61; not as "
            "it says: proj_out, x_embedder",
            id="another-instead",
        ),
        pytest.param(
            {"expected_float8": 0, "float8": 0},
            "the recipe bf16-eager-lora-fp8tensor found no Linear module to convert to float8",
            id="none-found",
        ),
        pytest.param(
            {"adapters": 0},
            "the recipe bf16-eager-lora-fp8tensor trains adapters, and nothing was trained",
            id="no-adapters",
        ),
        pytest.param(
            {"adapter_dtypes": ("bfloat16", "float32")},
            "the adapters are bfloat16, float32, and are to be float32",
            id="adapters-in-bf16",
        ),
        pytest.param(
            {"idle_adapters": ("a.down", "a.up", "b.down", "b.up")},
            "4 of 40 adapters had no finite gradient other than 0, or did not move: a.down, a.up, b.down",
            id="idle-adapters",
        ),
        pytest.param(
            {"changed": ("transformer.proj_out.weight",), "frozen_sha256": ("a", "b")},
            "1 of 140 frozen weights changed while the adapters were trained: transformer.proj_out.weight",
            id="frozen-weight-changed",
        ),
        pytest.param(
            {"frozen_sha256": ("a", "b")},
            "0 of 140 frozen weights changed while the adapters were trained: none is named",
            id="only-the-hash-of-all-changed",
        ),
        pytest.param(
            {"frozen": 0},
            "no weight was frozen, so that what was trained is not an adapter alone",
            id="nothing-frozen",
        ),
        pytest.param(
            {"kernels": Float8Kernels(forward=PRODUCTS, backward={})},
            "the recipe bf16-eager-lora-fp8tensor multiplies in float8, and no product of the backward pass "
            "did",
            id="backward-in-bf16",
        ),
    ],
)
def test_what_contradicts_the_recipe_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert found(**changes) == (sentence,)


def test_float8_in_a_recipe_of_bf16_is_a_contradiction() -> None:
    report = msgspec.structs.replace(REPORT_IN_BF16, kernels=Float8Kernels(forward=PRODUCTS, backward={}))
    assert contradictions(IN_BF16, make_build(training=report)) == (
        "the recipe bf16-eager-lora multiplies in bfloat16, and the forward pass ran nvjet_qqtst_128x256",
    )
