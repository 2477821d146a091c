"""What may explain a red case, in words: kernels, allocations and files, as lines of a failure text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from perf_tests.harness.profiles.matching import plain_name
from perf_tests.harness.records.evidence import Evidence, KernelChange, StepChange
from perf_tests.harness.report.wording import flat, wrapped

MAX_NAME = 90
MAX_NAMES = 3
US_PER_MS = 1e3


def lines(evidence: Sequence[Evidence], case_id: str, run_path: str) -> list[str]:
    """Lines of a failure text on the case; empty where nothing was recorded of it.

    `run_path` is the folder of run.json.
    """
    found = next((each for each in evidence if each.id == case_id), None)
    if found is None:
        return []
    return [
        *_of_steps(found),
        *_of_memory(found),
        *(line for problem in problems(found) for line in wrapped("unknown", problem)),
        *wrapped("evidence", " ".join(str(PurePath(run_path, file)) for file in found.files) or "none"),
    ]


def table(evidence: Sequence[Evidence], run_path: str) -> list[str]:
    """All that was recorded, case by case; empty without anything."""
    return [line for each in evidence for line in (each.id, *lines(evidence, each.id, run_path))]


def kept(evidence: Sequence[Evidence]) -> list[str]:
    """A line for each case: what was kept of it in the run directory, and why anything is missing."""
    return [
        f"kept of {each.id}: {'; '.join((', '.join(each.files) or 'nothing', *problems(each)))}"
        for each in evidence
    ]


def problems(evidence: Evidence) -> Iterator[str]:
    """Why a part is missing, a sentence each."""
    for what, problem in (
        ("which kernels", evidence.profile_problem),
        ("which allocations", evidence.snapshot_problem),
        ("a script that reproduces it", evidence.script_problem),
    ):
        if problem:
            yield f"{what}: {flat(problem)}"


def summary(step: StepChange) -> str:
    """One step under both stacks, in one sentence."""
    before_ms, now_ms = step.stable_us / US_PER_MS, step.candidate_us / US_PER_MS
    counts = [f"{count} {word}" for count, word in ((step.new, "new"), (step.gone, "gone")) if count]
    taken = f" (which took {step.gone_us / US_PER_MS:.3f} ms)" if step.gone else ""
    beside = f"; {', '.join(counts)}{taken}" if counts else ""
    return f"one profiled step: {before_ms:.3f} -> {now_ms:.3f} ms in kernels{beside}"


def change(kernel: KernelChange) -> str:
    """One kernel, or what took its place."""
    times = f"+{kernel.more_us / US_PER_MS:.3f} ms"
    shape = f" {kernel.shape}" if kernel.shape else ""
    now = _named(kernel.candidate)
    if not kernel.stable:
        return f"{times} new, {kernel.candidate_launches} x {now}{shape}"
    calls = f"{kernel.stable_launches} x"
    if kernel.stable_launches != kernel.candidate_launches:
        calls = f"{kernel.stable_launches} -> {kernel.candidate_launches} x"
    before = _named(kernel.stable)
    instead = "" if _is_same(kernel) else f" instead of {before}"
    return f"{times} to {kernel.candidate_us / US_PER_MS:.3f} ms, {calls} {now}{instead}{shape}"


def allocations(evidence: Evidence) -> Iterator[str]:
    """What the memory of a generation went to, a sentence each."""
    if evidence.largest:
        yield (
            f"at its peak a generation held {evidence.peak_mib:.1f} MiB beside {evidence.before_mib:.1f} MiB "
            "from before, of that:"
        )
    for each in evidence.largest:
        yield f"{each.mib:.1f} MiB {flat(each.where) or 'at a place that was not recorded'}"


def _of_steps(evidence: Evidence) -> Iterator[str]:
    if evidence.step is None:
        return
    yield from wrapped("kernels", summary(evidence.step))
    for kernel in evidence.step.slower:
        yield from wrapped("", change(kernel))


def _of_memory(evidence: Evidence) -> Iterator[str]:
    for number, sentence in enumerate(allocations(evidence)):
        yield from wrapped("" if number else "memory", sentence)


def _is_same(kernel: KernelChange) -> bool:
    """Whether the names differ at most in what numbers the kernels of a graph."""
    return {*map(plain_name, kernel.stable)} == {*map(plain_name, kernel.candidate)}


def _named(names: Sequence[str]) -> str:
    named = [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..." for name in map(flat, names)]
    more = len(named) - MAX_NAMES
    return " + ".join(named[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
