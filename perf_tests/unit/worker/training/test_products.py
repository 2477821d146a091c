from __future__ import annotations

from perf_tests.worker.training.products import Pass

OPERATOR = {"cat": "cpu_op", "name": "aten::_scaled_mm", "args": {"External id": 7}}
ELSE = {"cat": "cpu_op", "name": "aten::mm", "args": {"External id": 8}}
KERNEL = {"cat": "kernel", "name": "nvjet_qqtst_128x256", "args": {"External id": 7}}
OTHER_KERNEL = {"cat": "kernel", "name": "nvjet_tst_128x256", "args": {"External id": 8}}
METADATA = {"ph": "M", "name": "process_name"}


def test_products_on_a_gpu_are_named_by_the_kernels_that_their_operators_launched() -> None:
    found = Pass.of([METADATA, OPERATOR, ELSE, KERNEL, OTHER_KERNEL])
    assert found == Pass(products=1, carried_out_by={"nvjet_qqtst_128x256": 1}, kernels=2)


def test_products_on_a_cpu_are_named_by_their_operator() -> None:
    assert Pass.of([OPERATOR, OPERATOR, ELSE]) == Pass(
        products=2, carried_out_by={"aten::_scaled_mm": 2}, kernels=0
    )


def test_a_pass_in_bf16_has_no_products() -> None:
    assert Pass.of([ELSE, OTHER_KERNEL]) == Pass(products=0, carried_out_by={}, kernels=1)


def test_a_kernel_without_an_operator_is_not_of_the_operators_without_an_id() -> None:
    without = [{**OPERATOR, "args": {}}, {**KERNEL, "args": {}}]
    assert Pass.of(without).carried_out_by == {"aten::_scaled_mm": 1}
