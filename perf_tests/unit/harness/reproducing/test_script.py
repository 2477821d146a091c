"""Every row that a script can stand for gets one that compiles, and the others a reason."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

import pytest

from perf_tests.harness.reproducing.embeddings import SHAPES
from perf_tests.harness.reproducing.script import obstacle, script
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import CPU_ROWS, GPU_ROWS
from perf_tests.tables.pipelines.rows import PIPELINES
from perf_tests.tables.platforms import Device
from perf_tests.unit.conftest import CASES

FLUX = CASES["flux1-dev-b1-fp8dqrow-regional"]


def text_of(case_id: str, device: Device = Device.CUDA, **changes: tuple[str, ...]) -> str:
    return script(CASES[case_id], device, "step.py", **changes)


def names_read(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id


def names_bound(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]


def test_every_row_has_a_script_that_knows_its_names_or_a_reason() -> None:
    rows = {row.case(Weights.SYNTHETIC).id: row.case(Weights.SYNTHETIC) for row in (*CPU_ROWS, *GPU_ROWS)}
    possible = [case for case in rows.values() if obstacle(case) is None]
    assert len(possible) > len(rows) / 2
    for case in possible:
        text = script(case, Device.CUDA, "step.py")
        tree = ast.parse(text)
        assert set(names_read(tree)) <= {*names_bound(tree), *dir(builtins)}, case.id
        assert "perf_tests" not in text
        assert "pytest" not in text


def test_every_pipeline_can_be_called_without_its_text_encoders() -> None:
    assert {pipeline.cls for pipeline in PIPELINES} == set(SHAPES)


def test_quantization_is_spelled_out() -> None:
    text = text_of("flux1-dev-b1-fp8dqrow-regional")
    assert (
        "CONFIG = Float8DynamicActivationFloat8WeightConfig(set_inductor_config=False, granularity=PerRow())"
    ) in text
    assert (
        "from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_"
        in text
    )
    assert "    quantize_(pipe.transformer, CONFIG, filter_fn=is_quantized)" in text
    assert "    'num_single_layers': 38," in text
    assert "    'prompt_embeds': (1, 512, 4096)," in text
    assert 'DEVICE = "cuda"' in text
    assert "default=28" in text


def test_layers_that_the_row_leaves_alone_are_named() -> None:
    text = text_of("flux-mini-b1-int8dq-eager", Device.CPU)
    assert "LEFT_ALONE = ['*norm*.linear', 'time_*embed*']" in text
    assert "MULTIPLES = {}" in text
    assert "MULTIPLES = {'in_features': 32}" in text_of("flux-mini-b1-int4dq-eager", Device.CPU)
    assert "weight_dtype=torch.int4" in text_of("flux-mini-b1-int4dq-eager", Device.CPU)


def test_a_row_that_quantizes_nothing_does_not_import_torchao() -> None:
    text = text_of("flux-mini-b1-bf16-regional", Device.CPU)
    assert "quantize_" not in text
    assert "from torchao" not in text
    assert "        block.compile(dynamic=False)" in text


def test_guidance_doubles_embeddings_and_masks() -> None:
    text = text_of("pixart-mini-b1-int8wo-eager", Device.CPU)
    for name, shape in (
        ("prompt_embeds", "(1, 64, 128)"),
        ("negative_prompt_embeds", "(1, 64, 128)"),
        ("prompt_attention_mask", "(1, 64)"),
        ("negative_prompt_attention_mask", "(1, 64)"),
    ):
        assert f"    '{name}': {shape}," in text
    assert "    'negative_prompt': None," in text


@pytest.mark.parametrize(
    ("case_id", "reason"),
    [
        (
            "flux-mini-b1-bf16-eager-lora-fp8tensor",
            "it trains adapters, in steps that this suite takes itself",
        ),
        ("llama-7b-b1-int8wo-eager", "it is only quantized and moved, and takes no denoise step"),
        ("flux-mini-b1-autoquant-eager", "how each layer is quantized was found by timing them"),
        (
            "flux-mini-b1-fp6_e3m2-eager",
            "it takes perf_tests.worker.quantization.floatx:FloatxWeightOnlyConfig, "
            "which is part of this suite",
        ),
    ],
)
def test_a_row_that_needs_the_suite_says_why(case_id: str, reason: str) -> None:
    assert obstacle(CASES[case_id]) == reason


def test_what_is_said_of_the_run_cannot_leave_the_docstring() -> None:
    text = script(FLUX, Device.CUDA, "step.py", ('slower: """\nimport os \\',))
    (docstring, *_) = ast.parse(text).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(docstring.value, ast.Constant)
    assert "slower: ''' import os /" in str(docstring.value.value)


def settings_of(case: Case) -> list[str]:
    lines = script(case, Device.CUDA, "step.py").splitlines()
    return [line.strip() for line in lines if "inductor." in line or "set_flags(" in line]


def test_settings_of_the_row_are_made_before_it_compiles() -> None:
    tuned = next(case for case in CASES.values() if case.id.endswith("int8dq-regional-tuned"))
    assert settings_of(tuned) == ["inductor.max_autotune_gemm = True"]
    assert settings_of(FLUX) == []
