"""int8 with 2:4 sparse weights is pruned, rounded, packed and multiplied like a float64 reference."""

from __future__ import annotations

import io
import itertools
from typing import Any

import pytest
import torch
from torch import library, nn

from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import INT8DQ_SPARSE24
from perf_tests.worker.measure import memory
from perf_tests.worker.model.lazy import construct
from perf_tests.worker.quantization import apply, sparse24, support


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def sparse_linear(*, bias: bool = True, dtype: torch.dtype = torch.bfloat16) -> nn.Linear:
    """192 -> 64 channels, quantized as the scheme's row says."""
    from torchao.quantization import quantize_

    linear = nn.Linear(192, 64, bias=bias, dtype=dtype)
    linear.weight = nn.Parameter(gaussian(64, 192, dtype=dtype))
    if bias:
        linear.bias = nn.Parameter(gaussian(64, seed=1, dtype=dtype))
    assert INT8DQ_SPARSE24.config is not None
    quantize_(linear, construct(INT8DQ_SPARSE24.config))
    return linear


def sqnr_db(reference: torch.Tensor, measured: torch.Tensor) -> float:
    noise = measured.double() - reference.double()
    return float(10 * torch.log10(reference.double().square().sum() / noise.square().sum()).detach())


def unpacked(packed: torch.Tensor) -> torch.Tensor:
    """The matrix that is packed: its product with the identity."""
    rows, columns = packed.shape[0], packed.shape[1] * 8 // 5
    identity = torch.eye(columns, dtype=torch.int8)
    dense: torch.Tensor = sparse24.product(packed, identity, torch.ones(rows, 1))
    return dense.to(torch.int8)


@pytest.mark.parametrize(
    ("four", "expected"),
    [
        pytest.param([1, -4, 2, 3], [0, -4, 0, 3], id="magnitudes"),
        pytest.param([5, 5, 5, 5], [0, 0, 5, 5], id="all-equal"),
        pytest.param([-2, 2, 1, -2], [0, 2, 0, -2], id="three-equal"),
        pytest.param([0, 0, 0, 7], [0, 0, 0, 7], id="one-non-zero"),
        pytest.param([0, 0, 0, 0], [0, 0, 0, 0], id="none"),
    ],
)
def test_the_two_largest_of_four_stay_and_of_equals_the_later(four: list[int], expected: list[int]) -> None:
    assert sparse24.prune(torch.tensor([four], dtype=torch.bfloat16)).tolist() == [expected]


def test_pruning_leaves_its_argument_alone_and_keeps_just_two_of_four() -> None:
    weight = gaussian(32, 64)
    pruned = sparse24.prune(weight)
    assert torch.equal(weight, gaussian(32, 64))
    assert torch.equal((pruned.view(-1, 4) != 0).sum(1), torch.full((512,), 2))


def test_pruned_gaussian_weights_keep_the_energy_that_theory_says() -> None:
    weight = gaussian(1024, 1024, dtype=torch.float32)
    kept = float(sparse24.prune(weight).square().sum() / weight.square().sum())
    # 1 - (0.1207 + 0.4091) / 4, the second moments of the two smallest of four half-normal variables.
    assert kept == pytest.approx(0.8676, abs=0.002)


def test_patterns_of_two_of_four_are_packed_and_found_again() -> None:
    # -128 to 127, at every pair of places: fewer than two non-zeros where a value is 0.
    values = torch.arange(-128, 128, dtype=torch.int8)
    patterns = list(itertools.combinations(range(4), 2))
    groups = torch.zeros(len(patterns), 256, 4, dtype=torch.int8)
    for row, (first, second) in enumerate(patterns):
        groups[row, :, first], groups[row, :, second] = values, values.flip(0)
    matrix = groups.view(len(patterns), 1024)
    assert torch.equal(unpacked(sparse24.compress(matrix)), matrix)


@pytest.mark.parametrize("place", range(4))
def test_groups_with_one_non_zero_or_none_are_packed_and_found_again(place: int) -> None:
    matrix = torch.zeros(2, 32, dtype=torch.int8)
    matrix[0, place::4] = -7
    assert torch.equal(unpacked(sparse24.compress(matrix)), matrix)


def test_a_row_is_packed_as_its_values_and_then_their_positions() -> None:
    matrix = torch.tensor([[0, 1, 0, 2, 3, 0, 4, 0]], dtype=torch.int8)
    # Positions 1, 3, 0, 2 from the lowest bits on: 1 + 3 * 4 + 0 * 16 + 2 * 64 = 141, as a signed byte.
    assert sparse24.compress(matrix).tolist() == [[1, 2, 3, 4, 141 - 256]]


def test_a_matrix_that_is_not_sparse_is_not_packed() -> None:
    with pytest.raises(ValueError, match="more than two non-zeros in four neighbours: prune it"):
        sparse24.compress(torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0]], dtype=torch.int8))


def quantized_row(*values: float) -> tuple[list[int], float]:
    """Codes and scale of a row that begins with `values` and has zeros after them."""
    weight = torch.zeros(32, 32)
    weight[0, : len(values)] = torch.tensor(values)
    tensor = sparse24.Int8SemiSparseTensor.from_hp(weight)
    return unpacked(tensor.qdata)[0, : len(values)].tolist(), float(tensor.scale[0])


def test_values_are_rounded_to_nearest_even() -> None:
    # 127 makes the scale 1.
    codes, scale = quantized_row(127, 0.5, 0, 0, 1.5, 2.5, 0, 0, -0.5, -1.5, 0, 0, -2.5, 3.4, 0, 0)
    assert scale == 1.0
    assert codes == [127, 0, 0, 0, 2, 2, 0, 0, 0, -2, 0, 0, -2, 3, 0, 0]


@pytest.mark.parametrize("largest", [3.0, -3.0, 1e-3, 65504.0])
def test_the_largest_of_a_row_has_the_last_code_of_its_sign(largest: float) -> None:
    codes, scale = quantized_row(largest)
    assert codes == [127 if largest > 0 else -127]
    assert scale == pytest.approx(abs(largest) / 127, rel=1e-6)


def test_a_row_of_zeros_stays_one() -> None:
    weight = gaussian(32, 64)
    weight[3] = 0
    dense = sparse24.Int8SemiSparseTensor.from_hp(weight).dequantize()
    assert torch.equal(dense[3], torch.zeros(64, dtype=torch.bfloat16))
    assert bool((dense[4] != 0).any())


def test_scales_end_at_the_eps_of_float32_so_that_smaller_rows_lose_bits() -> None:
    eps = 2.0**-23
    assert quantized_row(100 * eps) == ([100], eps)
    # The smallest subnormal of bfloat16 has no reciprocal in float32.
    assert quantized_row(2.0**-133) == ([0], eps)


def test_a_quantized_weight_is_within_half_a_step_of_the_pruned_one() -> None:
    weight = gaussian(64, 192)
    tensor = sparse24.Int8SemiSparseTensor.from_hp(weight)
    error = (tensor.dequantize(torch.float64) - sparse24.prune(weight).double()).abs()
    assert bool((error <= 0.5001 * tensor.scale.double()).all())


def test_a_quantized_weight_looks_as_its_row_says() -> None:
    weight = sparse_linear().weight
    assert apply.look(weight, INT8DQ_SPARSE24.weight) == (
        "Int8SemiSparseTensor",
        "int8",
        "per-row",
        "int8 per-row",
    )
    assert (weight.shape, weight.dtype, weight.requires_grad) == ((64, 192), torch.bfloat16, False)


def test_a_weight_takes_five_bits_an_element_and_a_scale_a_row() -> None:
    assert memory.stored_bytes([sparse_linear().weight]) == 64 * 192 * 5 // 8 + 64 * 4


def test_stored_bytes_of_a_pipeline_are_the_implied_ones(make_pipeline: Any, make_case: Any) -> None:
    pipeline, build = make_pipeline(), make_case(Recipe(scheme=INT8DQ_SPARSE24)).build
    report = apply.apply(pipeline, build)
    assert report.unquantized == ()
    # x_embedder has 16 in_features, proj_out 16 out_features.
    assert report.excluded == {
        "in_features not a multiple of 32": 1,
        "out_features not a multiple of 32": 1,
    }
    assert report.expected_modules == 60
    assert report.weights is not None
    assert memory.weight_bytes(pipeline, ("transformer",)) == apply.implied_bytes(report.weights)


@pytest.mark.parametrize("shape", [(192,), (1, 192), (17, 192), (2, 9, 192), (2, 3, 16, 192)], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_a_linear_module_is_its_dequantized_operands_in_float64(shape: tuple[int, ...], bias: bool) -> None:
    linear = sparse_linear(bias=bias)
    inputs = gaussian(*shape, seed=2)
    rows = inputs.double().reshape(-1, 192)
    step = rows.abs().amax(1, keepdim=True) / 127
    weight: Any = linear.weight
    expected = (rows / step).round() * step @ weight.dequantize(torch.float64).t()
    if bias:
        expected = expected + linear.bias.double()
    got = linear(inputs)
    assert got.shape == (*shape[:-1], 64)
    assert got.dtype is torch.bfloat16
    # The product, the scaled product and the sum are rounded to bfloat16: about 53 dB each.
    assert sqnr_db(expected.reshape(got.shape), got) > 46.0


def test_inputs_of_zeros_give_the_bias() -> None:
    linear = sparse_linear()
    assert torch.equal(linear(torch.zeros(3, 192, dtype=torch.bfloat16)), linear.bias.expand(3, 64))


def test_inputs_in_another_layout_give_the_same() -> None:
    linear = sparse_linear()
    inputs = gaussian(17, 192, seed=2)
    assert torch.equal(linear(inputs.t().contiguous().t()), linear(inputs))


def test_the_output_is_laid_out_as_that_of_an_ordinary_layer() -> None:
    # Strides of the transposed product would keep every fused kernel of attention from its values.
    output = sparse_linear()(torch.randn(2, 5, 192, dtype=torch.bfloat16))
    assert output.shape == (2, 5, 64)
    assert output.stride() == (320, 64, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_other_dtypes_are_given_back(dtype: torch.dtype) -> None:
    linear = sparse_linear(dtype=dtype)
    inputs = gaussian(17, 192, seed=2, dtype=dtype)
    assert linear(inputs).dtype is dtype
    weight: Any = linear.weight
    assert weight.dequantize().dtype is dtype


def test_a_compiled_layer_without_graph_breaks_gives_the_same() -> None:
    linear = sparse_linear(bias=False)
    inputs = gaussian(2, 9, 192, seed=2)
    # The key of the caches on disk knows a tensor subclass by its name, not by its code.
    with torch.no_grad(), torch._inductor.config.patch(force_disable_caches=True):
        compiled = torch.compile(linear, fullgraph=True)(inputs)
        assert torch.equal(compiled, linear(inputs))


def test_operators_satisfy_their_registrations() -> None:
    packed = sparse24.compress(sparse24.prune(gaussian(32, 64).mul(30).to(torch.int8)))
    tokens = torch.ones(16, 64, dtype=torch.int8)
    done = library.opcheck(sparse24.product, (packed, tokens, torch.ones(32, 1)))
    assert set(done.values()) == {"SUCCESS"}
    matrix = torch.zeros(32, 64, dtype=torch.int8)
    assert set(library.opcheck(sparse24.compress, (matrix,)).values()) == {"SUCCESS"}


@pytest.mark.usefixtures("enums_of_python_3_11_2")
def test_a_saved_state_dict_comes_back_bit_by_bit() -> None:
    linear, file = sparse_linear(), io.BytesIO()
    torch.save(linear.state_dict(), file)
    file.seek(0)
    other = nn.Linear(192, 64, dtype=torch.bfloat16)
    other.load_state_dict(torch.load(file, weights_only=True), assign=True)
    weight: Any = linear.weight
    loaded: Any = other.weight
    assert type(loaded) is sparse24.Int8SemiSparseTensor
    assert torch.equal(loaded.qdata, weight.qdata)
    assert torch.equal(loaded.scale, weight.scale)
    inputs = gaussian(5, 192, seed=2)
    assert torch.equal(other(inputs), linear(inputs))


@pytest.mark.parametrize(("rows", "columns"), [(48, 64), (64, 48)])
def test_a_shape_that_the_kernels_do_not_take_is_refused(rows: int, columns: int) -> None:
    with pytest.raises(
        ValueError, match=f"multiples of 32 rows and columns, this one has {rows} x {columns}"
    ):
        sparse24.Int8SemiSparseTensor.from_hp(gaussian(rows, columns))


def test_a_weight_packed_for_another_device_is_not_multiplied() -> None:
    linear = sparse_linear()
    weight: Any = linear.weight
    weight.packed_for = "cuda"
    with pytest.raises(NotImplementedError, match="packed for cuda cannot be multiplied on cpu: quantize"):
        linear(gaussian(1, 192))


def test_a_torch_without_cusparselt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cusparselt, "is_available", lambda: False)
    with pytest.raises(NotImplementedError, match="need cuSPARSELt on CUDA, and this torch is built without"):
        sparse24._compress_cuda(torch.zeros(32, 32, dtype=torch.int8))


@pytest.mark.parametrize("flat", [True, False])
def test_cusparselt_packs_into_rows_from_any_shape_that_it_returns(
    monkeypatch: pytest.MonkeyPatch, flat: bool
) -> None:
    shape = (32 * 40,) if flat else (32, 40)
    monkeypatch.setattr(torch.backends.cusparselt, "is_available", lambda: True)
    monkeypatch.setattr(torch, "_cslt_compress", lambda matrix: matrix.new_zeros(shape))
    assert sparse24._compress_cuda(torch.zeros(32, 64, dtype=torch.int8)).shape == (32, 40)


def test_cusparselt_is_given_tokens_by_columns_and_a_scale_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], torch.dtype]] = []

    def product(
        packed: torch.Tensor, dense: torch.Tensor, *, alpha: torch.Tensor, out_dtype: torch.dtype
    ) -> torch.Tensor:
        calls.append((tuple(dense.shape), dense.stride(), tuple(alpha.shape), out_dtype))
        return dense.new_zeros(packed.shape[0], dense.shape[1], dtype=out_dtype)

    monkeypatch.setattr(torch, "_cslt_sparse_mm", product)
    by_columns = torch.zeros(64, 16, dtype=torch.int8).t()
    sparse24._product_cuda(torch.zeros(32, 40, dtype=torch.int8), by_columns, torch.ones(32, 1))
    assert calls == [((64, 16), (1, 64), (32,), torch.bfloat16)]


def test_a_cpu_supports_the_scheme() -> None:
    support.check(INT8DQ_SPARSE24, torch.device("cpu"))
