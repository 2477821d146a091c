"""What a pipeline is, read twice: anything that changes between the first image and the last is seen."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch

from perf_tests.harness.verdicts import build_checks
from perf_tests.protocol.messages import Compile, Generate, Inspect, Load, Quantize
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import INT8WO
from perf_tests.unit.builders import make_build
from perf_tests.worker.faults import scale_by
from perf_tests.worker.measure import generate
from perf_tests.worker.quantization import apply, state
from perf_tests.worker.session import WorkerSession

RECIPE = Recipe(scheme=INT8WO, channels_last=True)


def test_checksum_sees_one_bit_and_no_order() -> None:
    tensor = torch.arange(5, dtype=torch.int32)  # two words and a rest of four bytes
    before = state.checksum([tensor])
    assert before == (1 << 32) + (2 + (3 << 32)) + 4
    assert state.checksum([tensor, tensor[1:]]) == before
    tensor[4] += 1
    assert state.checksum([tensor]) == before + 1


def _dequantize(pipeline: Any) -> None:
    for _, module in apply.linear_modules(pipeline):
        if type(module.weight) is not torch.nn.Parameter:
            module.weight = torch.nn.Parameter(module.weight.dequantize(), requires_grad=False)


def _merge_an_adapter(pipeline: Any) -> None:
    pipeline.text_encoder_2.encoder.block[0].layer[0].SelfAttention.q.weight.data *= 1.01


def _rescale_one_layer(pipeline: Any) -> None:
    assert scale_by(pipeline.transformer.transformer_blocks[0].attn.to_q.weight, 1.01)


def _forget_the_memory_format(pipeline: Any) -> None:
    for parameter in pipeline.vae.parameters():
        parameter.data = parameter.data.contiguous()


def _widen_the_decoder(pipeline: Any) -> None:
    pipeline.vae.float()


FAULTS = {
    "dequantized": (_dequantize, r"after the last image, \d+ Linear modules of transformer are Parameter"),
    "adapter": (_merge_an_adapter, "values of the weights of text_encoder_2 changed"),
    "rescaled": (_rescale_one_layer, "values of the weights of transformer changed"),
    "contiguous": (
        _forget_the_memory_format,
        "the memory format .* of vae changed",
    ),
    "float32": (_widen_the_decoder, "the size of the weights .* of vae changed"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_change_between_two_readings_contradicts_the_build(
    make_case: Callable[..., Case], make_pipeline: Callable[..., Any], name: str
) -> None:
    fault, sentence = FAULTS[name]
    case, pipeline = make_case(RECIPE), make_pipeline(RECIPE)
    quantization = apply.apply(pipeline, case.build)
    before = state.read(pipeline, case.build)
    unchanged = make_build(
        quantization=quantization, state=before, final_state=state.read(pipeline, case.build)
    )
    assert build_checks.contradictions(case, unchanged) == ()
    fault(pipeline)
    changed = msgspec.structs.replace(unchanged, final_state=state.read(pipeline, case.build))
    assert any(re.match(sentence, each) for each in build_checks.contradictions(case, changed))


def test_worker_reads_its_weights_before_the_first_image_and_after_the_last(
    make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = WorkerSession(None)
    session.load(Load(case=make_case(Recipe(scheme=INT8WO)), device=Device.CPU))
    before = session.quantize(Quantize()).state
    session.compile(Compile())
    session.generate(Generate(warmup=True))
    assert session.inspect(Inspect()).state == before
    right = generate.generate_once

    def wrong(pipeline: Any, *arguments: Any) -> generate.Generation:
        generation = right(pipeline, *arguments)
        _dequantize(pipeline)
        return generation

    monkeypatch.setattr("perf_tests.worker.session.generate_once", wrong)
    session.generate(Generate())
    after = session.inspect(Inspect()).state
    assert after is not None
    assert before is not None
    assert after.components["transformer"].weight_bytes > 1.5 * before.components["transformer"].weight_bytes
    assert [each.subclass for each in after.groups if each.component == "transformer"] == ["Parameter"]
