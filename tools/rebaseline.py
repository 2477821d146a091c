"""Accept measured numbers as baselines, with a reason: diff, apply, review, check, rewrite, show."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import statistics
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TextIO

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.baselines import transaction
from perf_tests.harness.compare import readme_tables
from perf_tests.harness.rebaseline import candidates, store
from perf_tests.harness.rebaseline.pooling import Pool, pool
from perf_tests.harness.rebaseline.proposal import Change, Proposal, Terms, commit_message, propose, write
from perf_tests.harness.review import items, rejections
from perf_tests.harness.review.dialogue import Dialogue
from perf_tests.harness.review.items import ReviewItem
from perf_tests.harness.runs.record import Status
from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.tables.metrics.rows import UNITS
from perf_tests.tables.platforms import PLATFORM_BY_ID

SAME, CHANGED, REFUSED = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 no change or done, 1 `diff` found changes, 2 refused."""
    try:
        options = _parse(sys.argv[1:] if argv is None else argv)
        code: int = options.command(options)
    except PerfError as exc:
        print(f"rebaseline: {exc}", file=sys.stderr)
        return REFUSED
    return code


def diff(options: argparse.Namespace) -> int:
    """Print what accepting the run would change."""
    # What fewer processes would change is shown; only `apply` has to be told.
    terms = Terms(reason="", platform=options.platform, replace_settled=True)
    proposal = propose(
        _read(options), root=options.baselines, patterns=tuple(options.only or ("*",)), terms=terms
    )
    _print_proposal(proposal)
    if proposal.ineligible:
        return REFUSED
    return CHANGED if proposal.baselines else SAME


def apply(options: argparse.Namespace) -> int:
    """Print what accepting the run would change, and with --write change it."""
    if not options.only and not options.only_new:
        raise UsageError("apply needs --only GLOB: name the cases whose numbers are accepted")
    if not options.reason.strip():
        raise UsageError("apply needs --reason TEXT: say why the new numbers are right")
    # Until it is written: what another command writes meanwhile would be lost.
    with transaction.exclusive(options.baselines) if options.write else nullcontext():
        return _apply(options)


def _apply(options: argparse.Namespace) -> int:
    source = _read(options)
    terms = Terms(
        reason=options.reason,
        platform=options.platform,
        first_reason=options.new_first_reference,
        replace_settled=options.replace_settled,
    )
    patterns = _new(options, source) if options.only_new else tuple(options.only)
    proposal = propose(source, root=options.baselines, patterns=patterns, terms=terms)
    _print_proposal(proposal)
    if proposal.ineligible and not (options.eligible_only and proposal.baselines):
        print("rebaseline: nothing was written", file=sys.stderr)
        return REFUSED
    # Shown above, and left out.
    proposal = dataclasses.replace(proposal, ineligible=())
    if options.write:
        write(proposal)
        readme_tables.refresh(options.baselines)
    if proposal.baselines:
        said = "written; a commit message" if options.write else "nothing is written without --write"
        print(f"\n{said}:\n\n{commit_message(proposal, options.reason)}")
    return SAME


def review(options: argparse.Namespace) -> int:
    """Ask about each case that the run changes, the largest change first, and write what is accepted."""
    source = _read(options)
    terms = Terms(reason="", platform=options.platform, replace_settled=options.replace_settled)
    patterns = tuple(options.only or ("*",))
    proposal = propose(source, root=options.baselines, patterns=patterns, terms=terms)
    if options.metric is not None and options.metric not in UNITS:
        raise UsageError(f"--metric {options.metric!r} is no metric; they are {', '.join(sorted(UNITS))}")
    found = items.items(proposal, source, options.metric)
    _print_lines((f"rebaseline: not pooled: {each}" for each in proposal.left_out), sys.stderr)
    _print_lines((f"rebaseline: not eligible: {each}" for each in proposal.ineligible), sys.stderr)
    if options.markdown:
        print(items.as_markdown(found), end="")
        return SAME
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "review asks questions, and this is no terminal: `diff RUN` shows what would change, "
            "`review RUN --markdown` as a table for a pull request, and `apply RUN --only GLOB --reason TEXT "
            "--write` accepts it"
        )
    return _reviewed(options, source, found)


def _reviewed(options: argparse.Namespace, source: Pool, found: Sequence[ReviewItem]) -> int:
    folder = options.runs[0] if options.runs[0].is_dir() else options.runs[0].parent
    before = rejections.read(folder)
    asked = [item for item in found if before.get(item.case) != item.fingerprint]
    if already := len(found) - len(asked):
        print(f"{already} rejected before; to be asked again, remove {folder / rejections.REVIEW}")
    done = Dialogue(
        ask=input,
        say=print,
        accept=partial(_accept_reviewed, options, source),
        reject=partial(rejections.add, folder),
    ).review(asked)
    print(done.summary())
    if done.accepted:
        print(f"\nwritten; a commit message:\n\n{items.commit_message(done.accepted)}")
    return SAME


def _accept_reviewed(options: argparse.Namespace, source: Pool, item: ReviewItem, reason: str) -> str | None:
    """Write what was shown of `item`; why it was not, where the store has changed meanwhile."""
    terms = Terms(reason=reason, platform=options.platform, replace_settled=options.replace_settled)
    with transaction.exclusive(options.baselines):
        proposal = propose(source, root=options.baselines, patterns=(item.case,), terms=terms)
        if proposal.ineligible:
            return proposal.ineligible[0]
        now = items.items(proposal, source)
        if not now or now[0].changes != item.changes:
            return "the baseline has changed since it was shown: review the run again"
        write(proposal)
        readme_tables.refresh(options.baselines)
    return None


def _read(options: argparse.Namespace) -> Pool:
    return pool(tuple(candidates.read_run(path) for path in options.runs))


def _new(options: argparse.Namespace, source: Pool) -> tuple[str, ...]:
    """The ids of the cases, of those that `--only` names, that lack nothing but a baseline."""
    patterns = tuple(options.only or ("*",))
    new = tuple(
        run.id
        for run in source.record.cases
        if run.status is Status.NO_BASELINE and any(fnmatchcase(run.id, each) for each in patterns)
    )
    if not new:
        runs = ", ".join(map(str, options.runs))
        named = ", ".join(map(repr, patterns))
        raise UsageError(
            f"--only-new: no case of {runs} matches --only {named} and lacks nothing but a baseline"
        )
    return new


def check(options: argparse.Namespace) -> int:
    """Print everything that is wrong with the baselines."""
    problems = store.problems(options.baselines) or readme_tables.problems(options.baselines)
    for problem in problems:
        print(f"rebaseline: {problem}", file=sys.stderr)
    return REFUSED if problems else SAME


def rewrite(options: argparse.Namespace) -> int:
    """Rewrite every file as this tool writes it: the noise of each platform and the README's tables anew."""
    changed = store.rewrite(options.baselines)
    with transaction.exclusive(options.baselines):
        changed += readme_tables.refresh(options.baselines)
    print(
        "\n".join(f"{'rewritten' if path.exists() else 'removed'}: {path}" for path in changed)
        or "nothing changes"
    )
    return SAME


def show(options: argparse.Namespace) -> int:
    """Print the accepted medians with their provenance, or the tables of baselines/README.md."""
    if options.markdown:
        print(readme_tables.show(options.baselines, options.glob, options.platform))
        return SAME
    _print_table(
        ("platform", "case", "metric", "median", "processes", "recorded", "reason"),
        (
            (
                platform,
                case,
                _named(each.metric, each.instructions),
                _number(statistics.median(each.values)),
                str(len(each.values)),
                each.provenance.recorded_at[:10],
                each.provenance.reason,
            )
            for platform, case, accepted in store.stored(options.baselines, options.glob, options.platform)
            for each in store.numbers(platform, accepted)
        ),
    )
    return SAME


COMMANDS = {"diff": diff, "apply": apply, "review": review, "check": check, "rewrite": rewrite, "show": show}


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    # Parsed on its own, so that --baselines may stand before or after the command.
    everywhere = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    everywhere.add_argument(
        "--baselines", type=Path, default=Path("baselines"), metavar="DIR", help="default: baselines"
    )
    options, rest = everywhere.parse_known_args(argv)
    if rest and rest[0] not in COMMANDS and not rest[0].startswith("-"):
        _require_no_typo(rest[0])
        rest.insert(0, "diff")
    return _parser(everywhere).parse_args(rest, options)


def _require_no_typo(word: str) -> None:
    """Raise UsageError for a word that is no run, and resembles a command."""
    meant = difflib.get_close_matches(word, COMMANDS, n=1)
    if meant and not Path(word).exists():
        raise UsageError(
            f"there is neither a command nor a run {word!r}: did you mean {meant[0]!r}? Commands are "
            f"{', '.join(COMMANDS)}; without one, RUN... is shown as by `diff`"
        )


def _parser(everywhere: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, parents=[everywhere], allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar=f"{{{','.join(COMMANDS)}}}")
    for name, command in COMMANDS.items():
        of_command = commands.add_parser(name, help=command.__doc__, allow_abbrev=False)
        of_command.set_defaults(command=command)
        for flags, settings in ARGUMENTS[name]:
            of_command.add_argument(flags, **settings)
    return parser


RUNS = (
    "runs",
    {
        "type": Path,
        "nargs": "+",
        "metavar": "RUN",
        "help": "run.json, or the folder that contains it; processes of several on one card are pooled",
    },
)
ONLY = (
    "--only",
    {"action": "append", "metavar": "GLOB", "help": "select the cases with matching ids; may be repeated"},
)
PLATFORM = ("--platform", {"metavar": "ID", "help": "refuse a run of another platform"})
REPLACE_SETTLED = (
    "--replace-settled",
    {"action": "store_true", "help": "let fewer than three processes replace a baseline of three or more"},
)
ARGUMENTS = {
    "diff": (RUNS, ONLY, PLATFORM),
    "apply": (
        RUNS,
        ONLY,
        PLATFORM,
        (
            "--only-new",
            {
                "action": "store_true",
                "help": "select the cases, of those that --only names, that lack nothing but a baseline",
            },
        ),
        ("--reason", {"default": "", "metavar": "TEXT", "help": "why the new numbers are right"}),
        (
            "--new-first-reference",
            {
                "default": "",
                "metavar": "REASON",
                "help": "limit drift from these numbers on, not from the first accepted ones",
            },
        ),
        (
            "--eligible-only",
            {
                "action": "store_true",
                "help": "leave out cases that cannot be accepted, instead of refusing all",
            },
        ),
        REPLACE_SETTLED,
        ("--write", {"action": "store_true", "help": "write the files; without it, only show the changes"}),
    ),
    "review": (
        RUNS,
        ONLY,
        PLATFORM,
        REPLACE_SETTLED,
        ("--metric", {"metavar": "NAME", "help": "only cases in which this metric changes"}),
        (
            "--markdown",
            {"action": "store_true", "help": "ask nothing: print the changes for the text of a pull request"},
        ),
    ),
    "check": (),
    "rewrite": (),
    "show": (
        ("glob", {"nargs": "?", "default": "*", "metavar": "GLOB", "help": "case ids"}),
        ("--platform", {"choices": tuple(PLATFORM_BY_ID), "help": "default: all"}),
        ("--markdown", {"action": "store_true", "help": "the tables of baselines/README.md"}),
    ),
}


def _print_proposal(proposal: Proposal) -> None:
    if proposal.changes:
        _print_changes(proposal.changes)
    elif not (proposal.ineligible or proposal.unshown):
        print("nothing changes")
    if proposal.unshown:
        print(f"changes that move no median: {', '.join(proposal.unshown)}")
    noise = (
        f"{path}: {metric} {each.sd_pct:.3g} % between processes, {each.dof} degrees of freedom"
        for path, of_platform in proposal.noise.items()
        for metric, each in of_platform.items()
    )
    _print_lines(proposal.accepted)
    _print_lines(noise)
    _print_lines((f"rebaseline: not pooled: {each}" for each in proposal.left_out), sys.stderr)
    _print_lines((f"rebaseline: not eligible: {each}" for each in proposal.ineligible), sys.stderr)


def _print_lines(lines: Iterable[str], file: TextIO | None = None) -> None:
    for line in lines:
        print(line, file=file)


def _print_changes(changes: Iterable[Change]) -> None:
    _print_table(
        ("case", "metric", "old", "new", "change", "since the first"),
        (
            (
                each.case,
                _named(each.metric, each.instructions),
                _number(each.old),
                _number(each.new),
                _change(each),
                _percent(each.since_first_pct),
            )
            for each in changes
        ),
    )


def _print_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    table = (head, *rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _named(metric: str, instructions: str | None) -> str:
    return metric if instructions is None else f"{metric} [{instructions}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _change(change: Change) -> str:
    """In decibels for what is measured in them, of which a percentage says nothing."""
    in_decibels = UNITS.get(change.metric) == "dB"
    if in_decibels and change.old is not None and change.new is not None:
        return f"{change.new - change.old:+.2f} dB"
    return _percent(change.change_pct)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f} %"


if __name__ == "__main__":
    sys.exit(main())
