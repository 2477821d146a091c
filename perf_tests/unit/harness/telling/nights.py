"""NightFindings of made-up nights, and issues that change as GitHub's would."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from perf_tests.harness.records.attributions import Blame
from perf_tests.harness.runs.record import Status
from perf_tests.harness.telling.actions import Action, ActionKind
from perf_tests.harness.telling.findings import CASES, CaseOutcome, MemberChange, NightFindings, RedCause
from perf_tests.harness.telling.issues import LABEL, ApiIssue, ApiLabel

FP8 = "flux1-dev-b1-fp8dqrow-regional"
FP8_B4 = "flux1-dev-b4-fp8dqrow-regional"
INT8 = "flux1-dev-b1-int8wo-eager"
BF16 = "flux1-dev-b1-bf16-eager"
STEP = "denoise_step_ms"
ALL = (FP8, FP8_B4, INT8, BF16, *[each for each in CASES if each.startswith("sd3-medium")][:16])


def cause(*case_ids: str, metric: str = STEP, blame: Blame | None = None) -> RedCause:
    recipe = CASES[case_ids[0]].build.recipe
    return RedCause(
        platform="h100",
        scheme=recipe.scheme.id,
        compile=recipe.compile.value,
        metric=metric,
        status=Status.REGRESSED,
        members=tuple(MemberChange(case=each, change_pct=1.5) for each in case_ids),
        blame=blame,
    )


def night(
    day: int,
    *causes: RedCause,
    measured: Iterable[str] = ALL,
    recorded: str = "2026-01-01",
    counts: bool = True,
) -> NightFindings:
    red = {member.case: each.metric for each in causes for member in each.members}
    return NightFindings(
        format_version=1,
        night=f"2026-11-{day:02}",
        run=f"{day}-1",
        counts=counts,
        packages={"torch": f"2.15.0.dev202611{day:02}"},
        commits={"suite": "0123456789abcdef"},
        causes=causes,
        outcomes=tuple(
            CaseOutcome(
                case=each,
                platform="h100",
                measured=each in set(measured),
                red=(red[each],) if each in red else (),
                baseline_of=recorded,
            )
            for each in ALL
        ),
    )


class Repository:
    """Issues, changed by actions as the API would."""

    def __init__(self) -> None:
        self.issues: list[ApiIssue] = []
        self.comments: list[str] = []

    def apply(self, actions: Sequence[Action], day: int) -> list[str]:
        """What was done, as `kind #number`."""
        for action in actions:
            if action.kind is ActionKind.CREATE:
                labels, number = (ApiLabel(name=LABEL),), len(self.issues) + 1
                made = ApiIssue(
                    number=number, state="open", title=action.title, body=action.body, labels=labels
                )
                self.issues.append(made)
                continue
            issue = next(each for each in self.issues if each.number == action.number)
            issue.body = action.body or issue.body
            if action.kind is ActionKind.CLOSE:
                issue.state, issue.closed_at = "closed", f"2026-11-{day:02}T03:00:00Z"
            elif action.kind is ActionKind.REOPEN:
                issue.state, issue.closed_at = "open", None
            self.comments += [action.comment] * bool(action.comment)
        return [f"{each.kind} {each.number or each.title}" for each in actions]
