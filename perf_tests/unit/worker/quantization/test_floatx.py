"""floatx weights follow the definition, take the bits in their name, and compile into one kernel."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch._inductor import metrics as inductor
from torchao.quantization import quantize_

from perf_tests.tables.schemes.rows import FP4_E2M1, FP5_E2M2, FP6_E3M2
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.worker.measure import memory
from perf_tests.worker.model.lazy import construct
from perf_tests.worker.quantization import apply, floatx
from perf_tests.worker.quantization.floatx import FloatxTensor, FloatxWeightOnlyConfig

FORMATS = [
    pytest.param(ebits, mbits, id=f"e{ebits}m{mbits}") for ebits in range(1, 8) for mbits in range(8 - ebits)
]
each_format = pytest.mark.parametrize(("ebits", "mbits"), FORMATS)
SCHEMES = [pytest.param(scheme, id=scheme.id) for scheme in (FP6_E3M2, FP5_E2M2, FP4_E2M1)]
each_scheme = pytest.mark.parametrize("scheme", SCHEMES)


def magnitude(code: int, ebits: int, mbits: int) -> float:
    """The value of a code without its sign, as IEEE 754 defines it, without infinities and NaN."""
    exponent, mantissa = divmod(code, 2**mbits)
    bias = 2 ** (ebits - 1) - 1
    if exponent == 0:
        return math.ldexp(mantissa, 1 - bias - mbits)
    return math.ldexp(2**mbits + mantissa, exponent - bias - mbits)


def magnitudes(ebits: int, mbits: int) -> list[float]:
    """The magnitudes of all codes, in order."""
    return [magnitude(code, ebits, mbits) for code in range(2 ** (ebits + mbits))]


def encoded(values: Sequence[float], ebits: int, mbits: int) -> list[int]:
    exact = torch.tensor(values, dtype=torch.float32)
    assert exact.tolist() == list(values)
    codes: list[int] = floatx.encode(exact, ebits, mbits).tolist()
    return codes


def decoded(codes: Sequence[int], ebits: int, mbits: int) -> list[float]:
    packed = floatx.pack(torch.tensor([codes], dtype=torch.uint8), 1 + ebits + mbits)
    values: list[float] = floatx.decode(packed, ebits, mbits)[0, : len(codes)].tolist()
    return values


def gaussian(rows: int, columns: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(7)).to(dtype)


def quantized(scheme: Scheme, module: nn.Linear) -> Any:
    assert scheme.config is not None
    model = nn.Sequential(module)
    quantize_(model, construct(scheme.config))
    return model


@pytest.mark.parametrize(
    ("ebits", "mbits", "expected"),
    [
        # OCP Microscaling Formats (MX) 1.0, sections 5.3.2 and 5.3.3.
        pytest.param(2, 1, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], id="fp4_e2m1"),
        pytest.param(3, 2, [0.0, 0.0625, 0.125, 0.1875, 0.25, 0.3125, 0.375, 0.4375], id="fp6_e3m2"),
    ],
)
def test_the_lowest_codes_are_those_of_the_standard(ebits: int, mbits: int, expected: list[float]) -> None:
    assert decoded(range(8), ebits, mbits) == expected


@pytest.mark.parametrize(
    ("ebits", "mbits", "largest"),
    [(2, 1, 6.0), (2, 2, 7.0), (3, 2, 28.0), (2, 3, 7.5), (4, 3, 480.0), (1, 0, 2.0), (7, 0, 2.0**64)],
)
def test_the_largest_value_has_ones_everywhere(ebits: int, mbits: int, largest: float) -> None:
    assert floatx.largest(ebits, mbits) == largest
    assert decoded([2 ** (ebits + mbits) - 1], ebits, mbits) == [largest]


@each_format
def test_codes_have_the_value_of_the_definition_and_come_back(ebits: int, mbits: int) -> None:
    positive = magnitudes(ebits, mbits)
    values = [*positive, *(-value for value in positive)]
    codes = list(range(2 ** (1 + ebits + mbits)))
    found = decoded(codes, ebits, mbits)
    assert found == values
    # -0.0 == 0.0, so that signs are compared on their own.
    assert [math.copysign(1, value) for value in found] == [math.copysign(1, value) for value in values]
    assert encoded(values, ebits, mbits) == codes


@each_format
def test_a_tie_goes_to_the_even_code_and_its_neighbours_to_the_nearest(ebits: int, mbits: int) -> None:
    values = magnitudes(ebits, mbits)
    sign = 2 ** (ebits + mbits)
    for code, (low, high) in enumerate(itertools.pairwise(values)):
        tie = torch.tensor((low + high) / 2, dtype=torch.float32)
        around = torch.stack(
            [torch.nextafter(tie, torch.tensor(low)), tie, torch.nextafter(tie, torch.tensor(high))]
        )
        expected = [code, code + code % 2, code + 1]
        assert floatx.encode(around, ebits, mbits).tolist() == expected
        assert floatx.encode(-around, ebits, mbits).tolist() == [sign + each for each in expected]


@each_format
def test_values_that_are_too_large_become_the_largest(ebits: int, mbits: int) -> None:
    largest = floatx.largest(ebits, mbits)
    code = 2 ** (ebits + mbits) - 1
    too_large = torch.tensor([largest, largest * 1.001, largest * 2, 3e38, math.inf])
    assert floatx.encode(too_large, ebits, mbits).tolist() == [code] * 5
    assert floatx.encode(-too_large, ebits, mbits).tolist() == [2 * code + 1] * 5


def test_values_that_are_too_small_become_a_zero_of_their_sign() -> None:
    # Half of the smallest fp6_e3m2, 0.0625, is a tie between zero and one; the second is a float32 subnormal.
    assert encoded([0.03125, 2.0**-149, 0.0, -0.03125, -(2.0**-149), -0.0], 3, 2) == [0] * 3 + [32] * 3


@each_format
def test_random_values_become_the_nearest_code(ebits: int, mbits: int) -> None:
    generator = torch.Generator().manual_seed(11)
    spread = floatx.largest(ebits, mbits) * torch.exp2(
        -torch.rand(512, generator=generator) * (2**ebits + mbits)
    )
    values = spread * torch.randn(512, generator=generator).sign()
    found = torch.tensor(decoded(floatx.encode(values, ebits, mbits).tolist(), ebits, mbits)).double()
    table = torch.tensor(magnitudes(ebits, mbits), dtype=torch.float64)
    nearest = (values.double().abs().unsqueeze(1) - table).abs().min(dim=1).values
    assert torch.equal((values.double() - found).abs(), nearest)


@each_format
def test_the_codes_are_those_that_torchao_had(ebits: int, mbits: int) -> None:
    # A prototype that the next release may lack; then the tests above must suffice.
    torchao = pytest.importorskip("torchao.prototype.custom_fp_utils")
    generator = torch.Generator().manual_seed(13)
    values = torch.randn(4096, generator=generator) * torch.exp2(torch.arange(4096) % 80 - 40.0)
    values = torch.cat([values, torch.arange(-32, 32, 0.03125)])
    expected = torchao._f32_to_floatx_unpacked(values.clone(), ebits, mbits)
    assert torch.equal(floatx.encode(values, ebits, mbits), expected)


@pytest.mark.parametrize(("ebits", "mbits"), [(0, 3), (-1, 2), (3, -1), (4, 4), (8, 0)])
def test_widths_that_are_not_a_format_are_refused(ebits: int, mbits: int) -> None:
    message = f"{ebits} exponent bits and {mbits} mantissa bits are not a floatx format: use at least 1 and 0"
    with pytest.raises(ValueError, match=message):
        FloatxWeightOnlyConfig(ebits=ebits, mbits=mbits)
    with pytest.raises(ValueError, match=message):
        FloatxTensor.from_hp(gaussian(2, 8), ebits, mbits)


@pytest.mark.parametrize(
    ("bits", "codes", "expected"),
    [
        pytest.param(4, [0x1, 0x2, 0xF], [0x21, 0x0F], id="4"),
        # 0b1111_10, 0b0001_01, 0b0000_11: four upper bits, then two lower ones.
        pytest.param(6, [0b111110, 0b000101, 0b000011], [0b00011111, 0, 0b00110110], id="4+2"),
        pytest.param(5, [0b10001, 0b00010, 0b11111], [0x18, 0x0F, 0, 0, 0b101], id="4+1"),
        pytest.param(7, [0b1010011], [0x0A, 0, 0, 0, 0b01, 0, 0b1], id="4+2+1"),
        pytest.param(8, [0xA5], [0xA5], id="8"),
    ],
)
def test_a_row_is_its_planes_with_neighbours_in_a_byte(
    bits: int, codes: list[int], expected: list[int]
) -> None:
    assert floatx.pack(torch.tensor([codes], dtype=torch.uint8), bits).tolist() == [expected]


@pytest.mark.parametrize(
    ("scheme", "sqnr_db"),
    [
        pytest.param(FP6_E3M2, 25.6, id="fp6_e3m2"),
        pytest.param(FP5_E2M2, 25.1, id="fp5_e2m2"),
        pytest.param(FP4_E2M1, 18.9, id="fp4_e2m1"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_gaussian_rows_have_the_published_sqnr(scheme: Scheme, sqnr_db: float, dtype: torch.dtype) -> None:
    # Of 512 channels: the largest of a longer row leaves the others less range.
    weight = gaussian(1024, 512, dtype)
    linear = nn.Linear(512, 1024, bias=False, dtype=dtype)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    found = quantized(scheme, linear)[0].weight.dequantize().double()
    noise = (found - weight.double()).square().sum()
    assert 10 * math.log10(weight.double().square().sum() / noise) == pytest.approx(sqnr_db, abs=0.3)


@pytest.mark.parametrize(
    ("ebits", "mbits", "dtype"),
    [
        pytest.param(3, 2, torch.bfloat16, id="fp6_e3m2-bf16"),
        pytest.param(2, 1, torch.float16, id="fp4_e2m1-fp16"),
        pytest.param(5, 2, torch.float32, id="fp8_e5m2-fp32"),
    ],
)
def test_a_weight_is_its_code_times_the_scale_of_its_row(ebits: int, mbits: int, dtype: torch.dtype) -> None:
    weight = gaussian(32, 100, dtype) * torch.exp2(torch.arange(32) % 8 - 4.0).unsqueeze(1).to(dtype)
    table = torch.tensor(magnitudes(ebits, mbits), dtype=torch.float64)
    tensor = FloatxTensor.from_hp(weight, ebits, mbits)
    scale = (weight.abs().amax(1, keepdim=True).double() / table[-1]).to(dtype)
    assert torch.equal(tensor.scale, scale)
    steps = weight.double() / scale.double()
    found = tensor.dequantize().double() / scale.double()
    nearest = (steps.abs().unsqueeze(-1) - table).abs().min(dim=-1).values
    # The quotient is rounded to float32 before it is encoded, the product to the weight's dtype after it.
    torch.testing.assert_close((steps - found).abs(), nearest, rtol=0, atol=0.004 * float(table[-1]))


def test_rows_of_zeros_and_of_the_smallest_numbers_are_finite() -> None:
    weight = torch.zeros(3, 16, dtype=torch.float16)
    weight[1, 3], weight[2] = -1.0, 2.0**-24
    for ebits, mbits in ((3, 2), (7, 0)):
        found = FloatxTensor.from_hp(weight, ebits, mbits).dequantize()
        assert torch.equal(found[:2], weight[:2])
        assert (found[2] - weight[2]).abs().max() <= 2.0**-24


@each_scheme
@pytest.mark.parametrize(
    ("rows", "columns"),
    [pytest.param(96, 256, id="whole bytes"), pytest.param(7, 101, id="padded")],
)
def test_a_weight_takes_the_bytes_of_its_bits_and_scales(scheme: Scheme, rows: int, columns: int) -> None:
    asked = scheme.weight
    assert asked is not None
    weight = quantized(scheme, nn.Linear(columns, rows, bias=False, dtype=torch.bfloat16))[0].weight
    implied = asked.implied_bytes(asked.stored_elements(rows, columns), asked.stored_scales(rows, columns))
    assert memory.stored_bytes([weight]) == implied
    assert apply.look(weight) == ("FloatxTensor", scheme.id, "per-row", None)
    assert (tuple(weight.shape), weight.dtype) == ((rows, columns), torch.bfloat16)


@pytest.mark.parametrize(("scheme", "bits"), [(FP6_E3M2, 6), (FP5_E2M2, 5), (FP4_E2M1, 4)])
def test_a_wide_weight_takes_no_more_than_its_bits(scheme: Scheme, bits: int) -> None:
    weight = quantized(scheme, nn.Linear(3072, 64, bias=False, dtype=torch.bfloat16))[0].weight
    assert memory.stored_bytes([weight]) == 64 * 3072 * bits // 8 + 64 * 2
    assert memory.stored_bytes([weight]) == pytest.approx(64 * 3072 * bits / 8, rel=0.01)


@each_scheme
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(101,), (5, 101), (2, 3, 101)], ids=str)
def test_a_layer_multiplies_by_the_dequantized_weight(
    scheme: Scheme, bias: bool, shape: tuple[int, ...]
) -> None:
    model = quantized(scheme, nn.Linear(101, 48, bias=bias, dtype=torch.bfloat16))
    activations = gaussian(6, 101).flatten()[: math.prod(shape)].reshape(shape)
    weight = model[0].weight.dequantize()
    assert type(weight) is torch.Tensor
    expected = nn.functional.linear(activations, weight, model[0].bias)
    with torch.no_grad():
        assert torch.equal(model(activations), expected)
    with torch.inference_mode():
        assert torch.equal(
            torch.ops.aten.linear.default(activations, model[0].weight, model[0].bias), expected
        )


def bits_of(tensor: Any) -> tuple[list[int], list[int], tuple[Any, ...]]:
    attributes = (tensor.ebits, tensor.mbits, tensor.in_features, tensor.dtype, tuple(tensor.shape))
    return tensor.qdata.tolist(), tensor.scale.view(torch.int16).tolist(), attributes


@each_scheme
def test_a_state_dict_comes_back_bit_by_bit(scheme: Scheme) -> None:
    model = quantized(scheme, nn.Linear(101, 48, dtype=torch.bfloat16))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert type(loaded["0.weight"]) is FloatxTensor
    assert bits_of(loaded["0.weight"]) == bits_of(model[0].weight)
    for assign in (False, True):
        other = quantized(scheme, nn.Linear(101, 48, dtype=torch.bfloat16))
        assert bits_of(other[0].weight) != bits_of(model[0].weight)
        other.load_state_dict(loaded, assign=assign)
        assert bits_of(other[0].weight) == bits_of(model[0].weight)


def test_a_weight_is_copied_and_moved_as_a_whole() -> None:
    tensor = FloatxTensor.from_hp(gaussian(8, 12), 3, 2)
    for copy in (tensor.clone(), tensor.detach(), tensor.contiguous(), tensor.to("cpu", copy=True)):
        assert type(copy) is FloatxTensor
        assert bits_of(copy) == bits_of(tensor)
    assert tensor.clone().qdata.data_ptr() != tensor.qdata.data_ptr()
    moved = tensor.to("meta")
    assert (moved.qdata.device.type, moved.scale.device.type, moved.shape) == ("meta", "meta", (8, 12))


def test_another_dtype_leaves_a_weight_as_it_is() -> None:
    # As with torchao's own tensors: bytes stay bytes, and the dtype is that of the result.
    tensor = FloatxTensor.from_hp(gaussian(8, 12), 3, 2)
    assert bits_of(tensor.to(torch.float16)) == bits_of(tensor)
    assert tensor.dequantize(torch.float16).dtype is torch.float16


def test_a_config_by_name_quantizes_that_layer_only() -> None:
    from torchao.quantization import FqnToConfig

    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    config = FqnToConfig({"1": FloatxWeightOnlyConfig(ebits=2, mbits=2)})
    quantize_(model, config, filter_fn=None)
    assert [type(layer.weight) for layer in model] == [nn.Parameter, FloatxTensor]


@each_scheme
def test_a_compiled_layer_is_one_kernel_and_the_gemm(scheme: Scheme) -> None:
    # No multiple of a byte's columns: the padding is cut off in the same kernel.
    model = quantized(scheme, nn.Linear(101, 48, dtype=torch.bfloat16))
    activations = gaussian(6, 101)
    torch.compiler.reset()
    inductor.reset()
    compiled: Any = torch.compile(model, fullgraph=True)
    # The key of the caches on disk knows a tensor subclass by its name, not by its code.
    with torch.no_grad(), torch._inductor.config.patch(force_disable_caches=True):
        assert torch.equal(compiled(activations), model(activations))
    assert inductor.generated_kernel_count == 1


@pytest.mark.parametrize(("ebits", "mbits"), [(1, 5), (2, 4), (4, 2), (5, 2), (7, 0)])
def test_codes_survive_compilation(ebits: int, mbits: int) -> None:
    codes = torch.arange(2 ** (1 + ebits + mbits), dtype=torch.uint8).unsqueeze(0)
    packed = floatx.pack(codes, 1 + ebits + mbits)
    torch.compiler.reset()  # another shape would be compiled for all shapes
    compiled = torch.compile(floatx.decode, fullgraph=True)(packed, ebits, mbits)
    assert torch.equal(compiled.view(torch.int32), floatx.decode(packed, ebits, mbits).view(torch.int32))
