"""What is asked for: two versions of torch, two of torchao, and the pins that all four stacks share; pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from perf_tests.harness.attribution.stacks import AXES
from perf_tests.harness.records.attributions import Corner
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import UsageError

OF_TORCHS_INDEX = ("torch", "triton", "pytorch-triton")
"""What comes from the package index that is given for torch; all other packages come from the usual one."""
OF_TORCH = re.compile(r"torch|triton|pytorch-triton|cuda-.+|nvidia-(?!ml-py$).+")
"""What the wheel of torch pins: no other file pins it."""


class TorchWanted(Struct):
    """A version of torch."""

    version: str
    """With a local tag, such as `2.13.0+cu130`, exactly that build."""
    index: str = ""
    """Address of the package index for it and its Triton; empty for the usual one."""

    def __str__(self) -> str:
        return f"torch {self.version}"


class TorchaoWanted(Struct):
    """A release of torchao, or a commit."""

    release: str = ""
    commit: str = ""
    """All 40 digits; empty for a release."""

    def __str__(self) -> str:
        return f"torchao {self.release or self.commit[:12]}"


class SquareWanted(Struct):
    """The four stacks: each axis as it last was good, and as it is new."""

    good_torch: TorchWanted
    new_torch: TorchWanted
    good_torchao: TorchaoWanted
    new_torchao: TorchaoWanted

    def torch(self, corner: Corner) -> TorchWanted:
        """The torch of a stack."""
        return self.new_torch if corner.has_new_torch else self.good_torch

    def torchao(self, corner: Corner) -> TorchaoWanted:
        """The torchao of a stack."""
        return self.new_torchao if corner.has_new_torchao else self.good_torchao


def check(square: SquareWanted) -> None:
    """Raise UsageError where one of the packages is the same in all stacks: then there is nothing to tell."""
    torch, torchao = square.new_torch, square.new_torchao
    same = torch if torch.version == square.good_torch.version else torchao
    if same is torch or torchao == square.good_torchao:
        raise UsageError(f"{same} is in all four stacks: whatever changed comes from the other package")


def version(text: str) -> str:
    """`text`. Raises UsageError where it is no version."""
    try:
        Version(text)
    except InvalidVersion:
        raise UsageError(f"{text!r} is no version, such as 2.13.0 or 2.16.0.dev20261127+cu130") from None
    return text


def is_commit(text: str) -> bool:
    """Whether `text` names a commit of the clone, as `@main` does, and no release."""
    return text.startswith("@")


def name_in(requirement: str) -> str:
    """The package that a line of requirements is about; empty for a comment, an option or nothing."""
    found = _parsed(requirement)
    return "" if found is None else canonicalize_name(found.name)


def pinned(pins: str, package: str) -> str:
    """The version of a package in requirements. Raises UsageError where it is not pinned."""
    for line in pins.splitlines():
        found = _parsed(line)
        if found is not None and canonicalize_name(found.name) == package:
            exact = [each.version for each in found.specifier if each.operator == "=="]
            if exact:
                return exact[0]
    raise UsageError(f"the pins have no {package}==VERSION: name the good version with --good-{package}")


def shared_pins(pins: str) -> tuple[str, ...]:
    """The lines that hold in all four stacks: without torch, torchao, and what the wheel of torch pins."""
    named = ((name_in(line), line) for line in pins.splitlines())
    return tuple(line for name, line in named if name and name != "torchao" and not OF_TORCH.fullmatch(name))


def shared_requirements(dependencies: Iterable[str]) -> tuple[str, ...]:
    """What the project asks for, without the axes: their bounds are not asked about what is under test."""
    return tuple(each for each in dependencies if name_in(each) not in AXES)


def torch_project(wanted: TorchWanted, beside: Mapping[str, str]) -> str:
    """A pyproject.toml that asks for torch, and for the packages `beside` it, from its own index alone.

    The index is named for these packages only: others that it has, too, come from the usual one. They are
    dependencies, because uv follows the index of nothing that an override or a constraint names.
    """
    asked = {"torch": wanted.version, **beside}
    quoted = ", ".join(_quoted(f"{name}=={each}") for name, each in asked.items())
    lines = ["[project]", 'name = "stack"', 'version = "0"', f"dependencies = [{quoted}]"]
    if wanted.index:
        lines += ["[[tool.uv.index]]", 'name = "torch"', f"url = {_quoted(wanted.index)}", "explicit = true"]
        lines += ["[tool.uv.sources]", *(f'{_quoted(name)} = {{ index = "torch" }}' for name in asked)]
    return "\n".join((*lines, ""))


def digest(*parts: object) -> str:
    """What tells one question from another: 12 hexadecimal digits."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:12]


def _parsed(line: str) -> Requirement | None:
    try:
        return Requirement(line.partition("#")[0].strip())
    except InvalidRequirement:
        return None


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
