"""What becomes of a night: which jobs may write what, what they trust, and that no failure is hidden."""

from __future__ import annotations

import re
import runpy
import subprocess
from pathlib import Path

import pytest

from perf_tests.unit.git import git
from perf_tests.unit.test_project import ROOT, WORKFLOWS, jobs, without_comments

NIGHTLY = ROOT / ".github" / "workflows" / "nightly.yml"
RECORD = ROOT / ".github" / "workflows" / "record.yml"
HEARTBEAT = ROOT / ".github" / "workflows" / "heartbeat.yml"
SCRIPT = ROOT / ".ci" / "nights"


def rights(job: str) -> list[str]:
    """The permissions of a job, one a line."""
    (found,) = re.findall(r"    permissions:\n((?:      .*\n)+)", job)
    return [line.strip() for line in str(found).splitlines()]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_no_workflow_runs_with_our_rights_for_somebody_else(workflow: Path) -> None:
    assert not re.search(r"pull_request_target|workflow_run\b|issue_comment", without_comments(workflow))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_no_workflow_hides_a_failure(workflow: Path) -> None:
    text = without_comments(workflow)

    assert "continue-on-error" not in text
    assert not re.search(r"\|\| *(true|:)(?!\w)|set \+e", text)


def test_all_parts_of_a_night_measure_the_versions_that_one_job_has_resolved() -> None:
    night = jobs(NIGHTLY)

    assert "needs: versions" in night["h100"]
    outputs = {"TORCH_VERSION": "torch", "TORCHAO_REF": "torchao", "DIFFUSERS_REF": "diffusers"}
    for name, output in outputs.items():
        assert f"{output}: ${{{{ steps.versions.outputs.{name} }}}}" in night["versions"]
        assert f"{name}: ${{{{ needs.versions.outputs.{output} }}}}" in night["h100"]
    assert "matrix" not in night["versions"]
    assert all(f'"${{{name}:?' in night["h100"] for name in ("TORCH_VERSION", "TORCHAO_REF"))


def test_only_one_job_of_a_night_writes_issues_and_another_one_the_history() -> None:
    night = jobs(NIGHTLY)

    assert rights(night["tell"]) == ["contents: read", "issues: write"]
    assert rights(night["history"]) == ["contents: write"]
    assert [name for name, job in night.items() if "issues: write" in job] == ["tell"]
    assert [name for name, job in night.items() if "contents: write" in job] == ["history"]
    assert rights(jobs(HEARTBEAT)["nights"]) == ["contents: read", "issues: write"]


@pytest.mark.parametrize("name", ["tell", "history"])
def test_nights_are_told_and_kept_on_a_schedule_or_where_somebody_asks_for_it(name: str) -> None:
    job = jobs(NIGHTLY)[name]

    asked = "inputs.tell && github.ref_name == github.event.repository.default_branch"
    assert f"(github.event_name == 'schedule' || ({asked}))" in job
    assert "!cancelled()" in job
    assert "needs: merge" in job


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_scheduled_runs_do_not_ask_for_a_repository_in_their_event(workflow: Path) -> None:
    """Theirs has none: a condition that asks for it switches its job off. They run on the default branch."""
    asking = re.findall(r".*github\.event\.repository.*", without_comments(workflow))

    assert [line for line in asking if "inputs." not in line] == []


def test_what_tells_reads_small_findings_alone_and_says_so_where_there_are_none() -> None:
    job = jobs(NIGHTLY)["tell"]

    assert re.findall(r"artifact-ids: (.*)", job) == ["${{ needs.merge.outputs.findings }}"]
    assert "- if: needs.merge.outputs.findings\n" in job
    assert "--platform h100 --write" in job
    assert re.findall(r"pip install.*", job) == ["pip install -q -c requirements/stable.txt msgspec"]
    assert "group: perf-issues\n      cancel-in-progress: false" in job


def test_a_token_is_given_to_single_steps_alone() -> None:
    for job in (jobs(NIGHTLY)["history"], jobs(NIGHTLY)["tell"], jobs(HEARTBEAT)["nights"]):
        assert "TOKEN" not in job.partition("    steps:\n")[0]
    (append,) = (step for step in jobs(NIGHTLY)["history"].split("      - ") if "tools/history.py" in step)
    assert "TOKEN" not in append


def test_a_night_is_measured_whatever_became_of_its_control() -> None:
    steps = {step.partition("\n")[0]: step for step in jobs(NIGHTLY)["h100"].split("      - name: ")}

    install = next(step for name, step in steps.items() if name.startswith("Install PyTorch nightly"))
    assert "if: ${{ !cancelled() }}\n" in install
    assert "if: ${{ !cancelled() && steps.nightly.outcome == 'success' }}\n" in steps["Measure"]
    assert "bf16-*" in steps["Measure the control"]
    assert list(steps).index("Measure the control") < list(steps).index("Measure")


def test_the_guide_lists_the_variables_that_workflows_read_and_no_others() -> None:
    guide = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    read = {
        name for path in WORKFLOWS for name in re.findall(r"\bvars\.(\w+)", path.read_text(encoding="utf-8"))
    }

    assert set(re.findall(r"^\| `(PERF_\w+)` \|", guide, flags=re.MULTILINE)) == read


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_workflows_need_no_secrets(workflow: Path) -> None:
    assert "secrets." not in without_comments(workflow)


def test_what_is_red_is_attributed_by_four_stacks_or_confirmed_by_the_recorded_one() -> None:
    job = jobs(NIGHTLY)["h100"]

    assert re.findall(r'echo "COMPARED=(--perf-[a-z]+)', job) == ["--perf-against", "--perf-stacks"]
    assert '${COMPARED:+"$COMPARED"}' in job


def calls() -> set[tuple[str, str, str]]:
    """Tool, subcommand and option of every call of a tool in a workflow that keeps or tells nights."""
    found = set()
    for workflow in (NIGHTLY, HEARTBEAT):
        for step in re.split(r"\n +- ", without_comments(workflow).replace("\\\n", " ")):
            lines = [
                line for line in step.splitlines() if re.search(r"tools/|(options|controls)\+?=\(", line)
            ]
            for tool, kind in re.findall(r"tools/(\w+)\.py(?: (build|prune|append) )?", step):
                own = [line for line in lines if "tools/" not in line or f"{tool}.py {kind}" in line]
                options = re.findall(r"(?<![\w-])--[a-z][a-z-]*", "\n".join(own))
                found |= {(tool, kind, option) for option in options}
    return found


@pytest.mark.parametrize("call", sorted({(tool, kind) for tool, kind, _ in calls()}), ids=" ".join)
def test_tools_know_the_options_that_workflows_give_them(
    call: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    tool, kind = call
    main = runpy.run_path(str(ROOT / "tools" / f"{tool}.py"))["main"]
    with pytest.raises(SystemExit):
        main([*filter(None, (kind,)), "--help"])
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))

    given = {option for *of, option in calls() if tuple(of) == call}
    assert given
    assert given <= known


# The branch of the nights


def run(remote: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "NIGHTS_REMOTE": f"file://{remote}", "HOME": str(remote)}
    return subprocess.run((SCRIPT, *arguments), env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    folder = tmp_path / "remote"
    subprocess.run(("git", "init", "--quiet", "--bare", str(folder)), check=True)
    return folder


def test_nights_are_added_to_a_branch_that_the_first_one_makes(tmp_path: Path, remote: Path) -> None:
    for day in (1, 2):
        folder = tmp_path / str(day)
        fetched = run(remote, "fetch", str(folder))
        assert fetched.returncode == 0, fetched.stderr
        assert ("this is the first night" in fetched.stdout) is (day == 1)
        (folder / f"{day}.jsonl.gz").write_text("a night")
        pushed = run(remote, "push", str(folder), f"night {day}")
        assert pushed.returncode == 0, pushed.stderr

    assert git(remote, "ls-tree", "--name-only", "perf-history").split() == ["1.jsonl.gz", "2.jsonl.gz"]
    assert git(remote, "log", "--format=%s", "perf-history").split("\n") == ["night 2", "night 1"]


def test_a_night_that_is_kept_already_adds_nothing(tmp_path: Path, remote: Path) -> None:
    for name in ("first", "second"):
        folder = tmp_path / name
        run(remote, "fetch", str(folder))
        (folder / "1.jsonl.gz").write_text("a night")
        pushed = run(remote, "push", str(folder), "night 1")
        assert pushed.returncode == 0, pushed.stderr
    assert "on record already" in pushed.stdout
    assert git(remote, "rev-list", "--count", "perf-history") == "1"


def test_a_remote_that_does_not_answer_is_no_first_night(tmp_path: Path) -> None:
    fetched = run(tmp_path / "nowhere", "fetch", str(tmp_path / "folder"))
    assert fetched.returncode != 0
    assert "first night" not in fetched.stdout


@pytest.mark.parametrize("arguments", [(), ("fetch",), ("push", "folder"), ("pull", "folder")])
def test_anything_else_prints_how_it_is_used(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert ".ci/nights fetch FOLDER" in done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_no_artifact_is_asked_for_by_the_attempt(workflow: Path) -> None:
    """Repeating the failed jobs is another attempt, and what the green ones uploaded is of an earlier one."""
    for job in jobs(workflow).values():
        steps = [step for step in job.split("      - ") if "actions/download-artifact@" in step]
        assert [step for step in steps if "run_attempt" in step] == []


def test_a_repeated_job_that_publishes_uploads_another_name() -> None:
    """Of one name there may be only one artifact for Pages in a run, all of its attempts together."""
    night = jobs(NIGHTLY)

    assert "name: github-pages-${{ github.run_attempt }}" in night["site"]
    assert "pages: github-pages-${{ github.run_attempt }}" in night["site"]
    assert "artifact_name: ${{ needs.site.outputs.pages }}" in night["publish"]


@pytest.mark.parametrize("workflow", [NIGHTLY, RECORD], ids=lambda workflow: workflow.name)
def test_what_waits_for_the_cards_waits_in_a_queue(workflow: Path) -> None:
    """By default the next one to wait takes the place of the one that waits."""
    group = without_comments(workflow).partition("\nconcurrency:\n")[2].partition("\n\n")[0]

    assert [line.strip() for line in group.splitlines()[1:]] == ["cancel-in-progress: false", "queue: max"]
