"""Options: what the command line says, and what is refused."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perf_tests.harness.plugin.options import OPTIONS, declare, parse_drill, parse_duration, read
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.messages import Fault, Injection
from perf_tests.unit.conftest import BF16, INT8WO, make_options


@pytest.mark.parametrize(
    ("spec", "fault", "amount", "glob"),
    [
        ("latency:+3%", Fault.LATENCY, 3.0, "*"),
        ("latency:2.5%", Fault.LATENCY, 2.5, "*"),
        ("memory:+2%@flux*", Fault.MEMORY, 2.0, "flux*"),
        ("scale:+1%@*int8wo*", Fault.SCALE, 1.0, "*int8wo*"),
        ("drop-quantization:12@*int8*", Fault.DROP_QUANTIZATION, 12.0, "*int8*"),
        ("hang", Fault.HANG, None, "*"),
    ],
)
def test_a_fault_is_read_with_its_amount_and_its_cases(
    spec: str, fault: Fault, amount: float | None, glob: str
) -> None:
    drill = parse_drill(spec)
    assert (drill.injection, drill.glob) == (Injection(fault=fault, amount=amount), glob)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("slow:+3%", "no fault 'slow'; there are latency, memory, drop-quantization, scale, hang"),
        ("", "no fault ''"),
        ("latency", r"write an amount such as 'latency:\+3%'"),
        ("latency:3", r"write an amount such as 'latency:\+3%'"),
        ("latency:-3%", r"write an amount such as 'latency:\+3%'"),
        ("drop-quantization:0", "write an amount such as 'drop-quantization:1'"),
        ("scale", r"write an amount such as 'scale:\+1%'"),
        ("scale:-1%", r"write an amount such as 'scale:\+1%'"),
        ("oom:+3%", "oom takes no amount"),
    ],
)
def test_a_malformed_fault_is_refused_with_an_example(spec: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_drill(spec)


def test_a_case_gets_the_faults_whose_glob_it_matches_in_their_order() -> None:
    options = make_options(drills=tuple(map(parse_drill, ("oom@*int8*", "crash@*bf16*", "latency:+3%"))))
    assert [each.fault for each in options.injections(INT8WO)] == [Fault.OOM, Fault.LATENCY]


@pytest.mark.parametrize(
    ("globs", "selected"),
    [((), True), (("*int8wo-eager",), True), (("int8wo",), False), (("*bf16*", INT8WO), True)],
)
def test_a_case_is_selected_by_any_glob_that_matches_its_whole_id(
    globs: tuple[str, ...], selected: bool
) -> None:
    assert make_options(case_globs=globs).selects(INT8WO) is selected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("9m", 540.0), ("90s", 90.0), ("540", 540.0), ("1h30m", 5400.0), ("2h5m10s", 7510.0)],
)
def test_a_budget_is_written_as_people_write_times(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "-5m", "9 minutes", "1.5h", "m9"])
def test_a_malformed_budget_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match="write a time such as '9m', '90s' or '1h30m'"):
        parse_duration(text)


def test_every_case_is_selected_without_globs() -> None:
    assert make_options().selects(BF16)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "--perf-worker-module"])
def test_a_public_option_explains_itself_in_the_help(name: str) -> None:
    assert len(OPTIONS[name]["help"]) > 10


def test_the_worker_module_of_the_suites_own_tests_is_not_in_the_help() -> None:
    assert OPTIONS["--perf-worker-module"]["help"] == argparse.SUPPRESS


@pytest.mark.parametrize(
    ("given", "plans"),
    [([], None), (["--perf-autoquant-plans=mine"], Path("mine"))],
    ids=["none", "a-folder"],
)
def test_autoquant_plans_are_those_of_the_run_unless_a_folder_is_named(
    given: list[str], plans: Path | None
) -> None:
    parser = argparse.ArgumentParser()
    group: Any = SimpleNamespace(addoption=parser.add_argument)
    declare(group)
    assert read(parser.parse_args(given)).autoquant_plans == plans
