"""--perf-stacks, seen from outside: four stacks of fake workers, of which some are slower than others."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from perf_tests.harness.ab.pairs import PairRunner
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.planning.budget import Budget
from perf_tests.harness.plugin import ab_session
from perf_tests.harness.processes import worker_process
from perf_tests.harness.profiles.gathering import Gatherer
from perf_tests.harness.records.attributions import Attribution, Blame, CellReport, Corner
from perf_tests.harness.runs.record import Process, Side, Status
from perf_tests.harness.telling import findings
from perf_tests.unit.conftest import COMPILED, FP8DQROW, INT8WO, ROOT, Plug, Suite, rebaseline

TWIN = "flux1-dev-b1-bf16-regional"
STEP = "denoise_step_ms"
LATENCY = (str(ROOT / "perf_tests" / "test_latency.py"),)
PIXART = "pixart-sigma-b1-bf16-regional"
QUANTIZATION = (str(ROOT / "perf_tests" / "test_quantization.py"),)
COUNTED = (*QUANTIZATION, str(ROOT / "perf_tests" / "test_compile.py"))
GOOD, NEW_TORCH, NEW_TORCHAO, NEW = (
    "versions:2.13.0+0.18.0",
    "versions:2.14.0+0.18.0",
    "versions:2.13.0+0.19.0",
    "versions:2.14.0+0.19.0",
)
SHOWN = ("stable", "candidate", "new_torch", "new_torchao")
Plant = Callable[..., str]
"""Makes the file of `--perf-stacks`, with further switches of the fake worker for some corners."""


@pytest.fixture
def plant(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Stacks whose workers are forked: their interpreters are never executed."""
    start, switches = worker_process.start_process, dict[str, str]()

    def start_process(command: tuple[str, ...], **settings: Any) -> Any:
        python, *others = command
        if python in switches:
            settings["environment"] = {**settings["environment"], "PERF_FAKE": switches[python]}
            command = (sys.executable, *others)
        return start(command, **settings)

    def make(**corners: str) -> str:
        versions = {"good": GOOD, "new_torch": NEW_TORCH, "new_torchao": NEW_TORCHAO, "new": NEW}
        file: dict[str, object] = {}
        for corner, version in versions.items():
            script = suite.folder / corner
            script.write_text("#!/bin/false\n")
            script.chmod(0o755)
            further = corners.get(corner, "")
            version = "" if further.startswith("versions:") else version
            switches[str(script)] = ",".join(filter(None, (version, further)))
            is_missing = further.startswith("missing:")
            file[corner] = {"problem": further.removeprefix("missing:")} if is_missing else str(script)
        path = suite.folder / "stacks.json"
        path.write_text(json.dumps(file))
        return f"--perf-stacks={path}"

    monkeypatch.setattr(worker_process, "start_process", start_process)
    monkeypatch.setattr(ab_session, "MIN_PAIRS", 2)
    return make


def attributions(suite: Suite) -> dict[str, Attribution]:
    """By metric."""
    return {each.metric: each for each in suite.record().attributions}


def cells(attribution: Attribution) -> dict[Corner, CellReport]:
    return {each.corner: each for each in attribution.cells}


def text(result: pytest.RunResult) -> str:
    """What it printed, with line breaks turned into spaces."""
    return " ".join(str(result.stdout).split())


# Times


@pytest.fixture
def slow(suite: Suite, plug_gpu: Plug, plant: Plant) -> Callable[..., pytest.RunResult]:
    """Run the latency of one H100 case whose stacks have these further switches."""
    plug_gpu()

    def run(*arguments: str, **corners: str) -> pytest.RunResult:
        command = ("-m", "h100", f"--perf-case={FP8DQROW}", "--perf-max-processes=1", "--perf-table=red")
        return suite.run(*command, plant(**corners), *arguments, tests=LATENCY)

    return run


Slow = Callable[..., pytest.RunResult]


def test_a_slowdown_of_the_new_torch_is_blamed_on_torch(suite: Suite, slow: Slow) -> None:
    result = slow(new="slower:10", new_torch="slower:10")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = attributions(suite)[STEP]
    assert (found.blame, found.case, found.members) == (Blame.TORCH, FP8DQROW, (FP8DQROW,))
    assert (found.scheme, found.compile, found.platform) == ("fp8dqrow", "regional", "h100")
    assert found.whole is not None
    assert found.whole.value == pytest.approx(10.0)
    assert found.torch is not None
    assert found.torch.value == pytest.approx(10.0)
    assert found.torch.low < 10.0 < found.torch.high
    assert found.torchao is not None
    assert found.torchao.value == pytest.approx(0.0)
    assert found.torch_alone is None
    assert cells(found)[Corner.NEW_TORCH].packages == {"torch": "2.14.0", "torchao": "0.18.0"}
    assert {each.status for each in found.cells} == {"measured"}
    (diagonal,) = suite.record().diagonals
    assert (diagonal.candidate, diagonal.stable) == (Corner.NEW_TORCH, Corner.NEW_TORCHAO)
    assert len(diagonal.comparison.pairs) == 2
    assert "whose torch 2.14.0: +10.0 % (95 % interval" in text(result)
    assert "of +10.0 %; torchao 0.19.0: +0.0 %" in text(result)
    assert f"whose is {STEP} of fp8dqrow regional ({FP8DQROW}): torch 2.14.0" in text(result)
    begun = {stack: f"s] {FP8DQROW} process 2 in {stack} load " for stack in SHOWN}
    assert [stack for stack, line in begun.items() if line not in text(result)] == []


def test_a_slowdown_of_the_new_torchao_is_blamed_on_torchao(suite: Suite, slow: Slow) -> None:
    slow(new="slower:10", new_torchao="slower:10")
    found = attributions(suite)[STEP]
    assert found.blame is Blame.TORCHAO
    assert found.sentence.startswith("torchao 0.19.0: +10.0 % (95 % interval")


def test_what_needs_both_is_only_together(suite: Suite, slow: Slow) -> None:
    slow(new="slower:10")
    found = attributions(suite)[STEP]
    assert found.blame is Blame.TOGETHER
    assert found.torch_alone is not None
    assert found.torch_alone.value == pytest.approx(0.0)
    assert found.sentence.startswith(
        "torch 2.14.0 only together with torchao 0.19.0: +10.0 %, of which torch 2.14.0 alone +0.0 %"
    )
    assert [each.id for each in suite.record().diagonals] == [
        f"{FP8DQROW} new_torch new_torchao",
        f"{FP8DQROW} new_torch good",
    ]


def test_each_its_part_and_either_alone_are_told_apart(suite: Suite, slow: Slow) -> None:
    slow(new="slower:10", new_torch="slower:10", new_torchao="slower:10")
    assert attributions(suite)[STEP].blame is Blame.EITHER
    slow(new="slower:10", new_torch="slower:5", new_torchao="slower:5")
    assert attributions(suite)[STEP].blame is Blame.EACH


def test_a_slowdown_that_the_good_stack_has_too_is_not_reproduced(suite: Suite, slow: Slow) -> None:
    result = slow(new="slower:10", good="slower:10")
    assert suite.statuses(FP8DQROW)[STEP] is Status.REGRESSED
    found = attributions(suite)[STEP]
    assert (found.blame, suite.record().diagonals) == (Blame.NOT_REPRODUCED, ())
    assert "not reproduced: with torch 2.13.0 and torchao 0.18.0 it is the same on this device" in text(
        result
    )


def test_a_stack_that_does_not_import_is_reported_and_the_other_one_measured(
    suite: Suite, slow: Slow
) -> None:
    result = slow(new="slower:10", new_torch="slower:6", new_torchao="no-torch")
    found = attributions(suite)[STEP]
    assert found.blame is Blame.PARTLY
    assert cells(found)[Corner.NEW_TORCHAO].status == "ERROR(load)"
    assert "No module named 'torch'" in cells(found)[Corner.NEW_TORCHAO].reason
    assert found.torch_alone is not None
    assert found.torch_alone.value == pytest.approx(6.0)
    assert found.torch is None
    assert "torch 2.14.0 alone: +6.0 % (95 % interval" in text(result)
    assert "of +10.0 %, the rest needs torchao 0.19.0;" in text(result)


def test_a_stack_that_cannot_be_installed_is_not_started(suite: Suite, slow: Slow) -> None:
    slow(new="slower:10", new_torch="missing:no wheel fits", new_torchao="slower:4")
    found = attributions(suite)[STEP]
    assert found.blame is Blame.PARTLY
    assert (cells(found)[Corner.NEW_TORCH].status, cells(found)[Corner.NEW_TORCH].reason) == (
        "not installed",
        "no wheel fits",
    )
    assert found.sentence.startswith("torchao 0.19.0 alone: +4.0 %")
    assert "torch 2.14.0 with torchao 0.18.0 cannot be measured: not installed: no wheel fits" in (
        found.sentence
    )


def test_stacks_that_differ_in_more_name_no_package(suite: Suite, slow: Slow) -> None:
    slow(new="slower:10", new_torchao="versions:2.12.0+0.19.0,slower:10")
    found = attributions(suite)[STEP]
    assert found.blame is Blame.UNKNOWN
    assert found.sentence == (
        "not attributed: torch is 2.13.0 in good and 2.12.0 in new_torchao: these stacks differ in more than "
        "torch and torchao"
    )


def test_a_twin_that_is_slower_for_certain_excludes_torchao(suite: Suite, slow: Slow) -> None:
    suite.baselines = suite.folder / "empty"
    suite.baselines.mkdir()
    slower = "slower:10"
    slow(f"--perf-case={TWIN}", new=slower, new_torch=slower)
    by_case = {each.case: each for each in suite.record().attributions if each.metric == STEP}
    assert by_case[FP8DQROW].blame is Blame.TORCH
    assert (by_case[FP8DQROW].mixed, by_case[FP8DQROW].torch) == (None, None)
    twin = by_case[FP8DQROW].twin
    assert twin is not None
    assert twin.value == pytest.approx(10.0)
    assert by_case[FP8DQROW].sentence == (
        "torch 2.14.0: +10.0 %: its bf16 twin, which has no torchao, has moved by +10.0 %, too"
    )
    assert [each.comparison.id for each in suite.record().diagonals] == [TWIN]


def test_a_twin_that_did_not_move_excludes_nothing(suite: Suite, slow: Slow) -> None:
    suite.baselines = suite.folder / "empty"
    suite.baselines.mkdir()
    both = f"slower:10@{FP8DQROW}"
    slow(f"--perf-case={TWIN}", new=both, new_torch=both)
    found = attributions(suite)[STEP]
    assert found.blame is Blame.TORCH
    assert found.mixed is not None


def test_a_fire_drill_is_in_the_stacks_with_the_new_torch(suite: Suite, slow: Slow) -> None:
    slow("--perf-inject=latency:+10%")
    assert attributions(suite)[STEP].blame is Blame.TORCH


def test_whose_it_is_comes_before_what_only_explains_it(
    suite: Suite, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spend(_gatherer: Gatherer, _found: object) -> None:
        monkeypatch.setattr(Budget, "refusal", lambda *_: "the budget is spent")

    monkeypatch.setattr(Gatherer, "gather", spend)
    slow(new="slower:10", new_torch="slower:10")
    assert attributions(suite)[STEP].blame is Blame.TORCH
    assert Budget.refusal(None, "") == "the budget is spent"  # type: ignore[arg-type] # it is replaced


def test_a_resumed_session_measures_no_diagonal_twice(suite: Suite, slow: Slow) -> None:
    slow(new="slower:10", new_torch="slower:10")
    before = suite.record()
    slow("--perf-resume", new="slower:10", new_torch="slower:10")
    assert suite.record().diagonals == before.diagonals
    assert suite.record().attributions == before.attributions


# What is exact


@pytest.fixture
def changed(suite: Suite, plant: Plant) -> Callable[..., pytest.RunResult]:
    """Run the counters of one CPU case whose stacks have these further switches."""

    def run(*arguments: str, **corners: str) -> pytest.RunResult:
        command = (f"--perf-case={INT8WO}", "--perf-table=red")
        return suite.run(*command, plant(**corners), *arguments, tests=QUANTIZATION)

    return run


def test_an_exact_metric_is_attributed_by_one_process_a_stack(suite: Suite, changed: Slow) -> None:
    twice = "doubles:weight_bytes"
    result = changed(new=twice, new_torchao=twice)
    found = attributions(suite)["weight_bytes"]
    assert found.blame is Blame.TORCHAO
    assert {corner: each.value for corner, each in cells(found).items()} == {
        Corner.GOOD: 25165824.0,
        Corner.NEW_TORCH: 25165824.0,
        Corner.NEW_TORCHAO: 50331648.0,
        Corner.NEW: 50331648.0,
    }
    assert found.torch is not None
    assert found.torch.value == 0.0
    assert "whose torchao 0.19.0: +2.51658e+07 B of +2.51658e+07 B; torch 2.14.0: +0 B" in text(result)
    (told,) = findings.read(suite.out / "findings.json").causes
    assert (told.metric, told.blame, told.torchao) == ("weight_bytes", Blame.TORCHAO, 25165824.0)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stacks in which a case was measured alone, by the folder of each."""
    measured, measure = [], PairRunner.alone

    def spy(runner: PairRunner, planned: Planned, side: Side, index: int) -> Process:
        measured.append(runner.names[side])
        return measure(runner, planned, side, index)

    monkeypatch.setattr(PairRunner, "alone", spy)
    return measured


def test_a_resumed_session_measures_no_stack_twice(suite: Suite, changed: Slow, alone: list[str]) -> None:
    twice = "doubles:weight_bytes"
    changed(new=twice, new_torchao=twice)
    before = suite.record()
    assert sorted(alone) == ["good", "new_torch", "new_torchao"]
    assert [each.corner for each in before.cells] == alone
    alone.clear()
    changed("--perf-resume", new=twice, new_torchao=twice)
    assert alone == []
    assert (suite.record().attributions, suite.record().cells) == (before.attributions, before.cells)


def test_a_stack_that_was_measured_before_an_interruption_is_kept(
    suite: Suite, changed: Slow, alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    twice, measure = "doubles:weight_bytes", PairRunner.alone

    def interrupt_third(runner: PairRunner, planned: Planned, side: Side, index: int) -> Process:
        if len(alone) == 2:
            raise KeyboardInterrupt
        return measure(runner, planned, side, index)

    with monkeypatch.context() as patched:
        patched.setattr(PairRunner, "alone", interrupt_third)
        with pytest.raises(KeyboardInterrupt):  # which pytester passes on
            changed(new=twice, new_torchao=twice)
    kept = alone.copy()
    changed("--perf-resume", new=twice, new_torchao=twice)
    assert len(kept) == 2
    assert sorted(alone) == ["good", "new_torch", "new_torchao"]
    assert attributions(suite)["weight_bytes"].blame is Blame.TORCHAO


def test_a_stack_that_holds_something_else_by_now_is_measured_again(
    suite: Suite, changed: Slow, alone: list[str]
) -> None:
    twice = "doubles:weight_bytes"
    changed(new=twice, new_torchao=twice)
    record = json.loads((suite.out / "run.json").read_text())
    (mixed,) = (each for each in record["cells"] if each["corner"] == "new_torch")
    mixed["environment"]["packages"]["numpy"] = "1.0"
    (suite.out / "run.json").write_text(json.dumps(record))
    alone.clear()
    changed("--perf-resume", new=twice, new_torchao=twice)
    assert alone == ["new_torch"]
    assert attributions(suite)["weight_bytes"].blame is Blame.TORCHAO


def test_stacks_that_were_replaced_after_an_interruption_are_measured_as_they_are(
    suite: Suite, changed: Slow, alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    twice, measure = "doubles:weight_bytes", PairRunner.alone

    def interrupt_new_torchao(runner: PairRunner, planned: Planned, side: Side, index: int) -> Process:
        if runner.names[side] == "new_torchao":
            raise KeyboardInterrupt
        return measure(runner, planned, side, index)

    with monkeypatch.context() as patched:
        patched.setattr(PairRunner, "alone", interrupt_new_torchao)
        with pytest.raises(KeyboardInterrupt):
            changed(new=twice, new_torchao=twice)
    alone.clear()
    older = {"good": "versions:2.12.0+0.18.0", "new_torchao": f"versions:2.12.0+0.19.0,{twice}"}
    changed("--perf-resume", new=twice, **older)
    assert alone == ["good", "new_torchao"]
    assert attributions(suite)["weight_bytes"].blame is Blame.TORCHAO


def test_a_stack_that_fails_alone_is_not_asked_again(suite: Suite, changed: Slow, alone: list[str]) -> None:
    fails = "segfault:quantize"
    changed(new=fails, new_torchao=fails)
    before = suite.record()
    assert sorted(alone) == ["good", "new_torch", "new_torchao"]
    alone.clear()
    changed("--perf-resume", new=fails, new_torchao=fails)
    assert alone == []
    assert suite.record().attributions == before.attributions
    assert attributions(suite)["build"].blame is Blame.TORCHAO


def test_a_stack_that_has_changed_is_no_stack_that_fails_alike(
    suite: Suite, plant: Plant, alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two = (f"--perf-case={INT8WO}", f"--perf-case={COMPILED}", "--perf-table=red")
    bad = f"doubles:weight_bytes@{INT8WO},escapes@{COMPILED}"  # the second is ERROR(load)
    suite.run(*two, plant(new=bad, new_torchao=bad), tests=QUANTIZATION)
    record = json.loads((suite.out / "run.json").read_text())
    for cell in record["cells"]:
        cell["environment"]["packages"]["numpy"] = "1.0"
    (suite.out / "run.json").write_text(json.dumps(record))
    before = {each.case: (each.blame, each.sentence) for each in suite.record().attributions}
    alone.clear()
    suite.run(*two, "--perf-resume", plant(new=bad, new_torchao=bad), tests=QUANTIZATION)
    assert {each.case: (each.blame, each.sentence) for each in suite.record().attributions} == before
    assert {blame for blame, _ in before.values()} == {Blame.TORCHAO}


def test_cells_of_several_cards_are_measured_once_and_kept(
    suite: Suite, plug_gpus: Plug, plant: Plant, alone: list[str]
) -> None:
    plug_gpus(2)
    two = ("-m", "h100", f"--perf-case={FP8DQROW}", f"--perf-case={PIXART}", "--perf-gpus=2")
    suite.baselines = suite.folder / "own"
    suite.baselines.mkdir()
    suite.run(*two, tests=COUNTED)
    accept = ("apply", str(suite.out), "--only", "*", "--reason", "first", "--write")
    assert rebaseline([*accept, "--baselines", str(suite.baselines)]) == 0
    twice = "doubles:weight_bytes+quantized_modules+step_tflop"
    stacks = plant(new=twice, new_torchao=twice)
    suite.run(*two, stacks, tests=COUNTED)
    units = {run.processes[0].environment.unit for run in suite.record().cases}
    measured = {each.case for each in suite.record().attributions}
    assert (len(units), len(measured)) == (2, 2)
    assert sorted(alone) == sorted(2 * ["good", "new_torch", "new_torchao"])
    alone.clear()
    suite.run(*two, "--perf-resume", stacks, tests=COUNTED)
    assert alone == []


def test_a_stack_that_builds_something_else_is_unproven_not_guessed(suite: Suite, changed: Slow) -> None:
    twice = "doubles:weight_bytes"
    changed(new=twice, new_torchao=f"{twice},dequantizes", new_torch=twice)
    found = attributions(suite)["weight_bytes"]
    assert found.blame is Blame.PARTLY
    assert cells(found)[Corner.NEW_TORCHAO].status == "ERROR(unproven)"
    assert found.torchao_alone is None
    assert found.sentence.startswith("torch 2.14.0 alone:")


# What fails


def test_a_failure_is_attributed_by_whether_other_stacks_fail_alike(suite: Suite, changed: Slow) -> None:
    result = changed(new="segfault:quantize", new_torchao="segfault:quantize")
    assert suite.case(INT8WO).status is Status.CRASH
    found = attributions(suite)["build"]
    assert found.blame is Blame.TORCHAO
    assert found.sentence == "torchao 0.19.0: it fails alike with torch 2.13.0"
    assert [cells(found)[corner].value for corner in Corner] == [0.0, 0.0, 1.0, 1.0]
    assert "whose torchao 0.19.0: it fails alike with torch 2.13.0" in text(result)
    (told,) = findings.read(suite.out / "findings.json").causes
    assert (told.metric, told.status, told.blame) == ("build", Status.CRASH, Blame.TORCHAO)


def test_a_failure_of_both_together_and_of_none_are_told_apart(suite: Suite, changed: Slow) -> None:
    changed(new="segfault:quantize")
    assert attributions(suite)["build"].blame is Blame.TOGETHER
    changed(new="segfault:quantize", good="segfault:quantize")
    found = attributions(suite)["build"]
    assert found.blame is Blame.NOT_REPRODUCED
    assert found.sentence == "neither: it fails alike with torch 2.13.0 and torchao 0.18.0"


def test_a_stack_that_fails_in_another_way_is_reported(suite: Suite, changed: Slow) -> None:
    changed(new="segfault:quantize", new_torch="no-torch", new_torchao="segfault:quantize")
    found = attributions(suite)["build"]
    assert found.blame is Blame.PARTLY
    assert cells(found)[Corner.NEW_TORCH].status == "ERROR(load)"
    assert found.sentence.startswith("torchao 0.19.0 alone: it fails alike; torch 2.14.0 with torchao 0.18.0")


# Several cards


def test_several_cards_attribute_as_one_does(suite: Suite, plug_gpus: Plug, plant: Plant) -> None:
    plug_gpus(2)
    stacks = plant(new="slower:10", new_torch="slower:10")
    suite.run("-m", "h100", f"--perf-case={FP8DQROW}", "--perf-gpus=2", stacks, tests=LATENCY)
    assert attributions(suite)[STEP].blame is Blame.TORCH


# The file


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "--perf-stacks stacks.json: Input data was truncated; it holds a JSON object with"),
        ('{"good": "/a"}', "Object missing required field `new`"),
        (
            '{"good": "/nowhere/python", "new": "x", "new_torch": "x", "new_torchao": "x"}',
            "good: there is no such interpreter: /nowhere/python",
        ),
    ],
)
def test_stacks_that_cannot_be_followed_are_one_sentence(suite: Suite, content: str, says: str) -> None:
    (suite.folder / "stacks.json").write_text(content)
    result = suite.run("--perf-stacks=stacks.json", tests=LATENCY)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert says in str(result.stderr)


def test_an_interpreter_cannot_be_two_stacks(suite: Suite) -> None:
    corners = {corner.value: sys.executable for corner in Corner}
    (suite.folder / "stacks.json").write_text(json.dumps(corners))
    result = suite.run("--perf-stacks=stacks.json", tests=LATENCY)
    assert "two of the stacks have the same interpreter" in str(result.stderr)


def test_stacks_and_a_single_interpreter_contradict_each_other(suite: Suite, plant: Plant) -> None:
    result = suite.run(plant(), f"--perf-against={sys.executable}", tests=LATENCY)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "names the interpreters of all stacks: leave out --perf-against" in str(result.stderr)
