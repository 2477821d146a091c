"""Synthetic weights have the same bits everywhere, and the distribution that their module states."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest
import torch
from torch import nn

from perf_tests.tables.pipelines.encoders import T5_XXL
from perf_tests.worker.model import build, synthetic


def filled(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    tensor = torch.empty(*shape, dtype=dtype)
    synthetic.fill(name, tensor)
    return tensor


def test_the_first_weights_of_a_name_are_these_bits() -> None:
    sums = [reference_sum("transformer.proj.weight", index) for index in range(4)]
    scale = math.sqrt(1 / (4 * 4 * (256**2 - 1) / 12))
    expected = torch.tensor([(total - 510) * scale for total in sums], dtype=torch.float64)
    assert torch.equal(filled("transformer.proj.weight", 1, 4).flatten(), expected.float())
    assert sums == [720, 779, 576, 515]


def reference_sum(name: str, index: int) -> int:
    """A second implementation of the definition, in plain integers, without torch."""

    def mix(x: int) -> int:
        x ^= x >> 16
        x = x * 0x21F0AAAD & 0xFFFFFFFF
        x ^= x >> 15
        x = x * 0x735A2D97 & 0xFFFFFFFF
        return x ^ x >> 15

    digest = hashlib.sha256(name.encode()).digest()
    first, second = (int.from_bytes(digest[i : i + 4], "little") for i in (0, 4))
    return sum(mix(mix(index ^ first) + second & 0xFFFFFFFF).to_bytes(4, "little"))


def test_a_matrix_has_variance_one_over_fan_in() -> None:
    weight = filled("w.weight", 512, 1024)
    assert weight.var().item() * 1024 == pytest.approx(1.0, abs=0.01)
    assert weight.mean().item() == pytest.approx(0.0, abs=2e-4)


def test_the_fan_in_of_a_convolution_is_channels_times_kernel() -> None:
    assert filled("conv.weight", 256, 64, 3, 3).var().item() * 64 * 9 == pytest.approx(1.0, abs=0.02)


def test_elements_do_not_depend_on_how_they_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = filled("w.weight", 64, 64)
    monkeypatch.setattr(synthetic, "CHUNK", 100)
    assert torch.equal(filled("w.weight", 64, 64), whole)


def test_weights_of_two_names_are_not_correlated() -> None:
    first, second = filled("a.weight", 1, 4096).flatten(), filled("b.weight", 1, 4096).flatten()
    correlation = torch.corrcoef(torch.stack([first, second]))[0, 1].item()
    assert abs(correlation) < 0.05


def test_a_weight_is_rounded_to_its_dtype_once() -> None:
    exact = filled("w.weight", 32, 32, dtype=torch.float64)
    assert torch.equal(filled("w.weight", 32, 32, dtype=torch.bfloat16), exact.to(torch.bfloat16))


@pytest.mark.parametrize(("name", "value"), [("norm.weight", 1.0), ("linear.bias", 0.0)])
def test_vectors_are_norms_or_biases(name: str, value: float) -> None:
    assert filled(name, 8).tolist() == [value] * 8


def test_tied_parameters_stay_tied() -> None:
    module = nn.Module()
    module.first, module.second = (nn.Linear(8, 8, bias=False, device="meta") for _ in range(2))
    module.second.weight = module.first.weight
    synthetic.materialise("part", module, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert module.second.weight is module.first.weight
    assert torch.equal(module.first.weight, filled("part.first.weight", 8, 8, dtype=torch.bfloat16))


def test_a_gain_scales_the_parameters_it_names_and_no_other() -> None:
    module: Any = nn.ModuleDict({"q": nn.Linear(64, 32), "k": nn.Linear(64, 32)}).to("meta")
    on_cpu = torch.device("cpu")
    synthetic.materialise("part", module, dtype=torch.float32, device=on_cpu, gains={"q.*": 0.25})
    plain = torch.empty(32, 64)
    synthetic.fill("part.q.weight", plain)
    assert torch.equal(module["q"].weight, plain * 0.25)
    synthetic.fill("part.k.weight", plain)
    assert torch.equal(module["k"].weight, plain)
    assert torch.equal(module["q"].bias, torch.zeros(32))


def test_a_text_encoder_survives_the_rounding_of_its_weights() -> None:
    """Without its gains T5 is chaotic, and no quantized text could be compared with the bf16 one."""
    row = T5_XXL.with_config(d_model=128, d_ff=256, num_heads=2, vocab_size=512)
    tokens = torch.arange(3, 67).unsqueeze(0)
    answers = {}
    for dtype in (torch.float32, torch.bfloat16):
        encoder: Any = build.empty(row)
        synthetic.materialise("t5", encoder, dtype=dtype, device=torch.device("cpu"), gains=row.gains)
        answers[dtype] = encoder(tokens)[0].float()
    exact, rounded = answers[torch.float32], answers[torch.bfloat16]
    sqnr_db = 20 * torch.log10(exact.norm() / (exact - rounded).norm())
    assert float(sqnr_db) > 30.0  # and -1 dB without
