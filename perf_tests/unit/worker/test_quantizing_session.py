"""A miniature is quantized and moved as its recipe says, and what can silently go wrong is red."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from perf_tests.harness.verdicts.build_checks import contradictions
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import (
    Compile,
    FailureKind,
    Fault,
    Generate,
    Generated,
    Injection,
    Inspect,
    Inspected,
    Load,
    Quantize,
    Quantized,
)
from perf_tests.protocol.reports import BuiltTwin
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.expected import quantize_peak_vs_needed
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.pipelines.llama import LLAMA_MINI
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import QuantizedOn
from perf_tests.tables.schemes.rows import INT8WO
from perf_tests.unit.builders import make_build, make_case, make_memory
from perf_tests.worker.quantization import apply
from perf_tests.worker.quantizing_session import QuantizingSession

ON_DEVICE, ON_HOST, BY_MODULE = (
    make_case(LLAMA_MINI, scheme=INT8WO, quantized_on=where) for where in QuantizedOn
)
ALL = (ON_DEVICE, ON_HOST, BY_MODULE)
PEAK = "quantize_peak_allocated_mib"
PEAK_GATE_MIB = 0.5


class Whole:
    """What a whole process of a case reports."""

    def __init__(
        self, case: Case, *injections: Injection, before_sample: Callable[[nn.Module], None] | None = None
    ) -> None:
        self.case = case
        session = QuantizingSession(None)
        session.load(Load(case=case, device=Device.CPU, injections=injections))
        self.quantized: Quantized = session.quantize(Quantize(tensors=True))
        session.compile(Compile())
        session.generate(Generate(warmup=True))
        if before_sample is not None:
            before_sample(session._model)
        self.generated: Generated = session.generate(Generate())
        self.inspected: Inspected = session.inspect(Inspect(work=False))

    def contradictions(self, twin: Whole | None = None) -> tuple[str, ...]:
        made = None if twin is None else _built_twin(twin)
        build = make_build(
            {"compiled_graphs": self.inspected.values["compiled_graphs"]},
            quantization=self.quantized.quantization,
            tensors=self.quantized.tensors,
            state=self.quantized.state,
            final_state=self.inspected.state,
            built_twin=made,
            placement=self.inspected.placement,
            step=None,
        )
        return contradictions(self.case, build)


def _built_twin(twin: Whole) -> BuiltTwin:
    digest = twin.generated.sample.output_sha256
    return BuiltTwin(seconds={}, memory={}, tensors=twin.quantized.tensors, output_sha256=digest, files={})


@pytest.fixture(scope="module")
def on_device() -> Whole:
    return Whole(ON_DEVICE)


def whole_model(case: Case) -> QuantizingSession:
    session = QuantizingSession(None)
    session.load(Load(case=case, device=Device.CPU))
    session.quantize(Quantize())
    return session


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.id)
def test_a_model_is_quantized_as_asked_for_and_answers_as_its_twin(case: Case, on_device: Whole) -> None:
    whole = Whole(case)
    assert whole.contradictions(on_device) == ()
    assert whole.quantized.tensors == on_device.quantized.tensors
    assert whole.generated.sample.output_sha256 == on_device.generated.sample.output_sha256
    assert whole.quantized.converted == 22
    assert ("move_s" in whole.inspected.values) is (case is not BY_MODULE)


def test_an_answer_comes_close_to_that_of_the_same_model_before_it_was_quantized(on_device: Whole) -> None:
    assert on_device.inspected.values["answer_sqnr_db"] == pytest.approx(30.2, abs=0.4)


def test_weights_of_another_scale_answer_too_far_away(on_device: Whole) -> None:
    whole = Whole(ON_DEVICE, Injection(fault=Fault.SCALE, amount=50.0))
    lost_db = on_device.inspected.values["answer_sqnr_db"] - whole.inspected.values["answer_sqnr_db"]
    (gate,) = set(METRIC_BY_NAME["answer_sqnr_db"].gates.values())
    assert lost_db > 10 > gate.tolerance.absolute


def test_everything_but_embedding_and_norms_is_quantized(on_device: Whole) -> None:
    values, placement = on_device.inspected.values, on_device.inspected.placement
    assert values["quantized_modules"] == 22.0
    assert values["weight_bytes"] == values["transformer_bytes"]
    assert values["weight_bytes_vs_implied"] == pytest.approx(1.0, abs=0.02)
    assert placement is not None
    assert placement.plain == {"Embedding": 1, "LlamaRMSNorm": 7}
    assert placement.before.keys() == placement.after.keys() == {"cpu"}
    assert placement.after["cpu"] < 0.6 * placement.before["cpu"]


def test_answers_of_one_seed_are_the_same_and_of_two_seeds_are_not() -> None:
    session = QuantizingSession(None)
    session.load(Load(case=ON_HOST, device=Device.CPU))
    session.quantize(Quantize())
    session.compile(Compile())
    hashes = [session.generate(Generate(pair=pair)).sample.output_sha256 for pair in (0, 1, 0)]
    assert hashes[0] == hashes[2] != hashes[1]


# The largest weight takes 1 MiB in float32; the model takes 5.60 MiB in bf16, and 3.09 in int8.
@pytest.mark.parametrize(
    ("case", "peak_mib", "is_red"),
    [
        (ON_DEVICE, 5.60 + 2.0, False),
        (ON_DEVICE, 5.60 + 3.09, True),
        (ON_HOST, 3.09 + 2.0, False),
        (ON_HOST, 5.60 + 3.09, True),
        (BY_MODULE, 3.09 + 2.0, False),
        (BY_MODULE, 5.60 + 2.0, True),
    ],
)
def test_a_peak_of_a_second_copy_or_of_another_place_is_red(
    case: Case, peak_mib: float, is_red: bool
) -> None:
    window = make_memory(allocated_mib=peak_mib)
    ratio = whole_model(case)._peak_vs_needed(window)["quantize_peak_vs_needed"]
    implied = quantize_peak_vs_needed(case)
    assert implied is not None
    assert (ratio > implied.high) is is_red


# Mutations


def test_a_module_that_is_left_unquantized_is_red() -> None:
    whole = Whole(ON_HOST, Injection(fault=Fault.DROP_QUANTIZATION, amount=1))
    assert whole.contradictions(whole)[0].startswith("21 of 22 Linear modules are quantized as int8wo says")
    assert whole.inspected.values["quantized_modules"] == 21.0


def test_a_part_that_ends_elsewhere_is_red(on_device: Whole) -> None:
    class Elsewhere(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scales", torch.empty(8, dtype=torch.bfloat16, device="meta"))

    whole = Whole(ON_HOST, before_sample=lambda model: model.add_module("left", Elsewhere()))
    assert whole.contradictions(on_device) == (
        "after its last answer, 16 bytes of the model were on meta, and all were to be on cpu",
    )


def test_an_end_state_that_differs_by_one_scale_is_red(on_device: Whole) -> None:
    whole = Whole(BY_MODULE, Injection(fault=Fault.SCALE, amount=1.0))
    (sentence,) = whole.contradictions(on_device)
    assert sentence.startswith("1 of ")
    assert "tensors are not those of the built twin: transformer.model.layers" in sentence
    assert whole.generated.sample.output_sha256 != on_device.generated.sample.output_sha256


def test_a_second_copy_of_the_weights_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[torch.Tensor] = []
    right = apply.apply

    def keep(pipeline: Any, *given: Any, **named: Any) -> Any:
        kept.extend(parameter.detach() for parameter in pipeline.transformer.parameters())
        return right(pipeline, *given, **named)

    peak_mib = Whole(ON_HOST).inspected.values[PEAK]
    monkeypatch.setattr(apply, "apply", keep)
    assert Whole(ON_HOST).inspected.values[PEAK] > max(1.05 * peak_mib, peak_mib + PEAK_GATE_MIB)


def test_a_weight_that_changes_once_it_was_quantized_is_red(on_device: Whole) -> None:
    def change(model: nn.Module) -> None:
        with torch.no_grad():
            model.get_parameter("model.norm.weight")[0] += 1.0

    whole = Whole(ON_HOST, before_sample=change)
    assert whole.contradictions(on_device) == (
        "values of the weights of transformer changed during generation",
    )


def test_a_logit_that_is_not_finite_is_a_failure_of_numerics() -> None:
    with pytest.raises(WorkerError, match="a logit is not finite") as caught:
        Whole(ON_HOST, Injection(fault=Fault.NAN))
    assert caught.value.failure.kind is FailureKind.NUMERICS
