"""Inductor's settings are what the recipe says, or there is an error that names them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch._inductor import config

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import FailureKind, Phase
from perf_tests.tables.recipes import INT8_GEMM
from perf_tests.worker.model import inductor_settings
from perf_tests.worker.model.lazy import construct


@pytest.fixture(autouse=True)
def _settings_of_before() -> Iterator[None]:
    with config.patch({}):
        before = config.save_config()
    yield
    config.load_config(before)


def test_the_settings_of_a_row_are_set_and_read_back() -> None:
    construct(INT8_GEMM.call)
    assert config.max_autotune_gemm
    assert inductor_settings.read(INT8_GEMM.inductor) == {"max_autotune_gemm": "True"}


def test_a_nested_setting_has_a_dotted_name() -> None:
    inductor_settings.apply(**{"triton.cudagraphs": True})
    assert config.triton.cudagraphs
    assert inductor_settings.read(["triton.cudagraphs"]) == {"triton.cudagraphs": "True"}


def test_a_setting_that_this_torch_does_not_have_is_an_error_that_names_it() -> None:
    with pytest.raises(WorkerError, match=r"torch .* has no inductor setting int8_faster, which") as caught:
        inductor_settings.apply(int8_faster=True)
    failure = caught.value.failure
    assert (failure.kind, failure.phase) == (FailureKind.LOAD, Phase.COMPILE)
    assert "sets to True: take it out of the row" in failure.message
    assert inductor_settings.read(["int8_faster"]) == {}
