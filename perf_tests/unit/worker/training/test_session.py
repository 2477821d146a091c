"""A miniature is trained as its recipe says, and each thing that can silently go wrong is red."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
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
)
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.expected import (
    gradient_error_vs_redrawn,
    gradient_error_vs_rounded,
    loss_difference_pct,
)
from perf_tests.tables.platforms import Device
from perf_tests.tables.training.spec import Float8Recipe, Training
from perf_tests.unit.builders import make_build, make_case
from perf_tests.worker.training import float8, steps
from perf_tests.worker.training.session import TrainingSession

# Two steps are enough for each proof, and take a fourth of the time.
TWO = Training(steps=2, largest_loss_difference_pct=1.5)
IN_BF16 = make_case(training=TWO)
TENSORWISE = make_case(
    training=Training(steps=2, largest_loss_difference_pct=1.5, float8=Float8Recipe.TENSORWISE)
)


class Trained:
    """What a whole process of a case reports."""

    def __init__(
        self, case: Case, *injections: Injection, before_sample: Callable[[nn.Module], None] | None = None
    ) -> None:
        self.case = case
        session = TrainingSession(None)
        session.load(Load(case=case, device=Device.CPU, injections=injections))
        self.quantized = session.quantize(Quantize())
        session.compile(Compile())
        session.generate(Generate(warmup=True))
        if before_sample is not None:
            before_sample(session._loaded.pipeline.transformer)
        self.generated: Generated = session.generate(Generate())
        self.inspected: Inspected = session.inspect(Inspect(work=False))

    @property
    def contradictions(self) -> tuple[str, ...]:
        values = {"compiled_graphs": self.inspected.values["compiled_graphs"]}
        return contradictions(self.case, make_build(values, training=self.inspected.training))

    @property
    def off(self) -> set[str]:
        """Metrics that are outside the range that the tables imply."""
        ranges = {
            "loss_difference_pct": loss_difference_pct(self.case),
            "gradient_error_vs_redrawn": gradient_error_vs_redrawn(self.case),
            "gradient_error_vs_rounded": gradient_error_vs_rounded(self.case),
        }
        return {
            name
            for name, implied in ranges.items()
            if implied is not None and not implied.low <= self.inspected.values[name] <= implied.high
        }


def noting(noted: list[list[bool]], now: list[bool], call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, which also appends to `noted` what `now` holds by then."""

    def wrapped(*arguments: Any) -> Any:
        noted.append(list(now))
        return call(*arguments)

    return wrapped


@pytest.fixture(scope="module")
def in_bf16() -> Trained:
    return Trained(IN_BF16)


@pytest.fixture(scope="module")
def tensorwise() -> Trained:
    return Trained(TENSORWISE)


@pytest.mark.parametrize("cudnn", [True, False])
def test_attention_is_computed_with_cudnn_only_where_the_recipe_allows_it(
    monkeypatch: pytest.MonkeyPatch, cudnn: bool
) -> None:
    allowed: list[bool] = []
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", allowed.append)
    session = TrainingSession(None)
    case = make_case(training=Training(steps=1, cudnn_attention=cudnn))
    session.load(Load(case=case, device=Device.CPU))
    trained_with: list[list[bool]] = []
    monkeypatch.setattr(steps, "loss", noting(trained_with, allowed, steps.loss))
    session.quantize(Quantize())
    assert trained_with[0] == [cudnn]  # before the first step, that of bf16


def test_training_in_bf16_is_what_it_is_compared_with(in_bf16: Trained) -> None:
    values = in_bf16.inspected.values
    assert in_bf16.contradictions == ()
    assert in_bf16.off == set()
    assert values["loss_difference_pct"] == 0.0
    assert values["gradient_error_vs_redrawn"] == pytest.approx(0.0, abs=1e-9)
    assert values["gradient_cosine"] == pytest.approx(1.0)
    assert (values["float8_modules"], values["float8_gemms_forward"]) == (0.0, 0.0)


def test_training_in_float8_is_as_the_recipe_says(tensorwise: Trained) -> None:
    values = tensorwise.inspected.values
    assert tensorwise.contradictions == ()
    assert tensorwise.off == set()
    assert values["float8_modules"] == 61.0
    assert values["float8_gemms_forward"] == 61.0
    assert values["float8_gemms_backward"] > 0.0
    assert 0.9 < values["gradient_cosine"] < 0.9999
    assert 0.0 < values["loss_difference_pct"] < 1.5
    assert values["adapter_elements"] == 20 * 2 * 16 * 256


def test_a_sample_has_a_time_for_each_step_but_the_first_and_a_loss_for_each(tensorwise: Trained) -> None:
    values = tensorwise.generated.sample.values
    assert len(values["train_step_ms"]) == 1
    assert len(values["train_losses"]) == 2
    assert values["trained_samples_per_s"][0] == pytest.approx(1e3 / values["train_step_ms"][0])


def test_what_is_trained_is_recorded_with_its_operators(tensorwise: Trained) -> None:
    report = tensorwise.inspected.training
    assert report is not None
    assert report.kernels is not None
    assert report.kernels.forward == {"aten::_scaled_mm": 61}
    assert (report.adapters, report.adapter_dtypes) == (40, ("float32",))
    assert report.frozen_sha256[0] == report.frozen_sha256[1]


def test_two_samples_of_a_seed_are_the_same_and_of_two_seeds_are_not() -> None:
    session = TrainingSession(None)
    session.load(Load(case=IN_BF16, device=Device.CPU))
    session.quantize(Quantize())
    session.compile(Compile())
    hashes = [session.generate(Generate(pair=pair)).sample.output_sha256 for pair in (0, 1, 0)]
    assert hashes[0] == hashes[2] != hashes[1]


# Mutations


def test_a_linear_module_that_was_not_converted_is_red() -> None:
    trained = Trained(TENSORWISE, Injection(fault=Fault.DROP_QUANTIZATION, amount=1))
    (sentence,) = trained.contradictions
    assert sentence.startswith("60 Linear modules multiply in float8, and the recipe")
    assert trained.inspected.values["float8_modules"] == 60.0


def test_an_adapter_without_a_gradient_is_red() -> None:
    def detach(transformer: nn.Module) -> None:
        layer = transformer.get_submodule("transformer_blocks.1.attn.to_k")
        right = layer.forward

        layer.forward = torch.no_grad()(right)

    trained = Trained(IN_BF16, before_sample=detach)
    (sentence,) = trained.contradictions
    assert sentence == (
        "2 of 40 adapters had no finite gradient other than 0, or did not move: "
        "transformer_blocks.1.attn.to_k.down, transformer_blocks.1.attn.to_k.up"
    )


def test_a_frozen_weight_that_changes_is_red_and_named() -> None:
    def thaw(transformer: nn.Module) -> None:
        with torch.no_grad():
            transformer.get_parameter("proj_out.weight")[0, 0] += 1.0

    trained = Trained(IN_BF16, before_sample=thaw)
    (sentence,) = trained.contradictions
    assert sentence == (
        "1 of 140 frozen weights changed while the adapters were trained: transformer.proj_out.weight"
    )


@contextmanager
def _loss_times(factor: float) -> Iterator[None]:
    right = steps.loss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "loss", lambda *given: right(*given) * factor)
        yield


def test_a_loss_that_is_two_percent_off_is_red() -> None:
    session = TrainingSession(None)
    session.load(Load(case=IN_BF16, device=Device.CPU))
    session.quantize(Quantize())
    session.compile(Compile())
    with _loss_times(1.02):
        session.generate(Generate())
    inspected = session.inspect(Inspect(work=False))
    assert inspected.values["loss_difference_pct"] == pytest.approx(2.0, abs=0.1)
    implied = loss_difference_pct(IN_BF16)
    assert implied is not None
    assert inspected.values["loss_difference_pct"] > implied.high


def test_a_gradient_that_is_mostly_noise_is_red() -> None:
    def disturb(transformer: nn.Module) -> None:
        for name, parameter in transformer.named_parameters():
            if parameter.requires_grad and name.endswith(".up"):
                parameter.register_hook(
                    lambda gradient: gradient + gradient.std() * torch.randn_like(gradient)
                )

    trained = Trained(IN_BF16, before_sample=disturb)
    assert trained.off == {"gradient_error_vs_redrawn"}


def test_gradients_that_float8_moves_too_little_are_red() -> None:
    half = Injection(fault=Fault.DROP_QUANTIZATION, amount=30)
    trained = Trained(TENSORWISE, half)
    assert trained.off == {"gradient_error_vs_rounded"}
    assert 0.2 < trained.inspected.values["gradient_error_vs_rounded"] < 0.5


def test_float8_whose_scales_are_twice_too_large_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchao.float8 import float8_utils  # here: takes seconds to import

    right = float8_utils.amax_to_scale
    monkeypatch.setattr(float8_utils, "amax_to_scale", lambda *given, **named: right(*given, **named) * 2)
    trained = Trained(TENSORWISE)
    assert trained.contradictions == ()
    assert "gradient_error_vs_rounded" in trained.off
    assert trained.inspected.values["gradient_error_vs_rounded"] > 20


def test_float8_that_is_only_in_the_forward_pass_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    right = float8.convert

    def forward_only(transformer: nn.Module, training: Training, names: list[str]) -> None:
        from torchao.float8.config import CastConfig, ScalingType  # here: takes seconds to import

        right(transformer, training, names)
        disabled = CastConfig(scaling_type=ScalingType.DISABLED)
        for module in transformer.modules():
            config = getattr(module, "config", None)
            if type(module).__name__ == float8.FLOAT8_LINEAR and config is not None:
                for name in (
                    "cast_config_grad_output",
                    "cast_config_weight_for_grad_input",
                    "cast_config_input_for_grad_weight",
                    "cast_config_grad_output_for_grad_weight",
                ):
                    object.__setattr__(config, name, disabled)

    monkeypatch.setattr(float8, "convert", forward_only)
    (sentence,) = Trained(TENSORWISE).contradictions
    assert sentence.endswith("multiplies in float8, and no product of the backward pass did")


def test_a_loss_that_is_not_finite_is_a_failure_of_numerics() -> None:
    session = TrainingSession(None)
    session.load(Load(case=IN_BF16, device=Device.CPU, injections=(Injection(fault=Fault.NAN),)))
    session.quantize(Quantize())
    session.compile(Compile())
    with pytest.raises(WorkerError, match="the loss of a training step is nan") as caught:
        session.generate(Generate())
    assert caught.value.failure.kind is FailureKind.NUMERICS


def test_a_report_of_training_survives_the_wire(tensorwise: Trained) -> None:
    sent = msgspec.json.encode(tensorwise.inspected)
    assert msgspec.json.decode(sent, type=Inspected).training == tensorwise.inspected.training
