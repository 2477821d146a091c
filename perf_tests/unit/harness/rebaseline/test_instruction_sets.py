"""What is recorded with one set of vector instructions stands beside what is recorded with another."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.baselines.entry import Accepted, Baselines, accepted_of
from perf_tests.harness.baselines.instruction_sets import OfInstructions
from perf_tests.harness.rebaseline import store
from perf_tests.harness.runs.record import RunRecord, Status
from perf_tests.harness.runs.record_file import write_record
from perf_tests.protocol.errors import BaselineError
from perf_tests.protocol.reports import Sample
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.platforms import CPU
from perf_tests.unit.builders import (
    MINI_INT8WO,
    make_baselines,
    make_build,
    make_entry,
    make_environment,
    make_process,
    make_provenance,
    make_record,
    make_run,
    store_baselines,
)
from perf_tests.unit.conftest import INT8WO, Misbehave, Suite, rebaseline
from perf_tests.unit.harness.plugin.sessions import LATENCY, ONLY_INT8WO, RATIO, screen
from perf_tests.unit.harness.rebaseline.proposals import accept, proposed

ROOT = Path(__file__).parents[4]
ID = MINI_INT8WO.id
OPERATORS = "operators_per_step"


def measured(instructions: str | None, *, ratio: float, operators: float, weights: float = 1.0) -> RunRecord:
    settings = {} if instructions is None else {"cpu_capability": instructions}
    build, whole = make_build(), make_process()
    values = {**build.values, OPERATORS: operators, "weight_bytes": weights}
    process = make_process(
        environment=make_environment(settings=settings),
        build=msgspec.structs.replace(build, values=values),
        samples=tuple(_with_latency(each, ratio) for each in whole.samples),
        twin_samples=tuple(_with_latency(each, 1.0) for each in whole.samples),
    )
    return make_record(make_run(processes=(process,)))


def _with_latency(sample: Sample, seconds: float) -> Sample:
    return msgspec.structs.replace(sample, values={**sample.values, "latency_s": (seconds,)})


def accepted_in(root: Path) -> Accepted:
    return accepted_of(files.load(root, "cpu")["flux-mini"], ID)


def of_set(accepted: Accepted, name: str) -> dict[str, tuple[float, ...]]:
    return accepted.others[name].entry.metrics


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """A store with numbers of AVX2, and of AVX512, which were accepted later."""
    accept(tmp_path, measured("AVX2", ratio=3.0, operators=2926.0), reason="first")
    accept(tmp_path, measured("AVX512", ratio=0.7, operators=2700.0, weights=2.0), reason="another runner")
    return tmp_path


def test_another_instruction_set_is_added_and_replaces_nothing_that_follows_it(both: Path) -> None:
    accepted = accepted_in(both)

    assert accepted.entry.metrics[RATIO] == (0.7,)
    assert of_set(accepted, "AVX2")[RATIO] == (3.0,)
    assert of_set(accepted, "AVX2")[OPERATORS] == (2926.0,)
    assert accepted.others["AVX2"].provenance.reason == "first"
    assert of_set(accepted, "AVX2")["weight_bytes"] == accepted.entry.metrics["weight_bytes"] == (2.0,)
    assert store.problems(both) == ()


def test_the_same_instruction_set_is_replaced_and_the_other_stays(both: Path) -> None:
    accept(both, measured("AVX2", ratio=3.3, operators=2930.0), reason="again")

    accepted = accepted_in(both)
    assert (accepted.entry.metrics[RATIO], of_set(accepted, "AVX512")[RATIO]) == ((3.3,), (0.7,))
    assert list(accepted.others) == ["AVX512"]
    assert len(files.load(both, "cpu")["flux-mini"].provenance) == 2


def test_accepting_the_same_run_twice_changes_no_byte(both: Path) -> None:
    before = files.path_of(both, "cpu", "flux-mini", ID).read_bytes()
    accept(both, measured("AVX512", ratio=0.7, operators=2700.0, weights=2.0), reason="once more")
    assert files.path_of(both, "cpu", "flux-mini", ID).read_bytes() == before


def test_a_change_is_one_against_the_same_instruction_set(both: Path) -> None:
    changes = {
        each.metric: each for each in proposed(both, measured("AVX2", ratio=6.0, operators=2926.0)).changes
    }

    assert (changes[RATIO].old, changes[RATIO].new, changes[RATIO].instructions) == (3.0, 6.0, "AVX2")
    assert OPERATORS not in changes
    assert changes["weight_bytes"].instructions is None


def test_numbers_of_a_new_instruction_set_replace_none(both: Path) -> None:
    changes = {
        each.metric: each for each in proposed(both, measured("SVE256", ratio=2.0, operators=1.0)).changes
    }
    assert (changes[RATIO].old, changes[RATIO].new, changes[RATIO].instructions) == (None, 2.0, "SVE256")


def test_a_baseline_that_is_too_old_to_know_its_instructions_is_replaced(tmp_path: Path) -> None:
    accept(tmp_path, measured(None, ratio=3.0, operators=2926.0))
    accept(tmp_path, measured("AVX512", ratio=0.7, operators=2700.0))
    assert accepted_in(tmp_path).others == {}


def test_a_case_that_has_changed_keeps_no_numbers(both: Path) -> None:
    old = files.read(both, "cpu", "flux-mini")
    entry = msgspec.structs.replace(old.cases[ID], digest="0" * 64)
    store_baselines(both, msgspec.structs.replace(old, cases={ID: entry}))

    accept(both, measured("AVX2", ratio=3.3, operators=2930.0))

    assert accepted_in(both).others == {}


def test_a_metric_that_a_set_was_recorded_without_is_compared_as_with_other_instructions(both: Path) -> None:
    old = files.read(both, "cpu", "flux-mini")
    other = msgspec.structs.replace(old.cases[ID].other_instructions["AVX2"], metrics={RATIO: (3.0,)})
    entry = msgspec.structs.replace(old.cases[ID], other_instructions={"AVX2": other})
    store_baselines(both, msgspec.structs.replace(old, cases={ID: entry}))
    accepted, settings = accepted_in(both), {"cpu_capability": "AVX2"}

    assert accepted.fitting(METRIC_BY_NAME[RATIO], settings).entry.metrics[RATIO] == (3.0,)
    assert accepted.fitting(METRIC_BY_NAME[OPERATORS], settings) == accepted


# What is refused


def test_a_run_that_does_not_name_its_instructions_replaces_none_that_do(both: Path) -> None:
    proposal = proposed(both, measured(None, ratio=3.0, operators=2926.0))

    assert proposal.ineligible == (
        f"{ID}: it does not say which instruction set it was measured with, and the baseline holds numbers "
        "of AVX2 and AVX512: measure it again with this checkout",
    )
    assert proposal.baselines == {}


def broken(others: dict[str, OfInstructions], **settings: str) -> Baselines:
    return make_baselines(
        cases={ID: make_entry(other_instructions=others)},
        provenance={
            "p1": make_provenance(settings=settings),
            "p2": make_provenance(settings={"cpu_capability": "AVX512"}),
        },
    )


def of_instructions(**changes: Any) -> OfInstructions:
    default = OfInstructions(provenance="p2", processes=1, metrics={RATIO: (0.7,)})
    return msgspec.structs.replace(default, **changes)


@pytest.mark.parametrize(
    ("baselines", "says"),
    [
        pytest.param(
            broken({"AVX512": of_instructions()}, cpu_capability="AVX512"),
            f"{ID} holds the numbers of AVX512 twice",
            id="twice",
        ),
        pytest.param(
            broken({"MMX": of_instructions()}, cpu_capability="AVX2"),
            f"{ID} holds numbers of 'MMX', which is no instruction set: they are AVX2, AVX512, DEFAULT",
            id="unknown",
        ),
        pytest.param(
            broken({}, cpu_capability="MMX"), f"{ID} holds numbers of 'MMX', which is no", id="unknown-own"
        ),
        pytest.param(
            broken({"AVX512": of_instructions()}),
            f"{ID} holds numbers of AVX512, and does not say of which set its own are",
            id="own-unsaid",
        ),
        pytest.param(
            broken({"SVE": of_instructions()}, cpu_capability="AVX2"),
            f"{ID} holds numbers of SVE that were recorded with AVX512",
            id="another-provenance",
        ),
        pytest.param(
            broken({"AVX512": of_instructions(provenance="p9")}, cpu_capability="AVX2"),
            f"{ID} refers to the provenance 'p9', which does not exist",
            id="no-provenance",
        ),
        pytest.param(
            broken({"AVX512": of_instructions(processes=2)}, cpu_capability="AVX2"),
            f"{RATIO} of {ID} has 1 values from 2 processes",
            id="processes",
        ),
        pytest.param(
            broken({"AVX512": of_instructions(metrics={RATIO: (1e9,)})}, cpu_capability="AVX2"),
            f"{RATIO} of {ID} holds 1e+09, which nothing measured can be",
            id="absurd",
        ),
    ],
)
def test_a_store_whose_sets_contradict_each_other_is_refused_in_one_sentence(
    baselines: Baselines, says: str
) -> None:
    with pytest.raises(BaselineError, match=f"cannot be written: {says}".replace("+", r"\+")):
        files.contents(Path("nowhere"), baselines)


def test_numbers_of_what_follows_no_instruction_set_are_a_problem(both: Path) -> None:
    old = files.read(both, "cpu", "flux-mini")
    other = msgspec.structs.replace(
        old.cases[ID].other_instructions["AVX2"], metrics={"weight_bytes": (1.0,)}
    )
    entry = msgspec.structs.replace(old.cases[ID], other_instructions={"AVX2": other})
    store_baselines(both, msgspec.structs.replace(old, cases={ID: entry}))

    (problem,) = store.problems(both)

    assert "has numbers of AVX2 of what follows no instruction set: weight_bytes" in problem


# By the command line, and in a session


def test_show_and_diff_name_the_instruction_set(
    both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(ROOT / "tools" / "rebaseline.py"))["main"]
    assert main(["show", ID, "--baselines", str(both)]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if RATIO in line]
    assert [line[3:5] for line in shown] == [["[AVX512]", "0.7"], ["[AVX2]", "3"]]

    (tmp_path / "run").mkdir()
    write_record(tmp_path / "run" / "run.json", measured("AVX2", ratio=6.0, operators=2926.0))
    assert main(["diff", str(tmp_path / "run"), "--baselines", str(both)]) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if RATIO in line)
    assert line.split() == [ID, RATIO, "[AVX2]", "3", "6", "+100.00", "%", "-"]


def _apply(suite: Suite, reason: str) -> None:
    arguments = ["apply", str(suite.out), "--only", INT8WO, "--reason", reason, "--write"]
    assert rebaseline([*arguments, "--baselines", str(suite.baselines)]) == 0


def test_each_runner_is_judged_by_what_was_recorded_with_its_instructions(
    suite: Suite, misbehave: Misbehave
) -> None:
    suite.baselines = suite.folder / "baselines"
    suite.baselines.mkdir()
    misbehave("instructions:AVX2")
    suite.run(ONLY_INT8WO)
    _apply(suite, "first")
    misbehave("instructions:AVX512")
    assert suite.run(ONLY_INT8WO).ret == pytest.ExitCode.OK
    assert suite.statuses(INT8WO)[RATIO] is Status.NOT_COMPARED
    _apply(suite, "another runner")

    for name in ("AVX2", "AVX512"):
        misbehave(f"instructions:{name}")
        result = suite.run(ONLY_INT8WO)
        assert (result.ret, suite.statuses(INT8WO)[RATIO]) == (pytest.ExitCode.OK, Status.PASS), screen(
            result
        )
        suite.run(ONLY_INT8WO, "--perf-inject=latency:+100%", tests=(LATENCY,))
        assert suite.statuses(INT8WO)[RATIO] is Status.REGRESSED

    assert CPU.id in {path.name for path in suite.baselines.iterdir()}
