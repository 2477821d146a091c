"""What is asked for: which pins all stacks share, and where torch comes from."""

from __future__ import annotations

import re
import tomllib

import pytest

from perf_tests.harness.environments import wanted
from perf_tests.harness.environments.wanted import SquareWanted, TorchaoWanted, TorchWanted
from perf_tests.harness.records.attributions import Corner
from perf_tests.protocol.errors import UsageError
from perf_tests.unit.conftest import ROOT

PINS = """\
# Constraints
numpy==2.4.6
nvidia-ml-py==13.615.71
nvidia-cublas==13.1.1.3
cuda-bindings==13.5.0
torch==2.13.0 # with CUDA
torchao==0.18.0
triton==3.7.0
typing_extensions==4.16.0
"""
SQUARE = SquareWanted(
    good_torch=TorchWanted(version="2.13.0"),
    new_torch=TorchWanted(version="2.14.1"),
    good_torchao=TorchaoWanted(release="0.17.0"),
    new_torchao=TorchaoWanted(commit="36027d82" + 32 * "0"),
)


def test_pins_that_all_stacks_share_name_nothing_of_the_axes() -> None:
    assert wanted.shared_pins(PINS) == (
        "numpy==2.4.6",
        "nvidia-ml-py==13.615.71",
        "typing_extensions==4.16.0",
    )


def test_what_the_wheel_of_torch_pins_is_what_the_nightly_holds() -> None:
    held = re.search(r"grep -E '\^\((torch.*)\)=='", (ROOT / ".ci" / "stack").read_text())
    assert held is not None
    for name in ("torch", "triton", "pytorch-triton", "nvidia-cublas", "cuda-bindings"):
        assert re.fullmatch(held[1], name)
        assert wanted.OF_TORCH.fullmatch(name)


def test_what_is_under_test_is_not_bounded_by_the_project() -> None:
    assert wanted.shared_requirements(("torch>=2.11", "torchao>=0.18", "numpy>=2")) == ("numpy>=2",)


def test_the_good_version_is_the_pinned_one() -> None:
    assert wanted.pinned(PINS, "torch") == "2.13.0"
    with pytest.raises(UsageError, match=r"^the pins have no torch==VERSION: name the good version"):
        wanted.pinned("numpy==2.4.6\n", "torch")


def test_each_stack_takes_the_axes_as_its_corner_says() -> None:
    assert SQUARE.torch(Corner.NEW_TORCH).version == "2.14.1"
    assert SQUARE.torch(Corner.NEW_TORCHAO).version == "2.13.0"
    assert str(SQUARE.torchao(Corner.NEW_TORCH)) == "torchao 0.17.0"
    assert str(SQUARE.torchao(Corner.NEW)) == "torchao 36027d820000"


def test_an_index_is_named_for_torch_and_its_triton_alone() -> None:
    torch = TorchWanted(version="2.16.0.dev20261127+cu130", index="https://index.example/nightly")

    project = tomllib.loads(wanted.torch_project(torch, {"triton": "3.9.0+git1"}))

    assert project["project"]["dependencies"] == ["torch==2.16.0.dev20261127+cu130", "triton==3.9.0+git1"]
    assert project["tool"]["uv"] == {
        "index": [{"name": "torch", "url": "https://index.example/nightly", "explicit": True}],
        "sources": {"torch": {"index": "torch"}, "triton": {"index": "torch"}},
    }


def test_without_an_index_torch_comes_from_the_usual_one() -> None:
    project = tomllib.loads(wanted.torch_project(TorchWanted(version="2.13.0"), {}))

    assert project == {"project": {"name": "stack", "version": "0", "dependencies": ["torch==2.13.0"]}}


@pytest.mark.parametrize("text", ["main", "", "2.13.0; os_name", "--index-url", "2.13.0 --pre"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no version, such as 2\.13\.0"):
        wanted.version(text)


@pytest.mark.parametrize(
    ("good", "new", "package"),
    [
        ("2.14.1", "0.17.0", "torch 2.14.1 is"),
        ("2.13.0", "0.18.0", "torchao 0.18.0 is"),
    ],
)
def test_a_package_that_is_the_same_in_all_stacks_leaves_nothing_to_tell(
    good: str, new: str, package: str
) -> None:
    square = SquareWanted(
        good_torch=TorchWanted(version=good, index="https://index.example"),
        new_torch=TorchWanted(version="2.14.1"),
        good_torchao=TorchaoWanted(release="0.18.0"),
        new_torchao=TorchaoWanted(release=new),
    )
    with pytest.raises(UsageError, match=f"^{package} in all four stacks: "):
        wanted.check(square)
    wanted.check(SQUARE)
