from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perf_tests.harness.runs.record import Run
from perf_tests.harness.runs.record_file import write_record
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import (
    FLUX_FP8,
    GPU,
    make_build,
    make_environment,
    make_process,
    make_record,
    make_run,
    make_sample,
)

ROOT = Path(__file__).resolve().parents[4]
SCRIPT = ROOT / "tools" / "compare.py"
PUBLISHED = str(ROOT / "baselines" / "published")
main = runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[..., str]:
    def write(*runs: Run) -> str:
        write_record(tmp_path / "run.json", make_record(*runs, references=()))
        return str(tmp_path)

    return write


def _measured(latency_s: float) -> Run:
    # Published: 3.039 s, 20.37 GiB.
    medians = {"latency_s": latency_s, "model_memory_mib": 20859.0, "peak_allocated_mib": 23316.0}
    return make_run(FLUX_FP8, H100, measured=medians)


@pytest.mark.parametrize(
    ("latency_s", "code"),
    [
        pytest.param(3.03, 0, id="within"),
        pytest.param(3.79, 0, id="limit"),
        pytest.param(3.81, 1, id="beyond"),
    ],
)
def test_exit_code_says_whether_a_row_is_unexplained(
    folder_of: Callable[..., str], latency_s: float, code: int
) -> None:
    assert main(["--published", folder_of(_measured(latency_s)), "--published-dir", PUBLISHED]) == code


def test_ours_is_printed_next_to_theirs(
    folder_of: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder_of(_measured(3.03), make_run())
    assert main(["--published", f"{run}/run.json", "--published-dir", PUBLISHED]) == 0
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert said[1] == [
        *("flux1-dev-b1-fp8dqrow-regional", "H100"),
        *("3.030", "3.039", "0.997", "20.370", "20.370", "1.000", "22.770", "31.820", "0.716"),
    ]


def test_the_rest_of_the_page_follows_the_tables(
    folder_of: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--published", folder_of(_measured(3.03)), "--published-dir", PUBLISHED]) == 0
    said = capsys.readouterr().out
    assert "53.880" in said
    assert "none of ours: flux1-dev-b1-bf16-eager is not in this run" in said
    assert said.endswith("33 figures and claims beside the tables, 0 with ours; none of them is judged\n")


def test_every_published_row_has_a_line_where_it_is_asked_for(
    folder_of: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--published", folder_of(_measured(3.03)), "--published-dir", PUBLISHED]
    assert main([*arguments, "--every-row"]) == 0
    said = capsys.readouterr().out
    assert sum(line.endswith("not in this run") for line in said.splitlines()[:200]) == 172
    assert "59.355" in said
    assert "172 published rows without a measured case" in said


def test_every_row_is_listed_of_published_tables_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["a", "b", "--every-row"])
    assert "--every-row lists published rows: give --published RUN with it" in capsys.readouterr().err


def test_a_run_without_a_published_row_is_refused(
    folder_of: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--published", folder_of(make_run()), "--published-dir", PUBLISHED]) == 2
    assert "nothing was compared" in capsys.readouterr().err


def test_a_run_that_was_not_measured_is_refused_with_the_reason(
    folder_of: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--published", folder_of(make_run(FLUX_FP8, H100)), "--published-dir", PUBLISHED]) == 2
    assert f"not compared: {FLUX_FP8.id}: latency_s was not measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param(["--published", "none", "--published-dir", PUBLISHED], "run record none", id="no-run"),
        pytest.param(["--published", "none", "--published-dir", "nowhere"], "nowhere", id="no-tables"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_sentence(
    options: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 2
    said = capsys.readouterr().err
    assert said.startswith("compare: ")
    assert (error in said, said.count("\n")) == (True, 1)


@pytest.mark.parametrize(
    "arguments",
    [(), ("base.json",), ("a", "b", "c"), ("base.json", "--published", "run.json")],
    ids=["nothing", "one-run", "three-runs", "both"],
)
def test_any_other_usage_is_an_error_that_names_both_ways(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(list(arguments))
    assert "give two runs, BASE and CANDIDATE, or one with --published RUN" in capsys.readouterr().err


# Two runs


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments that compare two runs, with the noise in the row of the H100."""

    def write(base: Run, candidate: Run) -> list[str]:
        reference = make_run(FLUX_FP8.reference, H100, processes=base.processes[:1])
        for name, run in (("base", base), ("candidate", candidate)):
            write_record(tmp_path / name / "run.json", make_record(run, references=(reference,)))
        return [*(str(tmp_path / name) for name in ("base", "candidate")), "--baselines", str(tmp_path)]

    for name in ("base", "candidate"):
        (tmp_path / name).mkdir()
    return write


def _stepping(*steps_ms: float) -> Run:
    samples = [
        make_sample({"denoise_step_ms": [step_ms], "transformer_calls": [28.0]}) for step_ms in steps_ms
    ]
    environment = make_environment(gpu=GPU)
    build = make_build({"distinct_prompt_embeddings": 4.0})
    processes = tuple(
        make_process(build=build, samples=(each,) * 5, environment=environment) for each in samples
    )
    return make_run(FLUX_FP8, H100, processes=processes)


@pytest.mark.parametrize(
    ("steps_ms", "code", "says"),
    [
        pytest.param((100.0,), 0, "denoise_step_ms", id="same"),
        pytest.param((94.0, 94.0), 0, "IMPROVED", id="better"),
        pytest.param((106.0, 106.0), 1, "denoise_step_ms REGRESSED: +6.00 % against", id="regressed"),
        pytest.param((106.0,), 2, "is undecided after 1 process", id="cannot-tell"),
    ],
)
def test_exit_code_says_how_the_candidate_compares(
    pair: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
    steps_ms: tuple[float, ...],
    code: int,
    says: str,
) -> None:
    assert main(pair(_stepping(*[100.0] * 5), _stepping(*steps_ms))) == code
    said = capsys.readouterr().out
    assert says in said
    assert "3 noisy metrics at a level of 0.085 % each" in said


def test_a_single_process_decides_where_its_session_asked_for_no_more(
    pair: Callable[..., list[str]],
) -> None:
    arguments = pair(_stepping(*[100.0] * 5), _stepping(106.0))
    assert main([*arguments, "--max-processes", "1"]) == 1


def test_a_record_that_cannot_be_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert capsys.readouterr().err.startswith("compare: cannot read the run record")


def test_script_runs_from_the_checkout_without_being_installed_and_without_torch(
    folder_of: Callable[..., str],
) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", SCRIPT, "--published", folder_of(_measured(3.03))],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert (done.returncode, "perf_tests.harness.compare.published" in imported) == (0, True)
    assert imported.isdisjoint({"torch", "torchao", "diffusers", "transformers", "pytest"})
