"""The files around the code: what README, workflows, pyproject and the constraint file promise."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SET_UP = "python3.11 -m venv .venv && .venv/bin/pip install -q -c requirements/stable.txt -e '.[dev]'"
CONSTRAINTS = sorted((ROOT / "requirements").glob("*.txt"))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
each_constraints = pytest.mark.parametrize("constraints", CONSTRAINTS, ids=lambda path: path.name)
OURSELVES = "diffusion-perf-tests"


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def declared() -> list[Requirement]:
    project, groups = pyproject()["project"], pyproject()["dependency-groups"]
    further = (*project["optional-dependencies"].values(), *groups.values())
    lines = (*project["dependencies"], *(line for group in further for line in group))
    return [Requirement(line) for line in lines]


def pins(constraints: Path) -> list[str]:
    lines = constraints.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def without_comments(workflow: Path) -> str:
    return re.sub(r"(^|[ \t])#.*", "", workflow.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_readme_begins_with_the_commands_of_the_main_job_and_the_tests() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    blocks = re.findall(r"```bash\n(.*?)```", readme, flags=re.DOTALL)

    assert blocks[:2] == [
        f"{SET_UP} && .venv/bin/pytest -m cpu\n",
        f"{SET_UP} && .venv/bin/pytest perf_tests/unit\n",
    ]


def test_readme_says_what_is_caught_before_the_first_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert 0 < readme.index("It catches") < readme.index("```bash")
    assert len(readme.splitlines()) < 200


@each_constraints
def test_pins_are_exact(constraints: Path) -> None:
    inexact = [
        line for line in pins(constraints) if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)
    ]

    assert inexact == []


@each_constraints
def test_dependencies_are_pinned_to_versions_that_their_bounds_allow(constraints: Path) -> None:
    lines = (line.split("==") for line in pins(constraints))
    pinned = {canonicalize_name(name): version for name, version in lines}
    wrong = [
        str(requirement)
        for requirement in declared()
        if requirement.name != OURSELVES
        and not requirement.specifier.contains(pinned.get(canonicalize_name(requirement.name), "0"))
    ]

    assert wrong == []


def test_unit_group_bounds_its_packages_as_the_project_does_and_has_none_of_the_stack() -> None:
    group = pyproject()["dependency-groups"]["unit"]
    bounds = pyproject()["project"]["dependencies"]

    of_tests = {"jsonschema>=4.23", "pytest-randomly>=5", "pytest-rerunfailures>=16", "pytest-xdist>=3.8"}
    assert set(group) - set(bounds) == of_tests
    assert {Requirement(line).name for line in group} & {
        "torch",
        "torchao",
        "diffusers",
        "transformers",
    } == set()


@each_constraints
def test_dependencies_are_pinned_once(constraints: Path) -> None:
    names = [canonicalize_name(line.split("==")[0]) for line in pins(constraints)]

    assert len(names) == len(set(names))


def jobs(workflow: Path) -> dict[str, str]:
    """Job -> its text."""
    parts = re.split(
        r"^  ([\w-]+):\n", without_comments(workflow).partition("\njobs:\n")[2], flags=re.MULTILINE
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_workflows_check_pull_requests_measure_nights_and_record() -> None:
    names = [workflow.name for workflow in WORKFLOWS]

    assert names == ["check.yml", "heartbeat.yml", "nightly.yml", "record.yml"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_self_hosted_runner_never_runs_pull_requests(workflow: Path) -> None:
    text = without_comments(workflow)

    assert not ("self-hosted" in text and "pull_request" in text)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_actions_are_pinned_by_commit(workflow: Path) -> None:
    actions = re.findall(r"uses:\s*(\S+)", without_comments(workflow))

    assert actions
    assert [action for action in actions if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action)] == []


ELEVATED = {
    "heartbeat.yml": {"nights"},
    "nightly.yml": {"history", "tell", "site", "publish"},
    "record.yml": {"propose"},
}
"""Workflow -> its jobs that may do more than read the repository, on hosted runners."""


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_workflow_reads_the_repository_and_writes_only_where_it_opens_a_pull_request(workflow: Path) -> None:
    text = without_comments(workflow)
    elevated = {name: job for name, job in jobs(workflow).items() if "permissions:" in job}

    assert re.findall(r"^permissions:\n((?:[ ]+.*\n)+)", text, flags=re.MULTILINE) == ["  contents: read\n"]
    assert set(elevated) == ELEVATED.get(workflow.name, set())
    assert not [name for name, job in elevated.items() if "runs-on: ubuntu-latest" not in job]
    assert not [name for name, job in jobs(workflow).items() if "self-hosted" in job and "TOKEN" in job]
    assert text.count("persist-credentials: false") == text.count("actions/checkout@")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_shell_scripts_contain_no_expressions(workflow: Path) -> None:
    scripts = re.findall(r"run: (?:\|\n((?:[ ]{10}.*\n|\n)+)|(.*)\n)", without_comments(workflow))

    assert scripts
    assert [script for script in scripts if "${{" in "".join(script)] == []


def test_check_runs_the_tests_without_torch_on_every_supported_python() -> None:
    check = without_comments(ROOT / ".github/workflows/check.yml")

    assert pyproject()["project"]["requires-python"] == ">=3.11"
    assert 'python: ["3.11", "3.12", "3.13"]' in check
    assert 'pytest perf_tests/unit -m "not torch"' in check


def test_nightly_uploads_the_page_of_the_whole_and_links_it() -> None:
    merge = jobs(ROOT / ".github/workflows/nightly.yml")["merge"]
    steps = merge.split("      - ")

    (link,) = (step for step in steps if "GITHUB_STEP_SUMMARY" in step)
    assert "URL: ${{ steps.night.outputs.artifact-url }}" in link
    (upload,) = (step for step in steps if "id: night\n" in step)
    assert "actions/upload-artifact" in upload
    assert steps.index(upload) < steps.index(link)


def test_what_publishes_nights_runs_nothing_of_ours_and_only_where_somebody_asked() -> None:
    site, publish = (jobs(ROOT / ".github/workflows/nightly.yml")[name] for name in ("site", "publish"))

    rights = r"    permissions:\n((?:      .*\n)+)"
    assert re.findall(rights, publish) == ["      id-token: write\n      pages: write\n"]
    assert re.findall(rights, site) == ["      actions: read\n      contents: read\n"]
    assert re.findall(r"uses: (\S+?)@|run:", publish) == ["actions/deploy-pages"]
    assert "needs: site" in publish
    assert "needs.site.result == 'success'" in publish
    assert "(github.event_name == 'schedule' && vars.PERF_PUBLISH == 'true')" in site
    assert "(inputs.publish && github.ref_name == github.event.repository.default_branch)" in site


def test_nightly_measures_on_its_gpu_or_fails_and_keeps_the_run() -> None:
    nightly = without_comments(ROOT / ".github/workflows/nightly.yml")

    assert "cancel-in-progress: false" in nightly
    assert 'pytest" -m "h100 and not unrecorded" --perf-require-gpu --perf-out' in nightly
    assert "--perf-gpus=all" in nightly
    uploads = re.findall(r"actions/upload-artifact@.*?retention-days", nightly, flags=re.DOTALL)
    assert len(uploads) == 5
    assert all("if-no-files-found: error" in upload for upload in uploads)


def test_an_expired_known_issue_is_red_at_night_and_a_warning_for_a_pull_request() -> None:
    night = jobs(ROOT / ".github/workflows/nightly.yml")["cross-product"]
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    assert "if: always()\n        run: python tools/known_issues.py --strict\n" in night
    assert '"known issues" python tools/known_issues.py\n' in checks


def test_what_workflows_upload_is_packed_and_nights_upload_less_than_100_mb() -> None:
    workflows = ROOT / ".github" / "workflows"
    nightly, record = (without_comments(workflows / name) for name in ("nightly.yml", "record.yml"))
    limits_mb = [int(limit) for limit in re.findall(r"--limit-mb (?:\$\(\()?(\d+)", nightly)]

    assert limits_mb == [5, 45, 45, 5]  # of the control, all parts together, the whole, and the cross product
    for workflow in (nightly, record):
        paths = re.findall(r"actions/upload-artifact@.*?\n +path: (.*?)\n", workflow, flags=re.DOTALL)
        packed = set(re.findall(r'--out "\$RUNNER_TEMP/(upload[\w-]*)"', workflow))
        assert {path.removeprefix("${{ runner.temp }}/") for path in paths} - {"told"} == packed


def test_time_of_a_night_exceeds_its_budgets_by_80_minutes() -> None:
    job = jobs(ROOT / ".github/workflows/nightly.yml")["h100"]

    assert "timeout-minutes: 330" in job
    assert re.findall(r"--perf-budget=(\w+)", job) == ["10m", "4h"]


@pytest.mark.parametrize("workflow", WORKFLOWS[1:], ids=lambda workflow: workflow.name)
def test_workflow_with_a_gpu_runs_nowhere_until_somebody_switches_it_on(workflow: Path) -> None:
    text = without_comments(workflow)
    switched = [job for job in jobs(workflow).values() if "github.repository == vars.PERF_REPOSITORY" in job]
    following = [
        job for job in jobs(workflow).values() if re.search(r"^    needs: ", job, flags=re.MULTILINE)
    ]

    assert len({*switched, *following}) == len(jobs(workflow))
    assert not re.search(r"^  (push|pull_request\w*|workflow_run):", text, flags=re.MULTILINE)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_workflow_names_files_and_options_that_exist(workflow: Path) -> None:
    text = without_comments(workflow)
    named = set(re.findall(r"(?<![\w/.$}-])((?:tools|\.ci|requirements|perf_tests)/[\w./-]+)", text))
    sources = "\n".join(source.read_text(encoding="utf-8") for source in SOURCES)

    assert named
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
    assert sorted(name for name in re.findall(r"--perf-[a-z-]+", text) if name not in sources) == []


# What the guides name


GUIDES = [ROOT / ".github" / "CONTRIBUTING.md", ROOT / "perf_tests" / "README.md"]
each_guide = pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
SOURCES = [*(ROOT / "perf_tests").rglob("*.py"), *(ROOT / "tools").glob("*.py")]


def quoted(guide: Path) -> str:
    """Everything in backticks, code blocks included."""
    text = guide.read_text(encoding="utf-8")
    return "\n".join(re.findall(r"```\w*\n.*?```|`[^`]+`", text, flags=re.DOTALL))


def exists(path: str) -> bool:
    """From the root, from perf_tests/, or, of a file without a folder, next to others of its kind."""
    found = any((base / path).exists() for base in (ROOT, ROOT / "perf_tests"))
    return found or ("/" not in path and any(source.name == path for source in SOURCES))


@each_guide
def test_guide_names_files_that_exist(guide: Path) -> None:
    path = r"(?<![\w./*-])((?:\.?[\w-]+/)+[\w.-]*|[\w-]+\.(?:py|md|toml))(?![\w*])"
    named = {name for name in re.findall(path, quoted(guide)) if not name.startswith((".venv/", ".perf/"))}
    own = {name for name in named if not name.startswith("perf-tests/")}  # made-up repositories of miniatures

    assert len(own) > 15
    assert sorted(name for name in own if not exists(name)) == []


@each_guide
def test_guide_names_constants_and_options_that_exist(guide: Path) -> None:
    text = quoted(guide)
    sources = "\n".join(source.read_text(encoding="utf-8") for source in (*SOURCES, *WORKFLOWS))
    placeholders = {"ITS_ROW"}
    names = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b|--perf-[a-z-]+", text)) - placeholders

    assert sorted(name for name in names if name not in sources) == []


def test_guide_to_the_packages_has_a_short_glossary() -> None:
    text = (ROOT / "perf_tests" / "README.md").read_text(encoding="utf-8")
    terms = text.partition("## Glossary")[2].strip().splitlines()

    assert len(terms) <= 40
    assert terms == sorted(terms, key=lambda term: term.partition("**")[2].lower().replace("/", ""))
    assert len(text.splitlines()) <= 150
