"""What loading packages takes, and whether each computes what its block does, with that block's weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.packages import LoadedPackages
from perf_tests.tables.cases import Build, Case
from perf_tests.tables.metrics.spec import IDENTICAL_DB
from perf_tests.worker.inspection.probe import sqnr_db
from perf_tests.worker.measure import memory
from perf_tests.worker.measure.generate import run_step
from perf_tests.worker.model.compiled import packages


def loaded(pipeline: Any, build: Build, folder: str | None, device: torch.device) -> LoadedPackages | None:
    """Have the blocks of `pipeline` called in the packages of `folder`; None where the recipe loads none.

    Raises WorkerError(load) where the folder is missing, or was not to be loaded, or does not fit.
    """
    recipe = build.recipe
    if recipe.is_packaged is (folder is None):
        asked = "loads its blocks from packages" if recipe.is_packaged else "loads no packages"
        message = f"the recipe {recipe.id} {asked}, and the folder to load them from is {folder}"
        raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.COMPILE, message=message))
    if folder is None:
        return None
    started_s = time.perf_counter()
    for file in sorted(Path(folder).iterdir())[:1]:
        packages.opened(file)  # what the first one imports and registers is no copy of a weight
    first_s = time.perf_counter() - started_s
    before_mib = memory.held_mib(device)
    found = packages.load(pipeline, build, Path(folder))
    added_mib = memory.held_mib(device) - before_mib
    constants = (each for group in found.values() for block in group for each in block.constants.values())
    return LoadedPackages(
        seconds=time.perf_counter() - started_s,
        first_s=first_s,
        blocks={name: len(group) for name, group in found.items()},
        constant_mib=memory.stored_bytes(constants) / memory.MIB,
        added_mib=added_mib,
    )


def values(pipeline: Any, case: Case) -> dict[str, float]:
    """Metric name -> the lowest SQNR of any package's answers, against the Python code of its block, for the
    inputs of one step; empty without packages, and where a block was not called."""
    if not case.build.recipe.is_packaged:
        return {}
    every = [block for group in packages.blocks(pipeline, case.build).values() for block in group]
    before = [block.forward for block in every]
    lowest_db: dict[int, float] = {}
    for index, block in enumerate(every):
        _set_forward(block, _compared(lowest_db, index, block))
    try:
        run_step(pipeline, case)
    finally:
        for block, packaged in zip(every, before, strict=True):
            _set_forward(block, packaged)
    return {"package_sqnr_db": min(lowest_db.values())} if len(lowest_db) == len(every) else {}


def _compared(lowest_db: dict[int, float], index: int, block: nn.Module) -> Callable[..., Any]:
    """The `forward` of `block`, which notes how far its answers are from those of its Python code."""
    packaged, python = block.forward, type(block).forward

    def answer(*arguments: Any, **keywords: Any) -> Any:
        answers = packaged(*arguments, **keywords)
        right = python(block, *arguments, **keywords)
        pairs = zip(pytree.tree_leaves(right), pytree.tree_leaves(answers), strict=True)
        # Not a number is as wrong as can be.
        lowest_db[index] = min(max(-IDENTICAL_DB, sqnr_db(one, other)) for one, other in pairs)
        return answers

    return answer


def _set_forward(block: nn.Module, forward: Callable[..., Any]) -> None:
    object.__setattr__(block, "forward", forward)  # not `setattr`, which modules override
