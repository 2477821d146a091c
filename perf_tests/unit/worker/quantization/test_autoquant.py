"""A search chooses a scheme for each module by times, which the tests give, and errors."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from perf_tests.harness.verdicts.build_checks import contradictions
from perf_tests.protocol.errors import WorkerError
from perf_tests.tables.cases import Build, Case
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.schemes.rows import AUTOQUANT, FP8WO, INT8DQ, INT8WO
from perf_tests.unit.builders import make_build
from perf_tests.unit.worker.quantization.given_times import EAGER, INT8DQ_FIRST, SEARCH, Times
from perf_tests.worker.model import build
from perf_tests.worker.quantization import apply, autoquant, layer_errors
from perf_tests.worker.quantization.autoquant import fastest
from perf_tests.worker.quantization.layer_errors import CandidateErrors, ExampleInput, LayerWork, ObservedStep
from perf_tests.worker.quantization.layer_timing import Measure
from perf_tests.worker.quantization.plans import CandidateResult

Make = Callable[..., Any]
CPU = torch.device("cpu")
REGIONAL = dataclasses.replace(EAGER, compile=CompileMode.REGIONAL)

# Of the miniature's 62 modules 15 see one row per image, which int8dq's kernels do not take.
ALL, ONE_ROW = 62, 15


def never(call: Callable[[], object]) -> float:
    raise AssertionError("there is a plan, yet a search times layers")


# What is chosen


def timed(**milliseconds: float | None) -> dict[str, CandidateResult]:
    return {name: CandidateResult(median_ms=each) for name, each in milliseconds.items()}


FINE = {"int8dq": 38.0, "fp8wo": 31.0}


@pytest.mark.parametrize(
    ("candidates", "ratios_db", "choice"),
    [
        pytest.param(timed(bf16=1.0, int8dq=0.6, fp8wo=0.7), FINE, "int8dq", id="fastest"),
        pytest.param(
            timed(bf16=1.0, int8dq=0.6, fp8wo=0.7), FINE | {"int8dq": 24.9}, "fp8wo", id="below-the-floor"
        ),
        pytest.param(
            timed(bf16=1.0, int8dq=0.6, fp8wo=0.7), FINE | {"int8dq": 25.0}, "int8dq", id="on-the-floor"
        ),
        pytest.param(timed(bf16=1.0, int8dq=0.96, fp8wo=2.0), FINE, "bf16", id="within-the-margin"),
        pytest.param(timed(bf16=1.0, int8dq=0.95, fp8wo=2.0), FINE, "int8dq", id="at-the-margin"),
        pytest.param(timed(bf16=1.0, int8dq=None, fp8wo=0.7), FINE, "fp8wo", id="given-up"),
        pytest.param(timed(bf16=1.0, int8dq=0.6, fp8wo=0.7), {"fp8wo": 31.0}, "fp8wo", id="does-not-fit"),
        pytest.param(timed(bf16=1.0, int8dq=0.6, fp8wo=0.7), {}, "bf16", id="none-fits"),
    ],
)
def test_a_layer_gets_the_fastest_that_keeps_the_floor_and_beats_bf16_by_the_margin(
    candidates: dict[str, CandidateResult], ratios_db: Mapping[str, float], choice: str
) -> None:
    assert fastest(SEARCH, candidates, ratios_db) == choice


def seen_with(ratios_db: Mapping[str, float]) -> ObservedStep:
    """Two blocks with one layer each, of one shape, and the errors of int8wo on them."""
    work = LayerWork(rows=64, in_features=32, out_features=32, bias=True)
    layers = {
        name: CandidateErrors(
            work=work, sqnr_db={INT8WO.id: ratio_db}, refused={INT8DQ.id: "no", FP8WO.id: "no"}
        )
        for name, ratio_db in ratios_db.items()
    }
    return ObservedStep(
        layers=layers, examples={work: ExampleInput(name=next(iter(layers)), rows=torch.randn(64, 32))}
    )


@pytest.mark.parametrize(
    ("recipe", "choices"),
    [
        pytest.param(EAGER, ["int8wo", "bf16", "bf16"], id="eager-each-for-itself"),
        pytest.param(REGIONAL, ["bf16", "bf16", "bf16"], id="regional-as-the-worst-of-all-blocks"),
    ],
)
def test_blocks_that_are_compiled_as_one_stay_alike(
    make_case: Make, monkeypatch: pytest.MonkeyPatch, recipe: Recipe, choices: list[str]
) -> None:
    names = ("transformer.blocks.0.to_q", "transformer.blocks.1.to_q", "transformer.never_called")
    seen = seen_with({names[0]: 40.0, names[1]: 20.0})
    monkeypatch.setattr(layer_errors, "observe", lambda *_: seen)
    monkeypatch.setattr(torch, "compile", lambda layer, **_: layer)
    targets = {name: nn.Linear(32, 32, dtype=torch.float32) for name in names}
    _, layers = autoquant.find(None, make_case(recipe), targets, Times(bf16=1.0, int8wo=0.5), CPU)
    assert [layers[name].chosen for name in names] == choices
    assert layers["transformer.never_called"].shape is None


def test_a_candidate_that_no_layer_can_take_is_not_timed(
    make_case: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_errors, "observe", lambda *_: seen_with({"transformer.to_q": 24.0}))
    times = Times(bf16=1.0)
    targets = {"transformer.to_q": nn.Linear(32, 32, dtype=torch.float32)}
    (shape,), _ = autoquant.find(None, make_case(EAGER), targets, times, CPU)
    assert set(times.calls) == {"bf16"}
    assert shape.candidates["int8wo"] == CandidateResult(
        sqnr_db=24.0, reason="no layer of this shape keeps 25 dB"
    )
    assert shape.candidates["int8dq"].reason == "no"


# The whole search


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Case]:
    """The file of a plan for flux-mini in which int8dq is the fastest where it fits; read only."""
    case = Case(build=Build(pipeline=FLUX_MINI, recipe=EAGER), workload=FLUX_MINI.workload)
    file = tmp_path_factory.mktemp("searched") / "plans" / "flux-mini.json"
    pipeline = build.build(case.build, CPU)
    targets = dict(apply.quantizable(pipeline, case.build))
    autoquant.choose(pipeline, case, file, Times(**INT8DQ_FIRST), targets)
    return file, case


def applied(
    make_pipeline: Make, searched: tuple[Path, Case], *, drop: int = 0, measure: Measure = never
) -> Any:
    """The report of a fresh pipeline that follows the plan."""
    file, case = searched
    pipeline = make_pipeline(EAGER)
    choose = partial(autoquant.choose, pipeline, case, file, measure)
    return apply.apply(pipeline, case.build, drop=drop, choose=choose)


def test_a_plan_can_be_read(searched: tuple[Path, Case]) -> None:
    file, _ = searched
    plan = json.loads(file.read_text())
    assert file.read_text().count("\n") > 500
    assert [each.name for each in file.parent.iterdir()] == ["flux-mini.json"]
    (shape,) = [each for each in plan["shapes"] if (each["rows"], each["in_features"]) == (64, 1024)]
    assert shape["chosen"] == {"int8dq": 4}
    assert shape["candidates"]["bf16"] == {"median_ms": 1.0}
    assert shape["candidates"]["int8dq"]["median_ms"] == 0.5
    assert 36.0 < shape["candidates"]["int8dq"]["sqnr_db"] < 39.0
    single = plan["layers"]["transformer.time_text_embed.timestep_embedder.linear_1"]
    assert single["chosen"] == "fp8wo"
    assert "int8dq" not in single["sqnr_db"]
    assert plan["stack"]["packages"]["torchao"] != "absent"
    assert plan["search_s"] > 0


def test_another_process_follows_the_plan_and_does_not_search(
    make_pipeline: Make, searched: tuple[Path, Case]
) -> None:
    report = applied(make_pipeline, searched)
    assert report.plan is not None
    assert report.plan.file == "flux-mini.json"
    assert report.plan.search_s is None
    assert report.plan.chosen == {"fp8wo": ONE_ROW, "int8dq": ALL - ONE_ROW}


def test_each_module_becomes_what_the_plan_chose_for_it(
    make_pipeline: Make, searched: tuple[Path, Case]
) -> None:
    report = applied(make_pipeline, searched)
    looks = {
        (group.chosen, group.subclass, group.dynamic_activation): group.count
        for group in report.groups
        if group.component == "transformer"
    }
    assert looks == {("fp8wo", "Float8Tensor", False): ONE_ROW, ("int8dq", "Int8Tensor", True): ALL - ONE_ROW}
    recipe = searched[1].build.recipe
    assert apply.count_as_asked(report, recipe) == ALL
    assert apply.count_off_plan(report, recipe) == 0
    assert contradictions(searched[1], make_build(quantization=report)) == ()


def test_layers_that_nothing_beats_stay_as_they_are_and_are_counted(
    make_case: Make, make_pipeline: Make, tmp_path: Path
) -> None:
    case = make_case(EAGER)
    slow = Times(bf16=1.0, int8dq=0.97, fp8wo=0.7, int8wo=0.8)
    # fp8 weights have 31 dB here.
    strict = dataclasses.replace(AUTOQUANT, search=dataclasses.replace(SEARCH, min_sqnr_db=45.2))
    case = case.with_recipe(Recipe(scheme=strict))
    report = applied(make_pipeline, (tmp_path / "plan.json", case), measure=slow)
    assert report.plan is not None
    # int8wo keeps 45.25 dB in x_embedder alone.
    assert report.plan.chosen == {"bf16": ALL - 1, "int8wo": 1}
    assert (report.expected_modules, report.unquantized) == (1, ())
    assert contradictions(case, make_build(quantization=report)) == ()
    assert report.weights is not None
    assert report.weights.quantized_bytes == 16 * 256 + 256 * 5


def test_the_fire_drill_drops_what_the_plan_quantizes_and_is_found(
    make_pipeline: Make, searched: tuple[Path, Case]
) -> None:
    report = applied(make_pipeline, searched, drop=2)
    assert apply.count_off_plan(report, searched[1].build.recipe) == 2
    (found,) = contradictions(searched[1], make_build(quantization=report))
    assert found.startswith(f"{ALL - 2} of {ALL} Linear modules are quantized as autoquant says")


def test_a_fire_drill_with_nothing_to_drop_is_refused(
    make_pipeline: Make, searched: tuple[Path, Case]
) -> None:
    with pytest.raises(
        WorkerError, match=r"drop the quantization of 63 modules, and the plan .* quantizes 62"
    ):
        applied(make_pipeline, searched, drop=63)
