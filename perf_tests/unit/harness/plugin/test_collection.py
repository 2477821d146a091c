"""Which cases a session selects, seen from outside: options, machines, shards, the cross product."""

from __future__ import annotations

import os
import sys

import pytest

from perf_tests.harness.lanes.gpu_lock import GpuLock
from perf_tests.harness.runs.record import Status
from perf_tests.unit import fake_cards
from perf_tests.unit.conftest import BF16, FP8DQROW, INT8WO, ROOT, Plug, Suite
from perf_tests.unit.harness.plugin.sessions import (
    BOTH,
    BUILD,
    LATENCY,
    NAMES,
    ONLY_BF16,
    ONLY_INT8WO,
    collected,
    screen,
)

# Order


AGAINST = f"--perf-against={sys.executable}"
COMPILED_BF16 = "flux1-dev-b1-bf16-regional"
CASE_BY_CASE = [
    f"test_{judge}[{case}]" for case in (COMPILED_BF16, FP8DQROW) for judge in ("build", "latency")
]
MODULE_BY_MODULE = [CASE_BY_CASE[place] for place in (0, 2, 1, 3)]


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ((), CASE_BY_CASE),
        ((AGAINST,), MODULE_BY_MODULE),
        ((AGAINST, "--perf-gpus=all"), CASE_BY_CASE),
    ],
)
def test_a_case_is_judged_before_the_next_is_measured_unless_one_device_compares(
    suite: Suite, plug_gpus: Plug, options: tuple[str, ...], order: list[str]
) -> None:
    plug_gpus(2)
    cases = (f"--perf-case={case}" for case in (COMPILED_BF16, FP8DQROW))
    result = suite.run(*cases, *options, "-m", "h100", "--collect-only", "-q", tests=(BUILD, LATENCY))
    assert [line.partition("::")[2] for line in result.outlines if "::" in line] == order


# Selection


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("--perf-case=flux-mini-b1-int8-eager",),
            f"int8-eager' matches none of the {NAMES} cases and known issues; nearest: {INT8WO}",
        ),
        (
            (*BOTH, "--perf-case=typo"),
            f"--perf-case 'typo' matches none of the {NAMES} cases and known issues",
        ),
        (
            (ONLY_INT8WO, "--perf-inject=cash"),
            "no fault 'cash'; there are latency, memory, drop-quantization",
        ),
        (
            (ONLY_INT8WO, "--perf-inject=oom@cogvideox*"),
            f"'oom@cogvideox*' matches none of the 1 selected cases; nearest: {INT8WO}",
        ),
        ((ONLY_INT8WO, "--perf-processes=0"), "--perf-processes 0: at least one process measures a case"),
        (
            (ONLY_INT8WO, "--perf-max-processes=0"),
            "--perf-max-processes 0: at least one process measures a case",
        ),
        (
            (ONLY_INT8WO, "--perf-processes", "9"),
            "--perf-processes 9: at most 5 processes measure a case; raise --perf-max-processes",
        ),
        (
            (ONLY_INT8WO, "--perf-baselines=/nope"),
            "--perf-baselines /nope: there is no such folder; make an empty one where there are no",
        ),
        ((ONLY_INT8WO, "--perf-out=run\udcff"), r"'--perf-out=run\udcff' is not UTF-8"),
        (
            (ONLY_INT8WO, "--perf-require-gpu"),
            "--perf-require-gpu: no selected case can run here; this machine has no",
        ),
        (("-m", "h100", "--perf-require-gpu"), "this machine has no NVIDIA GPU"),
    ],
)
def test_options_that_cannot_be_followed_are_one_sentence(
    suite: Suite, arguments: tuple[str, ...], says: str
) -> None:
    result = suite.run(*arguments, tests=(BUILD,))

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert says in screen(result)
    assert "no verdict" not in screen(result)
    assert not suite.out.exists()


def test_tests_side_by_side_are_refused(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        parallel="def pytest_addoption(parser): parser.addoption('--jobs', dest='numprocesses', type=int)"
    )
    pytester.syspathinsert()
    result = suite.run("-p", "parallel", "--jobs=2", ONLY_INT8WO, tests=(BUILD,))

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "they would share one GPU: run with -n 0" in screen(result)


def test_cases_of_a_gpu_are_skipped_without_one(suite: Suite) -> None:
    result = suite.run("-m", "h100", tests=(BUILD,))

    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes().keys() == {"skipped", "deselected"}
    assert "needs h100 or h200 or b200 or a100; this machine has no NVIDIA GPU" in screen(result)


def test_cases_of_an_h100_run_on_one_and_are_filed_under_it(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    result = suite.run("-m", "h100", f"--perf-case={FP8DQROW}", "--perf-require-gpu")

    assert result.ret == pytest.ExitCode.OK
    assert (suite.case(FP8DQROW).platform, suite.case(FP8DQROW).status) == ("h100", Status.PASS)
    assert suite.statuses(FP8DQROW)["speedup_vs_bf16"] is Status.PASS
    assert "GPU seconds" in screen(result)
    result.stdout.fnmatch_lines(
        [
            "3 noisy metrics at a level of 0.085 % each: unchanged code turns one of them red in at most "
            "0.255 % of the runs"
        ]
    )


def test_a_gpu_that_another_suite_measures_on_is_refused(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    with GpuLock(fake_cards.H100_CARD["uuid"]):
        result = suite.run(f"--perf-case={FP8DQROW}", tests=(BUILD,))
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        uuid = fake_cards.H100_CARD["uuid"]
        assert f"the GPU {uuid} was asked for, but process {os.getpid()}" in screen(result)
        assert not suite.out.exists()
        planned = suite.run(f"--perf-case={FP8DQROW}", "--collect-only", tests=(BUILD,))
        assert planned.ret == pytest.ExitCode.OK
        assert suite.run(ONLY_BF16, tests=(BUILD,)).ret == pytest.ExitCode.OK


def test_a_session_gives_its_gpu_back(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    suite.run(f"--perf-case={FP8DQROW}", tests=(BUILD,))
    with GpuLock(fake_cards.H100_CARD["uuid"]) as lock:
        assert lock.path.exists()


def test_cases_of_an_h200_are_not_selected_on_an_h100(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    assert suite.run("-m", "h200", tests=(BUILD,)).ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_an_unknown_gpu_is_a_usage_error_for_gpu_cases_only(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu(name="NVIDIA L40S", capability=(8, 9), power_limit_w=350)
    result = suite.run("-m", "h100", tests=(BUILD,))

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "unknown GPU 'NVIDIA L40S', for which there can be no baselines" in screen(result)
    assert suite.run("-m", "cpu", "--collect-only", tests=(BUILD,)).ret == pytest.ExitCode.OK


# Shards


def test_two_shards_together_hold_exactly_the_cases_of_the_whole(suite: Suite) -> None:
    options = ("--collect-only", "-q", "-m", "cpu or h100", "--perf-case=flux*")
    whole = collected(suite.run(*options, tests=(BUILD,)))
    first = collected(suite.run(*options, "--perf-shard=1/2", tests=(BUILD,)))
    second = collected(suite.run(*options, "--perf-shard=2/2", tests=(BUILD,)))

    assert len(whole) > 20
    assert first | second == whole
    assert first & second == set()
    assert min(len(first), len(second)) > 0


def test_each_shard_judges_at_the_error_level_of_the_whole_selection(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    latency = (str(ROOT / "perf_tests" / "test_latency.py"),)
    two = [f"--perf-case=flux1-schnell-b1-{recipe}" for recipe in ("bf16-regional", "fp8wo-regional")]
    for shard in ("1/1", "1/2", "2/2"):
        result = suite.run("-m", "h100", *two, f"--perf-shard={shard}", tests=latency)
        assert "5 noisy metrics at a level of 0.085 % each" in screen(result)


def test_a_fire_drill_in_another_shard_is_no_usage_error(suite: Suite) -> None:
    drill = f"--perf-inject=latency:+3%@{INT8WO}"
    shards = [suite.run(*BOTH, drill, f"--perf-shard={i}/2", tests=(BUILD,)).ret for i in (1, 2)]
    assert shards == [pytest.ExitCode.OK, pytest.ExitCode.OK]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b"])
def test_a_shard_that_does_not_exist_is_a_usage_error(suite: Suite, text: str) -> None:
    result = suite.run(f"--perf-shard={text}", ONLY_BF16)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--perf-shard '{text}': write i/n with i from 1 to n" in screen(result)


# The cross product


def test_the_cross_product_is_left_out_unless_it_is_named(suite: Suite) -> None:
    usual = collected(suite.run("--collect-only", "-q", "-m", "cpu", tests=(BUILD,)))
    product = collected(suite.run("--collect-only", "-q", "-m", "cpu and exhaustive", tests=(BUILD,)))

    assert BF16 in usual
    assert usual & product == set()
    assert {"sd3-mini-b1-int8dq-regional", "flux-mini-b1-nvfp4-eager"} <= product


COUNTED = {
    "transformer_calls",
    "text_encoder_calls",
    "text_encoder_2_calls",
    "text_encoder_3_calls",
    "decode_calls",
    "distinct_prompt_embeddings",
    "unfused_attention_calls",
}
"""What is judged of every case of SD3."""


def test_a_case_of_the_cross_product_without_metrics_to_judge_passes_once_verified(suite: Suite) -> None:
    case_id = "sd3-mini-b1-fp16-eager"
    assert suite.run("-m", "cpu and exhaustive", f"--perf-case={case_id}").ret == pytest.ExitCode.OK
    assert suite.case(case_id).status is Status.PASS
    assert set(suite.statuses(case_id)) == COUNTED


def test_a_case_of_the_cross_product_is_generated_once_and_verified_without_baselines(suite: Suite) -> None:
    case_id = "sd3-mini-b1-int8dq-eager"
    result = suite.run("-m", "cpu and exhaustive", f"--perf-case={case_id}")

    assert result.ret == pytest.ExitCode.OK
    assert len(suite.case(case_id).processes[0].samples) == 1
    assert set(suite.statuses(case_id)) == {*COUNTED, "output_sqnr_db", "weight_bytes_vs_implied"}
    assert suite.record().references == ()


def test_other_tests_may_call_their_parameters_case(suite: Suite, pytester: pytest.Pytester) -> None:
    other = pytester.makepyfile(
        test_other="""
        import pytest

        @pytest.mark.parametrize("case", ["lower", "upper"])
        def test_other(case):
            pass
        """
    )

    result = suite.run("--collect-only", "-q", ONLY_BF16, tests=(BUILD, str(other)))

    assert [line.partition("::")[2] for line in result.outlines if "::" in line] == [
        f"test_build[{BF16}]",
        "test_other[lower]",
        "test_other[upper]",
    ]
