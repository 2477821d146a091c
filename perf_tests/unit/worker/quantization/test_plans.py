"""A plan is followed where it belongs, and refused in one sentence where it does not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import FailureKind, Phase
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import AUTOQUANT
from perf_tests.worker.quantization import plans
from perf_tests.worker.quantization.plans import (
    AutoquantPlan,
    CandidateResult,
    PlanLayer,
    PlanModel,
    PlanShape,
    PlanStack,
)

MODEL = PlanModel(
    pipeline="flux-mini",
    weights="synthetic",
    recipe="autoquant-eager",
    case="flux-mini-b1-autoquant-eager",
    case_digest="d" * 64,
    modules_sha256="a" * 64,
)
STACK = PlanStack(
    packages={"torch": "2.13.0", "triton": "3.6.0", "torchao": "0.18.0"},
    device="cuda",
    device_name="NVIDIA H100 80GB HBM3",
)
PLAN = AutoquantPlan(
    format_version=1,
    model=MODEL,
    stack=STACK,
    search_s=41.5,
    min_sqnr_db=25.0,
    margin_pct=5.0,
    shapes=(
        PlanShape(
            rows=4608,
            in_features=3072,
            out_features=12288,
            bias=True,
            candidates={
                "bf16": CandidateResult(median_ms=0.48),
                "int8dq": CandidateResult(median_ms=0.3, sqnr_db=37.5),
                "int8wo": CandidateResult(sqnr_db=41.0, reason="given up"),
            },
            chosen={"int8dq": 1},
        ),
    ),
    layers={
        "transformer.ff": PlanLayer(shape=0, sqnr_db={"int8dq": 37.5, "int8wo": 41.0}, chosen="int8dq"),
        "transformer.embed": PlanLayer(shape=None, sqnr_db={}, chosen="bf16"),
    },
)
MODULES, CANDIDATES = tuple(PLAN.layers), ("bf16", "int8dq", "int8wo")


def load(file: Path) -> AutoquantPlan | None:
    return plans.load(file, MODEL, STACK, MODULES, CANDIDATES)


def refusal(file: Path) -> str:
    with pytest.raises(WorkerError) as caught:
        load(file)
    assert (caught.value.failure.kind, caught.value.failure.phase) == (FailureKind.LOAD, Phase.SEARCH)
    return str(caught.value)


def test_a_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "folder of the user" / "plan.json"
    plans.save(file, PLAN)
    assert load(file) == PLAN
    assert [each.name for each in file.parent.iterdir()] == ["plan.json"]


def test_a_plan_is_written_for_people(tmp_path: Path) -> None:
    plans.save(tmp_path / "plan.json", PLAN)
    lines = (tmp_path / "plan.json").read_text().splitlines()
    assert '  "device_name": "NVIDIA H100 80GB HBM3"' in lines
    assert '     "median_ms": 0.48' in lines


def test_a_plan_without_a_file_is_none(tmp_path: Path) -> None:
    assert load(tmp_path / "plan.json") is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param(
            {"model": msgspec.structs.replace(MODEL, modules_sha256="b" * 64)},
            f"belongs to another model than this worker's: modules_sha256 {'b' * 64}, wanted {'a' * 64}; ",
            id="model",
        ),
        pytest.param(
            {"stack": msgspec.structs.replace(STACK, packages=STACK.packages | {"torch": "2.11.0"})},
            "belongs to another stack or device than this worker's: packages torch 2.11.0, wanted 2.13.0; ",
            id="torch",
        ),
        pytest.param(
            {"stack": msgspec.structs.replace(STACK, device_name="NVIDIA H200")},
            "belongs to another stack or device than this worker's: device_name NVIDIA H200, wanted NVIDIA",
            id="gpu",
        ),
        pytest.param(
            {"stack": msgspec.structs.replace(STACK, packages={})},
            "packages torch None, wanted 2.13.0; packages triton None, wanted 3.6.0; ",
            id="no-packages",
        ),
        pytest.param(
            {"format_version": 2}, "has format version 2, not 1; delete it, and the next run", id="format"
        ),
        pytest.param(
            {"layers": {"transformer.ff": PLAN.layers["transformer.ff"]}},
            "is broken: it chooses for 1 modules where 2 are to be quantized, and only one of the two ",
            id="module-missing",
        ),
        pytest.param(
            {"layers": PLAN.layers | {"transformer.ff": PlanLayer(shape=0, sqnr_db={}, chosen="int3")}},
            "is broken: it chooses 'int3' for transformer.ff, which is not a candidate; delete it",
            id="unknown-candidate",
        ),
    ],
)
def test_a_plan_of_something_else_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    file = tmp_path / "plan.json"
    plans.save(file, msgspec.structs.replace(PLAN, **changes))
    message = refusal(file)
    assert message.startswith(f"the plan {file} {says}") or says in message
    assert message.endswith("or choose another folder with --perf-autoquant-plans")


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(_half, id="half-written"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"\x80\x04 pickle", id="binary"),
        pytest.param(lambda content: b'{"format_version": 1}', id="no-plan"),
        pytest.param(lambda content: content.replace(b'"search_s": 41.5', b'"search_s": "long"'), id="type"),
    ],
)
def test_a_broken_plan_is_refused_and_named(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    file = tmp_path / "plan.json"
    plans.save(file, PLAN)
    file.write_bytes(spoil(file.read_bytes()))
    size = len(file.read_bytes())
    assert refusal(file).startswith(
        f"cannot read the plan {file}: its {size} bytes are truncated or not a plan"
    )


def test_a_plan_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"cannot read the plan {tmp_path}: Is a directory; make it readable")


def test_a_plan_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(WorkerError, match=r"cannot write the plan .*: Is a directory; make room"):
        plans.save(tmp_path / "plan.json", PLAN)
    assert [each.name for each in tmp_path.iterdir()] == ["plan.json"]


def test_a_report_counts_the_choices_and_names_the_file_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    plans.save(file, PLAN)
    report = plans.report(file, PLAN, 41.5)
    assert (report.file, report.search_s) == ("plan.json", 41.5)
    assert report.chosen == {"bf16": 1, "int8dq": 1}
    assert report.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_model_is_known_by_the_shapes_and_dtypes_of_its_parameters(
    make_case: Callable[..., Any], make_pipeline: Callable[..., Any]
) -> None:
    recipe = Recipe(scheme=AUTOQUANT)
    case, pipeline = make_case(recipe), make_pipeline(recipe)
    before = plans.model_of(pipeline, case)
    assert before == plans.model_of(make_pipeline(recipe), case)
    pipeline.transformer.proj_out.to(torch.float32)
    after = plans.model_of(pipeline, case)
    assert after.modules_sha256 != before.modules_sha256
    assert msgspec.structs.replace(after, modules_sha256=before.modules_sha256) == before
