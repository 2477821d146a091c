from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.baselines import files, transaction
from perf_tests.harness.runs.record import RunRecord, Status
from perf_tests.harness.runs.record_file import write_record
from perf_tests.unit.builders import (
    FLUX_FP8,
    MINI_BF16,
    MINI_INT8WO,
    make_build,
    make_failure,
    make_process,
    make_record,
    make_run,
)
from perf_tests.unit.forked import Forked
from perf_tests.unit.harness.rebaseline.proposals import timed

SCRIPT = Path(__file__).resolve().parents[4] / "tools" / "rebaseline.py"
main = runpy.run_path(str(SCRIPT))["main"]

ID = MINI_INT8WO.id
ACCEPT = ("--only", ID, "--reason", "first recording", "--write")


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., Path]:
    def write(record: RunRecord | None = None) -> Path:
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        write_record(folder / "run.json", record or make_record())
        return folder

    return write


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., int]:
    return lambda *arguments: main([*map(str, arguments), "--baselines", str(tmp_path / "baselines")])


def _store(tmp_path: Path) -> dict[str, bytes]:
    root = tmp_path / "baselines"
    stored = (path for path in root.rglob("*") if path.is_file() and path.name != transaction.LOCK)
    return {str(path.relative_to(root)): path.read_bytes() for path in stored}


def test_a_run_without_a_command_is_a_diff_and_writes_nothing(
    cli: Callable[..., int], run_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(run_of()) == 1
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert [ID, "weight_bytes", "-", "1", "-", "-"] in rows
    assert _store(tmp_path) == {}


def test_diff_after_apply_is_the_same(
    cli: Callable[..., int], run_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("apply", run_of(), *ACCEPT) == 0
    capsys.readouterr()
    assert cli("diff", run_of() / "run.json") == 0
    assert capsys.readouterr().out == "nothing changes\n"


def test_diff_shows_the_change_in_percent(
    cli: Callable[..., int], run_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cli("apply", run_of(), *ACCEPT)
    capsys.readouterr()
    process = make_process(build=make_build({"weight_bytes": 1.25}))
    assert cli(run_of(make_record(make_run(processes=(process,))))) == 1
    assert capsys.readouterr().out.splitlines() == [
        "case                       metric        old  new   change    since the first",
        "flux-mini-b1-int8wo-eager  weight_bytes  1    1.25  +25.00 %  -",
        "flux-mini-b1-int8wo-eager: 1 process (provisional)",
    ]


def test_diff_shows_a_change_of_decibels_in_decibels(
    cli: Callable[..., int], run_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cli("apply", run_of(), *ACCEPT)
    capsys.readouterr()
    before = make_process()
    assert before.fidelity is not None
    fidelity = msgspec.structs.replace(before.fidelity, latents_sqnr_db=20.25)
    after = msgspec.structs.replace(before, fidelity=fidelity)
    assert cli(run_of(make_record(make_run(processes=(after,))))) == 1
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert [row[4:6] for row in rows if row[1] == "latents_sqnr_db"] == [["-4.75", "dB"]]


def test_apply_without_write_only_shows(
    cli: Callable[..., int], run_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("apply", run_of(), *ACCEPT[:-1]) == 0
    assert "nothing is written without --write" in capsys.readouterr().out
    assert _store(tmp_path) == {}


def test_apply_writes_the_selected_case_and_prints_a_commit_message(
    cli: Callable[..., int], run_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("apply", run_of(make_record(make_run(), make_run(MINI_BF16))), *ACCEPT) == 0
    assert list(files.load(tmp_path / "baselines", "cpu")["flux-mini"].cases) == [ID]
    assert capsys.readouterr().out.endswith(
        f"baseline(cpu): first recording\n\n- {ID}: 1 process (provisional)\n"
    )


def test_a_second_apply_changes_no_byte(
    cli: Callable[..., int], run_of: Callable[..., Path], tmp_path: Path
) -> None:
    cli("apply", run_of(), *ACCEPT)
    before = _store(tmp_path)
    assert cli("apply", run_of(), *ACCEPT) == 0
    assert (len(before), _store(tmp_path)) == (2, before)


def test_only_may_be_repeated(cli: Callable[..., int], run_of: Callable[..., Path], tmp_path: Path) -> None:
    record = make_record(make_run(), make_run(MINI_BF16))
    assert cli("apply", run_of(record), "--only", MINI_BF16.id, *ACCEPT) == 0
    assert len(files.load(tmp_path / "baselines", "cpu")["flux-mini"].cases) == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param(("--only", ID, "--write"), "apply needs --reason TEXT", id="no-reason"),
        pytest.param(
            ("--only", ID, "--reason", "  ", "--write"), "apply needs --reason TEXT", id="blank-reason"
        ),
        pytest.param(("--reason", "x", "--write"), "apply needs --only GLOB", id="no-pattern"),
        pytest.param(("--only", "sd35-*", *ACCEPT), "--only 'sd35-*' matches no case", id="unknown-pattern"),
        pytest.param(("--platform", "h100", *ACCEPT), "a run of another platform", id="platform"),
    ],
)
def test_apply_refuses_in_one_sentence_and_writes_nothing(
    cli: Callable[..., int],
    run_of: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    error: str,
) -> None:
    assert cli("apply", run_of(), *arguments) == 2
    assert error in capsys.readouterr().err
    assert _store(tmp_path) == {}


def test_a_mistyped_command_is_named_and_no_run_is_looked_for(
    cli: Callable[..., int], run_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("aply", run_of(), *ACCEPT) == 2
    assert capsys.readouterr().err == (
        "rebaseline: there is neither a command nor a run 'aply': did you mean 'apply'? Commands are diff, "
        "apply, review, check, rewrite, show; without one, RUN... is shown as by `diff`\n"
    )


def test_a_run_that_does_not_exist_and_resembles_no_command_is_a_missing_run(
    cli: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(tmp_path / "perf-out") == 2
    assert "give a run.json" in capsys.readouterr().err


def test_runs_of_one_card_are_accepted_as_one_settled_baseline(
    cli: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / f"run-{number}" for number in range(3)]
    for run, step_ms in zip(runs, (100.0, 100.4, 99.8), strict=True):
        run.mkdir()
        write_record(run / "run.json", timed(step_ms))
    assert cli("apply", *runs, "--only", FLUX_FP8.id, "--reason", "first", "--write") == 0
    assert (
        f"- {FLUX_FP8.id}: 3 processes of 3 runs, standard deviation between them " in capsys.readouterr().out
    )
    entry = files.load(tmp_path / "baselines", "h100")["flux1-dev"].cases[FLUX_FP8.id]
    assert entry.metrics["denoise_step_ms"] == (100.0, 100.4, 99.8)
    assert cli("check") == 0

    assert cli("apply", runs[0], "--only", FLUX_FP8.id, "--reason", "one", "--write") == 2
    assert "its baseline is settled, of 3 processes, and 1 would replace them" in capsys.readouterr().err
    assert cli("diff", runs[0]) == 1
    more = ("--only", FLUX_FP8.id, "--reason", "one", "--replace-settled", "--write")
    assert cli("apply", runs[0], *more) == 0
    assert files.load(tmp_path / "baselines", "h100")["flux1-dev"].cases[FLUX_FP8.id].provisional


def test_only_new_selects_what_lacks_nothing_but_a_baseline(
    cli: Callable[..., int],
    run_of: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    new = make_run(status=Status.NO_BASELINE)
    regressed = make_run(MINI_BF16, status=Status.REGRESSED)
    arguments = ("--only-new", "--reason", "first recording", "--write")

    assert cli("apply", run_of(make_record(new, regressed)), *arguments) == 0
    assert list(files.load(tmp_path / "baselines", "cpu")["flux-mini"].cases) == [ID]

    assert cli("apply", run_of(make_record(regressed)), *arguments) == 2
    assert "lacks nothing but a baseline" in capsys.readouterr().err


def test_only_new_narrows_what_only_selects(
    cli: Callable[..., int],
    run_of: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    new, other = make_run(status=Status.NO_BASELINE), make_run(MINI_BF16, status=Status.NO_BASELINE)
    arguments = ("--only-new", "--only", ID, "--reason", "first recording", "--write")
    assert cli("apply", run_of(make_record(new, other)), *arguments) == 0
    assert list(files.load(tmp_path / "baselines", "cpu")["flux-mini"].cases) == [ID]

    regressed = make_run(status=Status.REGRESSED)
    assert cli("apply", run_of(make_record(regressed, other)), *arguments) == 2
    error = capsys.readouterr().err
    assert f"matches --only '{ID}' and lacks nothing but a baseline" in error


def test_apply_writes_nothing_where_one_of_the_selected_cases_failed(
    cli: Callable[..., int], run_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = make_record(make_run(), make_run(MINI_BF16, failure=make_failure()))
    assert cli("apply", run_of(record), "--only", "*", "--reason", "x", "--write") == 2
    error = capsys.readouterr().err
    assert "not eligible: flux-mini-b1-bf16-eager: it failed: out of memory at 79 GiB" in error
    assert "nothing was written" in error
    assert _store(tmp_path) == {}


def test_apply_leaves_out_what_cannot_be_accepted_where_it_is_told_to(
    cli: Callable[..., int], run_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = make_record(make_run(), make_run(MINI_BF16, failure=make_failure()))
    arguments = ("--only", "*", "--reason", "x", "--eligible-only", "--write")
    assert cli("apply", run_of(record), *arguments) == 0
    output = capsys.readouterr()
    assert "not eligible: flux-mini-b1-bf16-eager: it failed: out of memory at 79 GiB" in output.err
    assert "nothing was written" not in output.err
    assert list(files.load(tmp_path / "baselines", "cpu")["flux-mini"].cases) == [ID]


def test_apply_refuses_where_nothing_at_all_can_be_accepted(
    cli: Callable[..., int], run_of: Callable[..., Path], tmp_path: Path
) -> None:
    record = make_record(make_run(failure=make_failure()))
    assert cli("apply", run_of(record), "--only", "*", "--reason", "x", "--eligible-only", "--write") == 2
    assert _store(tmp_path) == {}


def test_diff_of_a_failed_case_is_refused(cli: Callable[..., int], run_of: Callable[..., Path]) -> None:
    assert cli(run_of(make_record(make_run(failure=make_failure())))) == 2


def test_a_truncated_run_is_refused_without_a_traceback(
    cli: Callable[..., int], run_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = run_of() / "run.json"
    file.write_bytes(file.read_bytes()[:500])
    assert cli(file) == 2
    assert capsys.readouterr().err.startswith("rebaseline: ")


def test_check_passes_what_apply_wrote_and_refuses_a_truncated_file(
    cli: Callable[..., int], run_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli("apply", run_of(), *ACCEPT)
    assert cli("check") == 0
    file = files.path_of(tmp_path / "baselines", "cpu", "flux-mini", ID)
    file.write_bytes(file.read_bytes()[:-10])
    assert cli("check") == 2
    assert f"{ID}.json is not JSON" in capsys.readouterr().err


def test_check_of_a_missing_store_is_refused(
    cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("check") == 2
    assert "does not exist" in capsys.readouterr().err


def test_show_prints_medians_with_their_reason(
    cli: Callable[..., int], run_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cli("apply", run_of(), *ACCEPT)
    capsys.readouterr()
    assert cli("show", "flux-mini-*") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["platform", "case", "metric", "median", "processes", "recorded", "reason"]
    assert ["cpu", ID, "ssim", "0.95", "1", "2026-08-02", "first", "recording"] in [
        row.split() for row in rows
    ]


def test_show_may_be_limited_to_a_platform(
    cli: Callable[..., int], run_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cli("apply", run_of(), *ACCEPT)
    assert cli("show", "--platform", "cpu") == 0
    capsys.readouterr()
    assert cli("show", "--platform", "h100") == 2
    assert "no baseline of h100 under" in capsys.readouterr().err


def test_apply_and_rewrite_bring_the_tables_of_the_readme_up_to_date_and_check_holds_it_to_them(
    cli: Callable[..., int], run_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "baselines" / "README.md"
    readme.parent.mkdir()
    empty = "<!-- python tools/rebaseline.py show --markdown --platform h100 -->\n<!-- end of h100 -->\n"
    readme.write_text(empty)
    run = run_of(timed(99.5, 100.5, 101.5))
    assert cli("apply", run, "--only", FLUX_FP8.id, "--reason", "first", "--write") == 0
    table = readme.read_text()
    assert f"\n| `{FLUX_FP8.id}` | 3 | " in table
    assert " | 100.5 | " in table
    capsys.readouterr()
    assert cli("show", "--markdown", "--platform", "h100") == 0
    assert capsys.readouterr().out == table
    readme.write_text(empty)
    assert cli("check") == 2
    assert "README.md does not hold the table of what was accepted on h100" in capsys.readouterr().err
    assert cli("rewrite") == 0
    assert capsys.readouterr().out == f"rewritten: {readme}\n"
    assert readme.read_text() == table
    assert cli("check") == 0


def test_a_drifted_metric_is_refused_until_a_new_first_reference_has_a_reason(
    cli: Callable[..., int], run_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli("apply", run_of(), *ACCEPT)
    process = make_process(build=make_build({"model_memory_mib": 1.06}))
    run = run_of(make_record(make_run(processes=(process,))))
    assert cli("apply", run, *ACCEPT) == 2
    assert "model_memory_mib by +6.00 % from its first reference" in capsys.readouterr().err
    assert cli("apply", run, *ACCEPT, "--new-first-reference", "a new text encoder") == 0
    assert f"{ID}  model_memory_mib  1    1.06  +6.00 %  +0.00 %" in capsys.readouterr().out
    entry = files.load(tmp_path / "baselines", "cpu")["flux-mini"].cases[ID]
    assert (entry.first["model_memory_mib"], entry.first_reason) == ((1.06,), "a new text encoder")
    assert cli("check") == 0


def test_a_formatted_file_is_refused_by_check_until_it_is_rewritten(
    cli: Callable[..., int], run_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli("apply", run_of(), *ACCEPT)
    file = files.path_of(tmp_path / "baselines", "cpu", "flux-mini", ID)
    written = file.read_text()
    file.write_text(json.dumps(json.loads(written)))
    assert cli("check") == 2
    assert "tools/rebaseline.py rewrite" in capsys.readouterr().err
    assert cli("rewrite") == 0
    assert capsys.readouterr().out == f"rewritten: {file}\n"
    assert file.read_text() == written
    assert cli("check") == 0
    assert (cli("rewrite"), capsys.readouterr().out) == (0, "nothing changes\n")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("metrics", {"weight_bytes": 2.0}, id="a-number"),
        pytest.param("first", {"model_memory_mib": [2.0]}, id="the-first-reference"),
        pytest.param("figures", "0" * 16, id="figures"),
        pytest.param("seal", "", id="no-seal"),
    ],
)
def test_what_was_edited_by_hand_is_refused_by_every_command_and_never_rewritten(
    cli: Callable[..., int],
    run_of: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    field: str,
    value: object,
) -> None:
    cli("apply", run_of(), *ACCEPT)
    file = files.path_of(tmp_path / "baselines", "cpu", "flux-mini", ID)
    edited = json.loads(file.read_text())
    edited[field] = {**edited[field], **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(edited))
    before = _store(tmp_path)
    for arguments in (("check",), ("rewrite",), ("show",), ("diff", run_of())):
        capsys.readouterr()
        assert cli(*arguments) == 2
        assert f"{file} was edited: " in capsys.readouterr().err
    assert _store(tmp_path) == before


def test_figures_that_were_edited_are_refused(
    cli: Callable[..., int], run_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli("apply", run_of(), *ACCEPT)
    (figures,) = (tmp_path / "baselines" / "cpu" / "flux-mini" / "figures").iterdir()
    figures.write_text(figures.read_text() + " ")
    for command in ("check", "rewrite"):
        capsys.readouterr()
        assert cli(command) == 2
        assert f"the figures {figures.stem} of the baseline file " in capsys.readouterr().err


def test_show_of_an_unknown_pattern_is_refused(
    cli: Callable[..., int], run_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cli("apply", run_of(), *ACCEPT)
    assert cli("show", "nothing-*") == 2
    assert "matches 'nothing-*'" in capsys.readouterr().err


def test_baselines_may_stand_before_the_command(run_of: Callable[..., Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert main(["--baselines", str(other), "apply", str(run_of()), *ACCEPT]) == 0
    assert files.path_of(other, "cpu", "flux-mini", ID).is_file()


def test_script_runs_from_the_checkout_without_being_installed(
    run_of: Callable[..., Path], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, run_of(), "--baselines", tmp_path / "none"],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")


def test_commands_that_accept_different_cases_at_once_lose_none(
    cli: Callable[..., int], tmp_path: Path
) -> None:
    cases = (MINI_BF16, MINI_INT8WO)
    accepting = []
    for case in cases:
        run = tmp_path / case.id
        run.mkdir()
        write_record(run / "run.json", make_record(make_run(case)))
        accepting.append(Forked(partial(cli, "apply", run, *ACCEPT[2:], "--only", case.id)))
    assert [process.wait() for process in accepting] == [0, 0]
    assert set(files.load(tmp_path / "baselines", "cpu")["flux-mini"].cases) == {case.id for case in cases}


def test_what_a_killed_command_had_to_write_is_a_problem_until_it_is_rewritten(
    cli: Callable[..., int],
    run_of: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def killed(root: Path) -> None:
        if transaction.unfinished(root):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transaction, "_finish", killed)
        with pytest.raises(KeyboardInterrupt):
            cli("apply", run_of(), *ACCEPT)
    assert cli("check") == 2
    assert "holds what an interrupted command had still to write: fix it" in capsys.readouterr().err
    assert cli("rewrite") == 0
    assert cli("check") == 0
    assert f"cpu/flux-mini/{ID}.json" in _store(tmp_path)
