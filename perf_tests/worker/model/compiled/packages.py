"""Repeated blocks ahead of time: one process exports, compiles and packages them, another calls them.

A package holds the code of one class of blocks, for one shape, torch and device, and no weights: each block
gives it its own. It also holds one layout of its inputs, and reads any other as if it were that one, so that
inputs are made contiguous, there and here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from torch import nn
from torch.utils import _pytree as pytree

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.packages import Packages
from perf_tests.tables.cases import Build

OPTIONS: Mapping[str, Any] = {
    # Otherwise every package carries the weights of the block that it was made of.
    "aot_inductor.package_constants_in_so": False,
    "always_keep_tensor_constants": True,
    "joint_graph_constant_folding": False,
}
OPTIONS_OF_DEVICE: Mapping[str, Mapping[str, Any]] = {
    # No time of a CPU is judged: its packages are compiled in half the time.
    "cpu": {**OPTIONS, "aot_inductor.compile_wrapper_opt_level": "O0"},
    "cuda": OPTIONS,
}

T = TypeVar("T")
Call = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]
"""A block, and the arguments and keywords that it was called with."""


def blocks(pipeline: Any, build: Build) -> dict[str, list[nn.Module]]:
    """Class -> the repeated blocks of that class, in the order in which they run."""
    found: dict[str, list[nn.Module]] = {}
    for name in build.pipeline.blocks:
        for block in getattr(pipeline.transformer, name):
            found.setdefault(type(block).__name__, []).append(block)
    return found


# To make them


def make(pipeline: Any, build: Build, run_step: Callable[[], object], folder: Path) -> Packages:
    """Write a package for each class of blocks into `folder`, which exists.

    `run_step` runs at least one denoise step of `pipeline`. Blocks that are compiled run eager from then on.
    """
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.utils import fresh_cache

    export_s, compile_s, files = 0.0, 0.0, {}
    for name, (block, arguments, keywords) in _first_calls(pipeline, build, run_step).items():
        file, started_s = folder / _file_name(name), time.perf_counter()
        with torch.no_grad():
            exported = torch.export.export(block, _contiguous(arguments), _contiguous(keywords))
        exported_s = time.perf_counter()
        options = OPTIONS_OF_DEVICE[next(block.parameters()).device.type]
        with torch.no_grad(), fresh_cache():  # what this process has compiled must not spare it anything
            aoti_compile_and_package(exported, package_path=str(file), inductor_configs=dict(options))
        export_s += exported_s - started_s
        compile_s += time.perf_counter() - exported_s
        files[file.name] = file.stat().st_size
    return Packages(export_s=export_s, compile_s=compile_s, files=files)


def _first_calls(pipeline: Any, build: Build, run_step: Callable[[], object]) -> dict[str, Call]:
    """Class -> the first call of its first block."""
    calls: dict[str, Call] = {}

    def keep(block: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        calls.setdefault(type(block).__name__, (block, arguments, keywords))

    grouped = blocks(pipeline, build)
    for block in (block for group in grouped.values() for block in group):
        block._compiled_call_impl = None  # exporting calls the block: what is to be captured is not compiled
    hooks = [group[0].register_forward_pre_hook(keep, with_kwargs=True) for group in grouped.values()]
    try:
        run_step()
    finally:
        for hook in hooks:
            hook.remove()
    return calls


# To load them


class PackagedBlock:
    """The `forward` of a block: the code of a package, with the weights of the block."""

    def __init__(self, file: Path, block: nn.Module) -> None:
        """Raises WorkerError(load) where there is no such file, or the package wants what the block lacks."""
        known = constants_of(block)
        self._code = opened(file)
        wanted = self._code.get_constant_fqns()
        if missing := [name for name in wanted if name not in known]:
            _refuse(
                f"{file.name} was made of other blocks: it wants {missing[0]} and {len(missing) - 1} more "
                f"tensors that a {type(block).__name__} of this pipeline lacks; package them again"
            )
        # It only stores where they are: they are kept alive here.
        self.constants = {name: known[name] for name in wanted}
        self._code.load_constants(self.constants, check_full_update=True, user_managed=True)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """What the block answers."""
        return self._code(*_contiguous(arguments), **_contiguous(keywords))


def load(pipeline: Any, build: Build, folder: Path) -> dict[str, list[PackagedBlock]]:
    """Have every repeated block of `pipeline` called in its package; class -> packages.

    Raises WorkerError(load) where one is missing, or was made of other blocks.
    """
    loaded: dict[str, list[PackagedBlock]] = {}
    for name, group in blocks(pipeline, build).items():
        loaded[name] = [PackagedBlock(folder / _file_name(name), block) for block in group]
        for block, packaged in zip(group, loaded[name], strict=True):
            object.__setattr__(block, "forward", packaged)  # not `setattr`, which modules override
    return loaded


def opened(file: Path) -> Any:
    """The code of a package, which cannot be called before it has its constants."""
    from torch._inductor import aoti_load_package

    if not file.exists():
        _refuse(f"there is no package {file}: another worker is asked to make it first")
    return aoti_load_package(str(file))


def constants_of(block: nn.Module) -> dict[str, torch.Tensor]:
    """Name -> tensor, as packages call the weights and buffers of `block`: a tensor subclass is its inner
    tensors, which are not copied."""
    plain = unwrapped(block)
    return {name: each.detach() for name, each in (*plain.named_parameters(), *plain.named_buffers())}


def unwrapped(block: nn.Module) -> nn.Module:
    """A block with the tensors of `block`, which has the inner tensors of a subclass as parameters."""
    from torch._functorch._aot_autograd.subclass_parametrization import unwrap_tensor_subclass_parameters

    return unwrap_tensor_subclass_parameters(_shallow_copy(block))  # it changes the module that it is given


def _shallow_copy(module: nn.Module) -> nn.Module:
    copied = object.__new__(type(module))
    vars(copied).update(vars(module))
    copied._parameters, copied._buffers = module._parameters.copy(), module._buffers.copy()
    copied._modules = {name: each and _shallow_copy(each) for name, each in module._modules.items()}
    return copied


def _file_name(block: str) -> str:
    return f"{block}.pt2"


def _contiguous(arguments: T) -> T:
    made: T = pytree.tree_map_only(torch.Tensor, torch.Tensor.contiguous, arguments)
    return made


def _refuse(message: str) -> NoReturn:
    raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.COMPILE, message=message))
