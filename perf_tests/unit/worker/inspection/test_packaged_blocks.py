"""Blocks from packages: each has the weights of its block, and one that has not is found.

Nothing is compiled here: a code that is called in place of a package runs the Python code of a block with the
constants that it is given, as a package does. The row `pixart-mini-b1-int8wo-aoti` packages for real.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.expected import package_sqnr_db
from perf_tests.tables.metrics.spec import IDENTICAL_DB
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.schemes.rows import INT8WO
from perf_tests.worker.inspection.compiled import packaged_blocks
from perf_tests.worker.measure import memory
from perf_tests.worker.model.compiled import packages
from perf_tests.worker.quantization import apply

MakeCase = Callable[..., Case]
RECIPE = Recipe(scheme=INT8WO, compile=CompileMode.AOTI)
DEVICE = torch.device("cpu")


class Code:
    """Stands for a loaded package: it computes what `block` does, with the constants that it is given."""

    def __init__(self, block: torch.nn.Module) -> None:
        self.block = packages.unwrapped(block)
        self.constants: dict[str, torch.Tensor] = {}

    def get_constant_fqns(self) -> list[str]:
        return [*dict(self.block.named_parameters()), *dict(self.block.named_buffers())]

    def load_constants(self, constants: dict[str, torch.Tensor], **_: bool) -> None:
        self.constants = constants

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return torch.func.functional_call(self.block, self.constants, arguments, keywords)


@pytest.fixture
def case(make_case: MakeCase) -> Case:
    return make_case(RECIPE)


@pytest.fixture
def pipeline(make_pipeline: Callable[..., Any], case: Case) -> Any:
    made = make_pipeline(RECIPE)
    apply.apply(made, case.build, device=DEVICE)
    return made


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch, pipeline: Any, case: Case) -> list[Code]:
    """What was opened in the place of packages, in the order of blocks; the first once more, before all."""
    grouped, found = packages.blocks(pipeline, case.build), []

    def opened(file: Path) -> Code:
        found.append(Code(grouped[file.stem][0]))
        return found[-1]

    monkeypatch.setattr(packages, "opened", opened)
    return found


@pytest.fixture
def folder(tmp_path: Path, pipeline: Any, case: Case, codes: list[Code]) -> str:
    for name in packages.blocks(pipeline, case.build):
        (tmp_path / f"{name}.pt2").touch()
    return str(tmp_path)


def every_block(pipeline: Any, case: Case) -> list[torch.nn.Module]:
    return [block for group in packages.blocks(pipeline, case.build).values() for block in group]


def test_each_package_computes_what_its_block_does(pipeline: Any, case: Case, folder: str) -> None:
    found = packaged_blocks.loaded(pipeline, case.build, folder, DEVICE)

    assert found is not None
    assert found.blocks == {"FluxTransformerBlock": 2, "FluxSingleTransformerBlock": 4}
    assert packaged_blocks.values(pipeline, case) == {"package_sqnr_db": IDENTICAL_DB}


def test_what_is_done_once_is_told_apart_from_what_each_block_takes(
    monkeypatch: pytest.MonkeyPatch, pipeline: Any, case: Case, folder: str
) -> None:
    now_s = iter([10.0, 38.0, 39.5])  # at first, once a package is open, once all blocks have theirs
    monkeypatch.setattr(time, "perf_counter", lambda: next(now_s))
    found = packaged_blocks.loaded(pipeline, case.build, folder, DEVICE)

    assert found is not None
    assert (found.first_s, found.seconds) == (28.0, 29.5)


def test_packages_are_given_the_tensors_of_their_block_and_no_copies(
    pipeline: Any, case: Case, folder: str, codes: list[Code]
) -> None:
    packaged_blocks.loaded(pipeline, case.build, folder, DEVICE)

    for block, code in zip(every_block(pipeline, case), codes[1:], strict=True):
        own = {plain.data_ptr() for each in block.parameters() for plain in memory.plain_tensors(each)}
        assert {each.data_ptr() for each in code.constants.values()} == own


@pytest.mark.parametrize("name", ["FluxTransformerBlock", "FluxSingleTransformerBlock"])
def test_one_blocks_weights_for_all_of_its_class_are_found(
    pipeline: Any, case: Case, folder: str, codes: list[Code], name: str
) -> None:
    packaged_blocks.loaded(pipeline, case.build, folder, DEVICE)
    first, *others = (each for each in codes[1:] if type(each.block).__name__ == name)
    for other in others:
        other.constants = first.constants

    found = packaged_blocks.values(pipeline, case)["package_sqnr_db"]
    expected = package_sqnr_db(case)
    assert expected is not None
    assert found < expected.low - 10


def test_packages_are_called_with_contiguous_inputs(
    pipeline: Any, case: Case, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged_blocks.loaded(pipeline, case.build, folder, DEVICE)
    forward: Any = every_block(pipeline, case)[0].forward
    monkeypatch.setattr(forward, "_code", lambda *arguments, **keywords: (arguments, keywords))
    strided = torch.empty(4, 6).t()

    (one,), keywords = forward(strided, temb=strided, image_rotary_emb=(strided, None))

    rotary, nothing = keywords["image_rotary_emb"]
    assert [each.stride() for each in (one, keywords["temb"], rotary)] == [(4, 1)] * 3
    assert nothing is None


def test_block_that_is_never_called_proves_nothing(
    pipeline: Any, case: Case, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged_blocks.loaded(pipeline, case.build, folder, DEVICE)
    monkeypatch.setattr(packaged_blocks, "run_step", lambda *_: None)

    assert packaged_blocks.values(pipeline, case) == {}


def test_packages_of_other_blocks_are_refused(
    make_pipeline: Callable[..., Any], case: Case, folder: str, pipeline: Any
) -> None:
    # Its layers are not quantized, and have no tensors of that name.
    plain = make_pipeline(RECIPE)
    with pytest.raises(
        WorkerError, match=r"FluxTransformerBlock\.pt2 was made of other blocks: it wants .*original0 and 4"
    ):
        packaged_blocks.loaded(plain, case.build, folder, DEVICE)


def test_package_that_nobody_made_is_refused(pipeline: Any, case: Case, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"there is no package .*/FluxTransformerBlock\.pt2"):
        packaged_blocks.loaded(pipeline, case.build, str(tmp_path), DEVICE)


@pytest.mark.parametrize(
    ("mode", "folder", "why"),
    [
        (CompileMode.AOTI, None, "int8wo-aoti loads its blocks from packages, and the folder .* is None"),
        (CompileMode.REGIONAL, "there", "int8wo-regional loads no packages, and the folder .* is there"),
    ],
)
def test_folder_must_be_named_where_packages_are_to_be_loaded_and_only_there(
    make_case: MakeCase, mode: CompileMode, folder: str | None, why: str
) -> None:
    with pytest.raises(WorkerError, match=why):
        packaged_blocks.loaded(None, make_case(Recipe(scheme=INT8WO, compile=mode)).build, folder, DEVICE)


def test_case_without_packages_compares_nothing(make_case: MakeCase) -> None:
    case = make_case(Recipe(scheme=INT8WO))
    assert packaged_blocks.loaded(None, case.build, None, DEVICE) is None
    assert packaged_blocks.values(None, case) == {}
