"""A model that is only quantized and moved: its ids, what it is compared with, and what is measured of it."""

from __future__ import annotations

from typing import Any

import pytest

from perf_tests.tables.matrix import GPU_ROWS, MATRIX
from perf_tests.tables.metrics.rows import METRICS
from perf_tests.tables.pipelines.llama import LLAMA_7B, LLAMA_MINI
from perf_tests.tables.pipelines.rows import MODELS, PIPELINES
from perf_tests.tables.recipes import Activity, CompileMode, Loader, QuantizedOn
from perf_tests.tables.schemes.rows import AUTOQUANT, INT8WO
from perf_tests.unit.builders import make_case

ON_DEVICE, ON_HOST, BY_MODULE = (
    make_case(LLAMA_7B, scheme=INT8WO, quantized_on=where) for where in QuantizedOn
)


def test_ids_say_where_weights_are_quantized() -> None:
    assert [case.id for case in (ON_DEVICE, ON_HOST, BY_MODULE)] == [
        "llama-7b-b1-int8wo-eager",
        "llama-7b-b1-int8wo-eager-onhost",
        "llama-7b-b1-int8wo-eager-bymodule",
    ]


def test_shapes_are_those_of_the_published_model() -> None:
    config = LLAMA_7B.modules["transformer"].config
    assert config == {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
    }
    assert LLAMA_MINI.modules["transformer"].config.keys() == config.keys()


def test_a_model_is_no_pipeline_and_belongs_to_the_models() -> None:
    assert (*PIPELINES, LLAMA_7B, LLAMA_MINI) == MODELS


def test_nothing_but_the_built_twin_is_measured_beside_it() -> None:
    assert {case.build.activity for case in (ON_DEVICE, ON_HOST)} == {Activity.QUANTIZING}
    assert ON_HOST.reference is ON_HOST
    assert ON_HOST.is_reference
    assert ON_HOST.built_twin == BY_MODULE.built_twin == ON_DEVICE
    assert ON_DEVICE.built_twin is None


def test_rows_run_where_others_begin_on_the_host_and_one_of_the_miniature_is_not_exhaustive() -> None:
    (flux,) = (row for row in GPU_ROWS if row.recipe == ON_HOST.build.recipe and row.pipeline != LLAMA_7B)
    rows = [row for row in GPU_ROWS if row.pipeline == LLAMA_7B]
    assert [row.platforms for row in rows] == [flux.platforms] * 3
    mini = {row.recipe.id: row.exhaustive for row in MATRIX if row.pipeline == LLAMA_MINI}
    assert mini == {
        "int8wo-eager-onhost": False,
        "int8wo-eager": True,
        "int8wo-eager-bymodule": True,
    }


def test_metrics_are_those_of_quantizing_and_of_no_picture() -> None:
    named = {metric.name for metric in METRICS if metric.applies(ON_HOST)}
    assert {"quantize_s", "move_s", "quantize_peak_reserved_mib", "quantize_peak_vs_needed"} <= named
    assert {"weight_bytes", "quantized_modules", "transformer_bytes", "outputs_unlike_built"} <= named
    assert not {"latency_s", "transformer_calls", "psnr_db", "output_sqnr_db", "step_tflop"} & named


def test_moving_is_told_apart_unless_each_module_is_moved_by_itself() -> None:
    (move_s,) = (metric for metric in METRICS if metric.name == "move_s")
    assert [move_s.applies(case) for case in (ON_DEVICE, ON_HOST, BY_MODULE)] == [True, True, False]


@pytest.mark.parametrize(
    "more",
    [
        {"scheme": AUTOQUANT},
        {"compile": CompileMode.REGIONAL},
        {"loader": Loader.TORCH_SAVE},
        {"channels_last": True},
    ],
)
def test_a_recipe_that_asks_for_more_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"llama-7b is only quantized and moved, and .* asks for more"):
        make_case(LLAMA_7B, **{"scheme": INT8WO, **more})
