"""Settings that decide numbers are recorded, and pinned no matter what was set before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from perf_tests.worker.measure import environment

SETTINGS = ("attention", "cudnn_allow_tf32", "float32_matmul_precision")


def settings() -> dict[str, str]:
    found = environment.describe(None).settings
    return {name: found[name] for name in SETTINGS}


@pytest.fixture
def otherwise(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings as an image may leave them: TF32 in one place and not in another, one attention kernel off."""
    monkeypatch.setenv("DIFFUSERS_ATTN_BACKEND", "native")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.enable_flash_sdp(False)
    yield
    environment.pin()


@pytest.mark.usefixtures("otherwise")
def test_settings_that_decide_numbers_are_recorded() -> None:
    assert settings() == {
        "attention": "native: mem_efficient, math, cudnn",
        "cudnn_allow_tf32": "False",
        "float32_matmul_precision": "high",
    }


@pytest.mark.usefixtures("otherwise")
def test_settings_that_decide_numbers_are_pinned() -> None:
    environment.pin()
    assert settings() == {
        "attention": "native: flash, mem_efficient, math, cudnn",
        "cudnn_allow_tf32": "True",
        "float32_matmul_precision": "highest",
    }


@pytest.mark.usefixtures("otherwise")
def test_the_order_of_attention_kernels_is_unknown_where_torch_does_not_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch._C, "_get_sdp_priority_order")
    assert settings()["attention"] == "native: order unknown"


def test_diffusers_takes_the_backend_that_the_variable_names() -> None:
    from diffusers.models.attention_dispatch import AttentionBackendName
    from diffusers.utils.constants import DIFFUSERS_ATTN_BACKEND

    # Its default today: without the variable, workers would follow any later default.
    assert AttentionBackendName(DIFFUSERS_ATTN_BACKEND) is AttentionBackendName.NATIVE
