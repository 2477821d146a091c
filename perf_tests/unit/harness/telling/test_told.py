"""Nights as their job tells them: `tools/tell.py --write` against a server that answers as GitHub's API."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perf_tests.harness.telling import findings
from perf_tests.harness.telling.findings import NightFindings
from perf_tests.unit.conftest import ROOT
from perf_tests.unit.harness.telling import fake_github
from perf_tests.unit.harness.telling.conftest import JobOf
from perf_tests.unit.harness.telling.fake_github import FakeGitHub, Fault
from perf_tests.unit.harness.telling.nights import ALL, BF16, FP8, INT8, cause, night

main: Callable[..., int] = runpy.run_path(str(ROOT / "tools" / "tell.py"))["main"]
BUDGET = tuple(each for each in ALL if each != FP8)
"""All but one case: the time did not suffice for it."""
FP8_TITLE = "Performance: fp8dqrow regional on h100: denoise_step_ms regressed"
INT8_TITLE = "Performance: int8wo eager on h100: denoise_step_ms regressed"


class Telling:
    """The job `tell` of one night after the other."""

    def __init__(
        self, github: FakeGitHub, job_of: JobOf, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.github = github
        self.err = ""
        self._job_of = job_of
        self._file = folder / "findings.json"
        self._control = folder / "control.json"
        self._capsys = capsys

    def tell(self, told: NightFindings, *options: str, control: NightFindings | None = None) -> list[str]:
        """What the job of a night said that it did."""
        self._file.write_bytes(findings.dumps(told))
        if control:
            self._control.write_bytes(findings.dumps(control))
            options = (*options, "--control", str(self._control))
        assert self.run(int(told.night[-2:]), *(options or ("--write",))) == 0, self.err
        return self.out

    def run(self, day: int, *options: str, content: bytes | None = None, **environ: str) -> int:
        """The exit code of the job of a day in November."""
        if content is not None:
            self._file.write_bytes(content)
        code = main([str(self._file), *options], self._job_of(day, **environ))
        said = self._capsys.readouterr()
        self.out, self.err = said.out.splitlines(), said.err
        return code


@pytest.fixture
def telling(github: FakeGitHub, job_of: JobOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Telling:
    return Telling(github, job_of, tmp_path, capsys)


def test_nights_become_the_right_issues(telling: Telling, github: FakeGitHub) -> None:
    assert telling.tell(night(1, cause(FP8))) == [f"create #1 {FP8_TITLE}"]
    assert telling.tell(night(2, cause(FP8))) == [f"update #1 {FP8_TITLE}"]
    assert telling.tell(night(3, cause(INT8))) == [f"create #2 {INT8_TITLE}", f"update #1 {FP8_TITLE}"]
    assert telling.tell(night(4, measured=BUDGET)) == [f"update #1 {FP8_TITLE}", f"update #2 {INT8_TITLE}"]
    telling.tell(night(5))
    assert github.states == ["open", "open"]
    assert telling.tell(night(6)) == [f"close #1 {FP8_TITLE}", f"close #2 {INT8_TITLE}"]
    assert github.states == ["closed", "closed"]
    assert telling.tell(night(7)) == ["nothing to tell"]
    assert telling.tell(night(8, cause(FP8))) == [f"reopen #1 {FP8_TITLE}"]
    assert github.states == ["open", "closed"]
    assert github.said(1) == [
        "Green in 3 nights, the last one that of 2026-11-06.",
        "Red again in the night of 2026-11-08.",
    ]
    assert "`RRg-ggR`" in github.issues[0]["body"]
    assert (
        "[The run, with its page and its logs](https://github.com/octo/perf/actions/runs/8)"
        in (github.issues[0]["body"])
    )
    assert github.tokens == {"Bearer s3cret"}
    assert github.labels == {"bug", "perf-nightly"}


def test_the_same_night_again_changes_nothing(telling: Telling, github: FakeGitHub) -> None:
    for told in (night(1, cause(FP8)), night(2, cause(FP8)), night(3, cause(INT8)), night(4), night(5)):
        telling.tell(told)
        assert telling.tell(told) == ["nothing to tell"]
        assert github.changes == []
    assert len(github.issues) == 2


def test_a_dry_run_prints_everything_and_changes_nothing(telling: Telling, github: FakeGitHub) -> None:
    telling.tell(night(1, cause(INT8)), "--platform", "h100")
    assert telling.out[0] == f'create "{INT8_TITLE}"'
    assert any(line.startswith(f"| `{INT8}` | +1.50 %") for line in telling.out)
    assert github.changes == []
    assert github.issues == []


def test_only_issues_with_our_label_and_mark_are_ours(telling: Telling, github: FakeGitHub) -> None:
    telling.tell(night(1, cause(FP8)))
    body = github.issues[0]["body"]
    for stranger in (
        github.seed(FP8_TITLE),
        github.seed(FP8_TITLE, labels=("perf-nightly",)),
        github.seed("a pull request", labels=("perf-nightly",), pull_request=True),
    ):
        stranger["body"] = "by hand" if not stranger.get("pull_request") else body
    before = json.dumps(github.issues[1:])
    assert telling.tell(night(2, cause(FP8))) == [f"update #1 {FP8_TITLE}"]
    assert json.dumps(github.issues[1:]) == before


def test_an_issue_is_found_on_the_second_page(telling: Telling, github: FakeGitHub) -> None:
    telling.tell(night(1, cause(FP8)))
    for count in range(5):
        github.seed(f"filed by hand {count}", labels=("perf-nightly",))
    github.page_size = 2
    assert telling.tell(night(2, cause(FP8))) == [f"update #1 {FP8_TITLE}"]
    assert github.asked.count("GET /repos/octo/perf/issues") == 4  # three pages of open ones, none closed


def test_a_red_control_blames_the_machine_in_one_issue(telling: Telling, github: FakeGitHub) -> None:
    said = telling.tell(night(1, cause(FP8)), "--write", control=night(1, cause(BF16)))
    assert said == ["create #1 Performance: the host or the stack as a whole on h100"]
    assert "bf16 is red with the stack of the baselines" in github.issues[0]["body"]
    for day in (2, 3, 4):
        telling.tell(night(day), "--write", control=night(day))
    assert github.states == ["closed"]


def test_a_control_that_was_not_measured_is_told(telling: Telling, github: FakeGitHub) -> None:
    without = [each for each in ALL if each != BF16]
    telling.tell(night(1, cause(FP8)), "--write", control=night(1, measured=without))
    assert (
        f"The control (bf16 with the stack of the baselines) was not measured: `{BF16}`. So nobody knows "
        "whether the machine is to blame."
    ) in github.issues[0]["body"]
    telling.tell(night(2, cause(FP8)), "--write", control=night(2))
    assert "The control" not in github.issues[0]["body"]


def test_a_red_control_leaves_no_doubt_about_the_machine(telling: Telling, github: FakeGitHub) -> None:
    without = [each for each in ALL if each != INT8]
    telling.tell(night(1, cause(FP8)), "--write", control=night(1, cause(BF16), measured=without))
    assert "bf16 is red with the stack of the baselines" in github.issues[0]["body"]
    assert "nobody knows" not in github.issues[0]["body"]


def test_a_night_whose_control_left_nothing_says_so(telling: Telling, github: FakeGitHub) -> None:
    """Where its stack could not be installed, there is no file of it at all."""
    telling.tell(night(1, cause(FP8)), "--write")
    assert (
        "No control (bf16 with the stack of the baselines) was measured. So nobody knows whether the machine "
        "is to blame."
    ) in github.issues[0]["body"]


def test_a_control_is_red_in_a_green_night(telling: Telling) -> None:
    said = telling.tell(night(1), "--write", control=night(1, cause(BF16)))
    assert said == ["create #1 Performance: the host or the stack as a whole on h100"]


# Nights that do not measure


def test_a_night_without_findings_is_told_until_one_measures(telling: Telling, github: FakeGitHub) -> None:
    unmeasured = "Performance: the nightly on h100 does not measure"
    assert telling.run(1, "--write", "--platform", "h100") == 0
    assert telling.out == [f"create #1 {unmeasured}"]
    assert "The night of 2026-11-01 left no findings" in github.issues[0]["body"]
    assert telling.run(1, "--write", "--platform", "h100") == 0
    assert telling.out == ["nothing to tell"]
    assert telling.tell(night(2, measured=ALL[:3])) == [f"update #1 {unmeasured}"]
    assert f"Of {len(ALL)} cases of the night of 2026-11-02, 3 were measured." in github.issues[0]["body"]
    assert telling.tell(night(3)) == [f"close #1 {unmeasured}"]
    assert github.said(1) == [f"The night of 2026-11-03 measured {len(ALL)} of {len(ALL)} cases."]
    assert telling.tell(night(4, measured=())) == [f"reopen #1 {unmeasured}"]


def test_a_night_without_findings_leaves_the_issues_of_causes_alone(
    telling: Telling, github: FakeGitHub, tmp_path: Path
) -> None:
    telling.tell(night(1, cause(FP8)))
    (tmp_path / "findings.json").unlink()
    telling.run(2, "--write", "--platform", "h100")
    assert "`R`" in github.issues[0]["body"]
    assert github.states == ["open", "open"]


def test_findings_are_of_the_platform_that_was_asked_for(telling: Telling, github: FakeGitHub) -> None:
    assert telling.run(1, "--platform", "h200", content=findings.dumps(night(1))) == 2
    assert "is of h100, not of h200: nothing is told" in telling.err
    assert telling.run(1, "--platform", "h9000") == 2
    assert "--platform 'h9000': there is no such platform" in telling.err
    assert github.asked == []


# Findings of others


@pytest.mark.parametrize(
    ("day", "content", "why"),
    [
        (2, findings.dumps(night(1)), "findings are of run 1-1, and this is run 2"),
        (1, findings.dumps(night(9)).replace(b"9-1", b"1-1"), "night of 2026-11-09, and today is 2026-11-01"),
        (9, findings.dumps(night(1)).replace(b"1-1", b"9-1"), "nothing is told more than 3 days later"),
        (1, b'{"night": "@everyone"}', "the findings cannot be trusted"),
    ],
    ids=["of another run", "of a day to come", "of a day long past", "hostile"],
)
def test_findings_that_are_not_of_this_night_change_nothing(
    telling: Telling, github: FakeGitHub, day: int, content: bytes, why: str
) -> None:
    assert telling.run(day, "--write", content=content) == 2
    assert why in telling.err
    assert github.changes == []


def test_a_control_of_another_run_changes_nothing(
    telling: Telling, github: FakeGitHub, tmp_path: Path
) -> None:
    control = tmp_path / "control.json"
    control.write_bytes(findings.dumps(night(2, cause(BF16))))
    content = findings.dumps(night(1, cause(FP8)))
    assert telling.run(1, "--write", "--control", str(control), content=content) == 2
    assert "findings are of run 2-1, and this is run 1" in telling.err
    assert github.changes == []


def test_a_hostile_control_changes_nothing(telling: Telling, github: FakeGitHub, tmp_path: Path) -> None:
    hostile = tmp_path / "control.json"
    hostile.write_text("[]")
    content = findings.dumps(night(1, cause(FP8)))
    assert telling.run(1, "--write", "--control", str(hostile), content=content) == 2
    assert "cannot be trusted" in telling.err
    assert github.asked == []


# An API in trouble


@pytest.mark.parametrize(
    "answer",
    [fake_github.BAD_GATEWAY, fake_github.TRUNCATED, (0, {}, b"")],
    ids=["502", "a truncated body", "hung up"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_a_request_without_an_answer_is_made_again(
    telling: Telling, github: FakeGitHub, slept_s: list[float], method: str, answer: fake_github.Answer
) -> None:
    telling.tell(night(1, cause(INT8)))
    github.faults = [Fault(method, answer), Fault(method, answer)]
    telling.tell(night(2, cause(INT8), cause(FP8)))
    assert [issue["title"] for issue in github.issues] == [INT8_TITLE, FP8_TITLE]
    assert "`RR`" in github.issues[0]["body"]
    assert [each for each in slept_s if each in (4.0, 16.0)] == [4.0]


def test_an_issue_whose_answer_was_lost_is_not_opened_twice(telling: Telling, github: FakeGitHub) -> None:
    github.labels.add("perf-nightly")
    github.faults = [Fault("POST", fake_github.BAD_GATEWAY, is_carried_out=True)]
    assert telling.tell(night(1, cause(FP8))) == [f"create #1 {FP8_TITLE}"]
    assert len(github.issues) == 1


def test_a_comment_whose_answer_was_lost_is_not_made_twice(telling: Telling, github: FakeGitHub) -> None:
    for day in (2, 3):
        telling.tell(night(1, cause(FP8)) if day == 2 else night(2))
    telling.tell(night(3))
    github.faults = [Fault("POST", (0, {}, b""), is_carried_out=True)]
    assert telling.tell(night(4)) == [f"close #1 {FP8_TITLE}"]
    assert github.said(1) == ["Green in 3 nights, the last one that of 2026-11-04."]


def test_what_was_interrupted_goes_on_where_it_ended(telling: Telling, github: FakeGitHub) -> None:
    for told in (night(1, cause(FP8)), night(2), night(3)):
        telling.tell(told)
    github.faults = [Fault("PATCH", fake_github.INVALID)]
    assert telling.run(4, "--write", content=findings.dumps(night(4))) == 2
    assert github.states == ["open"]
    assert telling.tell(night(4)) == [f"close #1 {FP8_TITLE}"]
    assert len(github.said(1)) == 1


def test_a_server_that_stays_in_trouble_is_one_error(
    telling: Telling, github: FakeGitHub, slept_s: list[float]
) -> None:
    github.faults = [Fault("GET", fake_github.BAD_GATEWAY)] * 4
    assert telling.run(1, "--write", content=findings.dumps(night(1, cause(FP8)))) == 2
    assert telling.err == ("tell: GET /repos/octo/perf/issues: 502, asked 4 times: run this job again\n")
    assert slept_s == [1.0, 4.0, 16.0]
    assert github.changes == []


REFUSALS = {
    "403": (fake_github.FORBIDDEN, "403 (Resource not accessible by integration); the token may not do this"),
    "404": (fake_github.NOT_FOUND, "404 (Not Found); for this token there is no such thing"),
    "422": (fake_github.INVALID, "422 (Validation Failed); the content is refused"),
    "410": ((410, {}, b'{"message": "Issues are disabled for this repo"}'), "issues are switched off"),
    "401": ((401, {}, b'{"message": "Bad credentials"}'), "the token is not accepted"),
    "a redirect": (
        fake_github.MOVED,
        "301 (Moved Permanently); nothing else answers so: check GITHUB_API_URL",
    ),
}


@pytest.mark.parametrize(("answer", "why"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_a_refusal_is_one_clear_error_and_not_asked_again(
    telling: Telling,
    github: FakeGitHub,
    slept_s: list[float],
    method: str,
    answer: fake_github.Answer,
    why: str,
) -> None:
    telling.tell(night(1, cause(FP8)))
    slept_s.clear()
    github.faults = [Fault(method, answer)]
    assert telling.run(2, "--write", content=findings.dumps(night(2, cause(FP8)))) == 2
    assert why in telling.err
    assert telling.err.count("\n") == 1
    assert "s3cret" not in telling.err
    assert github.faults == []
    assert slept_s == [1.0] * (method == "PATCH")


def test_what_a_server_says_is_shown_and_not_obeyed(telling: Telling, github: FakeGitHub) -> None:
    said = '{"message": "\\u001b]0;owned\\u0007' + "x" * 500 + '"}'
    github.faults = [Fault("GET", (422, {}, said.encode()))]
    assert telling.run(1, "--write", content=findings.dumps(night(1))) == 2
    assert "\x1b" not in telling.err
    assert len(telling.err) < 400


def test_requests_wait_for_as_long_as_the_limit_asks(
    telling: Telling, github: FakeGitHub, slept_s: list[float]
) -> None:
    github.faults = [
        Fault("GET", (429, {"Retry-After": "7"}, b'{"message": "too many"}')),
        Fault("GET", (403, {}, b'{"message": "You have exceeded a secondary rate limit."}')),
    ]
    assert telling.tell(night(1)) == ["nothing to tell"]
    assert slept_s == [7.0, 60.0]


def test_a_limit_that_lasts_ends_the_job(telling: Telling, github: FakeGitHub, slept_s: list[float]) -> None:
    status, headers, body = fake_github.RATE_LIMITED
    github.faults = [Fault("GET", (status, {**headers, "X-RateLimit-Reset": "99999999999"}, body))]
    assert telling.run(1, "--write", content=findings.dumps(night(1))) == 2
    assert "of patience: run this job later" in telling.err
    assert slept_s == []


def test_an_issue_that_loses_its_label_is_an_error(telling: Telling, github: FakeGitHub) -> None:
    github.drops_labels = True
    assert telling.run(1, "--write", content=findings.dumps(night(1, cause(FP8)))) == 2
    assert "issue 1 was opened without the label perf-nightly" in telling.err


# The environment


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"GITHUB_TOKEN": ""}, "--write needs a token: set GITHUB_TOKEN"),
        ({"GITHUB_REPOSITORY": "../../etc"}, "set it to owner/name"),
        ({"GITHUB_REPOSITORY": ""}, "set it to owner/name"),
        ({"GITHUB_API_URL": "http://api.github.com"}, "a token is sent over https only"),
        ({"GITHUB_API_URL": "file:///etc/passwd"}, "a token is sent over https only"),
        ({"GITHUB_API_URL": "file://localhost/etc/passwd"}, "a token is sent over https only"),
    ],
)
def test_an_environment_that_cannot_be_followed_is_refused(
    telling: Telling, github: FakeGitHub, environ: dict[str, str], why: str
) -> None:
    assert telling.run(1, "--write", content=findings.dumps(night(1)), **environ) == 2
    assert why in telling.err
    assert github.asked == []


def test_a_next_page_elsewhere_is_not_asked(telling: Telling, github: FakeGitHub) -> None:
    link = {"Link": '<https://evil.example/issues?page=2>; rel="next"'}
    github.faults = [Fault("GET", (200, link, b"[]"))]
    assert telling.run(1, "--write", content=findings.dumps(night(1))) == 2
    assert "names a next page elsewhere" in telling.err


@pytest.mark.parametrize("tool", ["tell", "heartbeat"])
def test_the_job_installs_msgspec_and_nothing_else(tool: str) -> None:
    listing = (
        # A system's Python may have imported things of its own by then.
        "import runpy, sys; ours = {'perf_tests', 'msgspec', *sys.modules}; "
        f"runpy.run_path({str(ROOT / 'tools' / f'{tool}.py')!r}); "
        "named = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - ours; "
        "print(*sorted(each for each in named if not each.startswith('_')))"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-c", listing], check=True, capture_output=True, text=True
    ).stdout.split()
    assert set(found) <= {"typing_extensions"}  # which msgspec reads where it is installed
