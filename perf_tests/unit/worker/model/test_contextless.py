"""What is asked about the device while the stack is imported makes no CUDA context."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch._dynamo.device_interface import CudaInterface, caching_worker_device_properties

from perf_tests.unit.conftest import ROOT
from perf_tests.worker.model.contextless import answered


class ContextMadeError(Exception):
    """torch was about to initialise CUDA."""


@pytest.fixture(autouse=True)
def _no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ContextMadeError

    monkeypatch.setattr(torch.cuda, "_lazy_init", refuse)


def test_the_compute_capability_is_known_without_a_context() -> None:
    with answered((9, 0)):
        assert torch.cuda.get_device_capability() == (9, 0)
        assert torch.cuda.get_device_capability(3) == (9, 0)
        assert CudaInterface.get_compute_capability() == 90
        assert torch.cuda.current_device() == 0


def test_whether_there_is_a_gpu_is_asked_of_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CUDA runtime would open the driver, and the process would count as one that computes."""

    def refuse() -> int:
        raise ContextMadeError

    monkeypatch.delenv("PYTORCH_NVML_BASED_CUDA_CHECK", raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", refuse, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with answered((9, 0)):
        assert torch.cuda.is_available()
    assert "PYTORCH_NVML_BASED_CUDA_CHECK" not in os.environ
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "0")
    with answered((9, 0)):
        assert torch.cuda.is_available()
    assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == "0"


def test_anything_else_is_asked_of_torch() -> None:
    with answered((9, 0)):
        properties = torch.cuda.get_device_properties(0)
        with pytest.raises(ContextMadeError):
            _ = properties.total_memory


def test_torch_has_its_own_functions_again() -> None:
    before = (torch.cuda.get_device_properties, torch.cuda.current_device)
    with answered((9, 0)):
        kept = (torch.cuda.get_device_properties, torch.cuda.current_device)
    assert (torch.cuda.get_device_properties, torch.cuda.current_device) == before
    for function in kept:  # a module may have imported them by name
        with pytest.raises(ContextMadeError):
            function()


def test_an_unknown_capability_is_left_to_torch() -> None:
    with answered(None), pytest.raises(ContextMadeError):
        torch.cuda.get_device_capability()


def test_inductor_finds_nothing_of_it_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with answered((9, 0)):
        assert CudaInterface.Worker.get_device_properties().major == 9
        assert caching_worker_device_properties
    assert caching_worker_device_properties == {}


PRETENDED = """
import sys, traceback, torch
attempts = []
def initialise():
    attempts.append(traceback.extract_stack()[-4].filename)
    raise RuntimeError("no context yet")
torch.cuda._lazy_init = initialise
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
torch.version.cuda = "13.0"
from perf_tests.protocol.messages import Fork
from perf_tests.worker import fork_server
fork_server.prepare(Fork(variables={}, imports=("transformers:CLIPTextModel",), capability=CAPABILITY))
print(len(attempts), "transformers.models.clip.modeling_clip" in sys.modules)
"""


@pytest.mark.parametrize(("capability", "said"), [((9, 0), "0 True"), (None, "1 False")])
def test_the_stack_is_imported_without_a_context_where_a_gpu_is(
    capability: tuple[int, int] | None, said: str
) -> None:
    """With (None) what it is protected from: torchao asks for the capability when transformers imports it."""
    code = PRETENDED.replace("CAPABILITY", repr(capability))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip().splitlines()[-1:] == [said], done.stderr
