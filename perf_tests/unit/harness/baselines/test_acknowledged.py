"""baselines/<platform>/acknowledged.json: what may stand in it, and what it does to a session."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.baselines import acknowledged, files
from perf_tests.harness.rebaseline import store
from perf_tests.harness.runs.record import Status
from perf_tests.protocol.errors import BaselineError
from perf_tests.unit.conftest import INT8WO, ROOT, Misbehave, Suite

QUANTIZATION = (str(ROOT / "perf_tests" / "test_quantization.py"),)
ENTRY = {
    "case": INT8WO,
    "metric": "weight_bytes",
    "limit": 60_000_000,
    "issue": "https://example.org/issues/7",
    "owner": "@octocat",
    "until": "2999-12-31",
}


def write(root: Path, *entries: dict[str, Any], platform: str = "cpu") -> Path:
    path = root / platform / "acknowledged.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format_version": 1, "entries": entries}))
    return path


def test_a_platform_without_the_file_acknowledges_nothing(tmp_path: Path) -> None:
    assert acknowledged.read(tmp_path, "cpu") == {}


def test_the_file_is_no_baseline_file(tmp_path: Path) -> None:
    write(tmp_path, ENTRY)
    assert files.load(tmp_path, "cpu") == {}
    (found,) = acknowledged.read(tmp_path, "cpu").values()
    assert (found.case, found.limit, found.until) == (INT8WO, 60_000_000.0, date(2999, 12, 31))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metric": "speed"}, "speed of flux-mini-b1-int8wo-eager: there is no such metric"),
        ({"metric": "psnr_db"}, "cannot be acknowledged: pictures have a floor, below which they are wrong"),
        (
            {"metric": "layer_sqnr_db"},
            "cannot be acknowledged: it is about every layer, and one limit would hide the others",
        ),
        (
            {"metric": "weight_bytes_vs_implied"},
            "cannot be acknowledged: it shows whether the build is what was asked for",
        ),
        ({"issue": "later"}, "the issue must be an address that begins with https://, and is 'later'"),
        ({"issue": "https://x.org/ @all"}, "the issue must be an address"),
        ({"owner": "somebody"}, "the owner must be a name such as @octocat, and is 'somebody'"),
        ({"until": "soon"}, "does not hold acknowledgements: Invalid RFC3339 encoded date"),
        ({"limit": "a lot"}, "does not hold acknowledgements: Expected `float`"),
        ({"status": "PASS"}, "does not hold acknowledgements: Object contains unknown field `status`"),
    ],
)
def test_an_entry_that_may_not_be_is_one_sentence(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = write(tmp_path, {**ENTRY, **changes})
    with pytest.raises(BaselineError) as caught:
        acknowledged.read(tmp_path, "cpu")
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_two_entries_on_one_metric_are_refused(tmp_path: Path) -> None:
    write(tmp_path, ENTRY, {**ENTRY, "limit": 70_000_000})
    with pytest.raises(BaselineError, match="names a metric of a case twice"):
        acknowledged.read(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"case": "flux-mini-b1-int9-eager"}, "flux-mini-b1-int9-eager is not measured on cpu"),
        ({"metric": "denoise_step_ms"}, "denoise_step_ms of flux-mini-b1-int8wo-eager is not judged on cpu"),
        ({"issue": "later"}, "the issue must be an address"),
    ],
)
def test_check_names_what_is_wrong(
    recorded: Path, tmp_path: Path, changes: dict[str, Any], says: str | None
) -> None:
    root = Path(shutil.copytree(recorded, tmp_path / "baselines"))
    write(root, {**ENTRY, **changes})
    found = store.problems(root)
    if says is None:
        assert found == ()
    else:
        (problem,) = found
        assert says in problem


def test_rewriting_leaves_the_file_alone(recorded: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(recorded, tmp_path / "baselines"))
    before = write(root, ENTRY).read_bytes()
    store.rewrite(root)
    assert (root / "cpu" / "acknowledged.json").read_bytes() == before


# In a session


@pytest.fixture
def regressed(suite: Suite, misbehave: Misbehave) -> Suite:
    """A suite in which one exact metric of one case is twice its baseline."""
    suite.baselines = Path(shutil.copytree(suite.baselines, suite.folder / "baselines"))
    misbehave("doubles:weight_bytes")
    return suite


def run(suite: Suite, *arguments: str) -> pytest.RunResult:
    return suite.run(f"--perf-case={INT8WO}", "--perf-table=red", *arguments, tests=QUANTIZATION)


def test_a_known_regression_leaves_the_session_green_and_is_said(regressed: Suite) -> None:
    assert run(regressed).ret == pytest.ExitCode.TESTS_FAILED
    write(regressed.baselines, ENTRY)
    result = run(regressed)
    assert result.ret == pytest.ExitCode.OK
    assert regressed.statuses(INT8WO)["weight_bytes"] is Status.ACKNOWLEDGED
    assert regressed.case(INT8WO).status is Status.ACKNOWLEDGED
    assert f"ACKNOWLEDGED, not green: weight_bytes of {INT8WO} on cpu" in " ".join(str(result.stdout).split())


def test_a_regression_beyond_the_limit_is_red(regressed: Suite) -> None:
    write(regressed.baselines, {**ENTRY, "limit": 50_000_000})
    result = run(regressed)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "worse than the acknowledged 5e+07 B" in " ".join(str(result.stdout).split())


def test_a_green_metric_with_an_entry_is_red(suite: Suite) -> None:
    suite.baselines = Path(shutil.copytree(suite.baselines, suite.folder / "baselines"))
    write(suite.baselines, ENTRY)
    result = run(suite)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert suite.statuses(INT8WO)["weight_bytes"] is Status.STALE
    assert "remove the acknowledgement" in str(result.stdout)


def test_a_build_that_is_unproven_is_never_acknowledged(regressed: Suite, misbehave: Misbehave) -> None:
    misbehave("doubles:weight_bytes,dequantizes")
    write(regressed.baselines, ENTRY)
    assert run(regressed).ret == pytest.ExitCode.TESTS_FAILED
    assert regressed.case(INT8WO).status is Status.UNPROVEN
    assert Status.ACKNOWLEDGED not in regressed.statuses(INT8WO).values()


def test_a_fire_drill_is_never_acknowledged(suite: Suite) -> None:
    suite.baselines = Path(shutil.copytree(suite.baselines, suite.folder / "baselines"))
    write(suite.baselines, {**ENTRY, "metric": "quantized_modules", "limit": 0})
    assert run(suite, "--perf-inject=drop-quantization:1").ret == pytest.ExitCode.TESTS_FAILED


def test_a_file_that_cannot_be_trusted_is_one_sentence(suite: Suite) -> None:
    suite.baselines = Path(shutil.copytree(suite.baselines, suite.folder / "baselines"))
    write(suite.baselines, {**ENTRY, "owner": "me"})
    result = run(suite)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "the owner must be a name such as @octocat" in str(result.stderr)
