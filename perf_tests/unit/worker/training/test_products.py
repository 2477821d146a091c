from __future__ import annotations

from perf_tests.worker.inspection.kernels import Event
from perf_tests.worker.training.products import Pass, RecordedStep

OPERATOR: Event = {"cat": "cpu_op", "name": "aten::_scaled_mm", "args": {"External id": 7}}
ELSE: Event = {"cat": "cpu_op", "name": "aten::mm", "args": {"External id": 8}}
KERNEL: Event = {
    "cat": "kernel",
    "name": "nvjet_qqtst_128x256",
    "args": {"External id": 7},
    "ts": 1000.0,
    "dur": 500.0,
}
OTHER_KERNEL: Event = {
    **KERNEL,
    "name": "nvjet_tst_128x256",
    "args": {"External id": 8},
    "ts": 3000.0,
    "dur": 250.0,
}
METADATA: Event = {"ph": "M", "name": "process_name"}


def test_products_on_a_gpu_are_named_by_the_kernels_that_their_operators_launched() -> None:
    found = Pass.of([METADATA, OPERATOR, ELSE, KERNEL, OTHER_KERNEL])
    assert found == Pass(products=1, carried_out_by={"nvjet_qqtst_128x256": 1}, kernels=2, busy_ms=0.75)


def test_products_on_a_cpu_are_named_by_their_operator() -> None:
    assert Pass.of([OPERATOR, OPERATOR, ELSE]) == Pass(
        products=2, carried_out_by={"aten::_scaled_mm": 2}, kernels=0, busy_ms=0.0
    )


def test_a_pass_in_bf16_has_no_products() -> None:
    assert Pass.of([ELSE, OTHER_KERNEL]) == Pass(products=0, carried_out_by={}, kernels=1, busy_ms=0.25)


def test_a_kernel_without_an_operator_is_not_of_the_operators_without_an_id() -> None:
    without = [{**OPERATOR, "args": {}}, {**KERNEL, "args": {}}]
    assert Pass.of(without).carried_out_by == {"aten::_scaled_mm": 1}


def test_a_step_on_a_gpu_says_how_long_both_passes_kept_it_busy() -> None:
    forward, backward = Pass.of([OPERATOR, KERNEL, OTHER_KERNEL]), Pass.of([ELSE, OTHER_KERNEL])
    assert RecordedStep(forward=forward, backward=backward).values == {
        "float8_gemms_forward": 1.0,
        "float8_gemms_backward": 0.0,
        "kernels_per_train_step": 3.0,
        "train_busy_ms": 1.0,
    }


def test_a_step_on_a_cpu_says_nothing_of_kernels() -> None:
    of_cpu = Pass.of([OPERATOR])
    assert RecordedStep(forward=of_cpu, backward=of_cpu).values == {
        "float8_gemms_forward": 1.0,
        "float8_gemms_backward": 1.0,
    }
