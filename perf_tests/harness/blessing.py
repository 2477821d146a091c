"""Run records in, baseline files out: what `tools/rebaseline.py` proposes, refuses and writes."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from perf_tests.harness import baseline, decision, stats, verdict
from perf_tests.harness.baseline import NOISY, Baselines, Entry, Provenance
from perf_tests.harness.errors import BaselineError, UsageError
from perf_tests.harness.records import Run, RunRecord, Status, read_record
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.metrics import METRICS, Better
from perf_tests.tables.platforms import PLATFORM_BY_ID, Noise, Platform

MAX_NOISE_PCT = 5.0
"""Between the generations of one process: beyond this the machine was disturbed, whatever else was seen."""
NOISE_DECIMALS = 4
"""Of the stored percents: the same on every machine."""
NOT_PLATFORMS = frozenset({"published", "README.md"})
"""What there is under baselines/ besides the folders of platforms."""
REWRITE = "`python tools/rebaseline.py rewrite` writes it anew"
UNMEASURED = frozenset({Status.INVALID, Status.INCONCLUSIVE, Status.UNSUPPORTED, Status.NOT_RUN})


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownCase:
    """A case of the matrix and the platforms its row names."""

    case: Case
    platforms: tuple[str, ...]


CASES = {
    case.id: KnownCase(case=case, platforms=tuple(platform.id for platform in row.platforms))
    for row in MATRIX
    for case in (row.case(weights) for weights in Weights)
}
METRIC_BY_NAME = {metric.name: metric for metric in METRICS}
METRIC_NAMES = tuple(METRIC_BY_NAME)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A run record, as it is found on disk."""

    record: RunRecord
    sha256: str
    """Of the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One metric whose accepted numbers would change; medians over processes."""

    case: str
    metric: str
    old: float | None
    """None where it has no baseline."""
    new: float | None
    """None where the run no longer measures it."""
    since_first_pct: float | None
    """From the first reference; None where it is not held against one."""

    @property
    def change_pct(self) -> float | None:
        """None where there is nothing to divide by."""
        if self.old is None or self.new is None or self.old == 0:
            return None
        return (self.new / self.old - 1.0) * 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """What blessing would do to the files."""

    changes: tuple[Change, ...]
    refusals: tuple[str, ...]
    """One sentence per selected case that cannot be blessed."""
    files: Mapping[Path, Baselines]
    """Only those that would be written."""
    noise: Mapping[Path, Mapping[str, Noise]]
    """The same of the noise that the processes of all entries of a platform show together."""
    unshown: tuple[str, ...] = ()
    """Cases of which no metric changes, but something else in the file: what a process takes, which nobody
    judges, or the first reference."""


def read_run(path: Path) -> Source:
    """The record in `path`, a run.json or the folder that holds one. Raises RecordError."""
    file = path / "run.json" if path.is_dir() else path
    record = read_record(file)
    return Source(record=record, sha256=hashlib.sha256(file.read_bytes()).hexdigest())


def propose(
    source: Source,
    *,
    root: Path,
    patterns: tuple[str, ...],
    reason: str,
    platform: str | None,
    first_reason: str = "",
) -> Proposal:
    """What the cases of the run that match one of `patterns` would change under `root`.

    With a `first_reason` their numbers become the first reference, too, which else stays as it is. Raises
    UsageError for a pattern without a match or an unknown platform, BaselineError for a store that cannot be
    read. Writes nothing.
    """
    if platform is not None and platform not in PLATFORM_BY_ID:
        raise UsageError(f"--platform {platform!r} is not one of {', '.join(PLATFORM_BY_ID)}")
    runs = _selected(source.record, patterns)
    refusals = {run.id: _refusal(run, source.record, platform) for run in runs}
    files: dict[Path, Baselines] = {}
    changes: list[Change] = []
    unshown: list[str] = []
    for run in runs:
        if refusals[run.id] is not None:
            continue
        path = baseline.path_of(root, run.platform, run.pipeline)
        before = files.get(path) or _read_or_empty(path, run)
        after = _with(before, run, source, reason, first_reason.strip())
        noise = baseline.load_noise(root, PLATFORM_BY_ID[run.platform])
        tested = {name: each for name, each in noise.items() if _shows_noise(run.id, name)}
        refusals[run.id] = _entry_refusal(after.cases[run.id], tested, _most_noise_pct(CASES[run.id].case))
        if refusals[run.id] is not None:
            continue
        of_run = _changes(run.id, before.cases.get(run.id), after.cases[run.id])
        changes.extend(of_run)
        if after != before:
            files[path] = after
            unshown.extend(() if of_run else (run.id,))
    return Proposal(
        changes=tuple(changes),
        refusals=tuple(f"{case}: {why}" for case, why in refusals.items() if why is not None),
        files=files,
        noise=_changed_noise(root, files),
        unshown=tuple(unshown),
    )


def write(proposal: Proposal) -> None:
    """Write what is proposed. Raises UsageError, having written nothing, where a case is refused."""
    if proposal.refusals:
        raise UsageError("nothing was written: " + "; ".join(proposal.refusals))
    for path, baselines in proposal.files.items():
        baseline.write(path, baselines)
    for path, noise in proposal.noise.items():
        baseline.write_noise(path, noise)


def rewrite(root: Path) -> tuple[Path, ...]:
    """Write every file under `root` in today's format, with a first reference where an entry has none, and
    the noise of each platform anew; the files that changed. Raises BaselineError."""
    changed = []
    for platform in PLATFORM_BY_ID.values():
        folder = baseline.load(root, platform.id)
        for baselines in folder.values():
            path = baseline.path_of(root, platform.id, baselines.pipeline)
            filled = _with_first(baselines, platform)
            if path.read_bytes() != baseline.dumps(filled).encode():
                baseline.write(path, filled)
                changed.append(path)
        path = baseline.noise_path(root, platform.id)
        noise = _noise_of(platform, folder.values())
        if noise is not None and not _holds(path, noise):
            baseline.write_noise(path, noise)
            changed.append(path)
    return tuple(changed)


def commit_message(proposal: Proposal, reason: str) -> str:
    """A conventional commit message for the files of `proposal`."""
    platforms = ",".join(sorted({baselines.platform for baselines in proposal.files.values()}))
    cases = sorted({*(change.case for change in proposal.changes), *proposal.unshown})
    return "\n".join((f"baseline({platforms}): {reason.strip()}", "", *(f"- {case}" for case in cases)))


def problems(root: Path) -> tuple[str, ...]:
    """Everything that is wrong with the store under `root`, one sentence each."""
    if not root.is_dir():
        raise UsageError(f"the baseline folder {root} does not exist: name another with --baselines")
    found: list[str] = []
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.is_file() and not path.name.startswith(".") and parts[0] not in NOT_PLATFORMS:
            found.extend(_file_problems(path, parts))
    return tuple(found) or tuple(_noise_problems(root))


def stored(root: Path, pattern: str) -> tuple[tuple[str, str, Entry, Provenance], ...]:
    """(platform, case, entry, provenance) of every stored case whose id matches `pattern`."""
    rows = tuple(
        (platform.id, case, entry, of_pipeline.provenance[entry.provenance])
        for platform in PLATFORM_BY_ID.values()
        for of_pipeline in baseline.load(root, platform.id).values()
        for case, entry in sorted(of_pipeline.cases.items())
        if fnmatchcase(case, pattern)
    )
    if not rows:
        raise UsageError(f"no baseline under {root} matches {pattern!r}: `show` without a pattern lists all")
    return rows


def _noise_problems(root: Path) -> Iterator[str]:
    """Of a store whose other files are all good."""
    for platform in PLATFORM_BY_ID.values():
        path = baseline.noise_path(root, platform.id)
        noise = _noise_of(platform, baseline.load(root, platform.id).values())
        if path.exists() if noise is None else not _holds(path, noise):
            yield f"{path} is not the noise of the baselines beside it: {REWRITE}"


def _file_problems(path: Path, parts: tuple[str, ...]) -> Iterator[str]:
    if len(parts) == 2 and parts[0] in PLATFORM_BY_ID and parts[1] == baseline.NOISE:
        return
    if len(parts) != 2 or parts[0] not in PLATFORM_BY_ID or path.suffix != ".json":
        yield f"{path} is no baseline file: they are <platform>/<pipeline>.json, of a known platform"
        return
    try:
        baselines = baseline.read(path)
    except BaselineError as exc:
        yield str(exc)
        return
    if path.read_bytes() != baseline.dumps(baselines).encode():
        yield (
            f"{path} is not as rebaseline.py writes it: it is of an older format, or was edited or merged by "
            f"hand: {REWRITE}"
        )
    for case, entry in baselines.cases.items():
        why = _orphan(case, entry, baselines) or _drifted(entry)
        if why is not None:
            yield f"{path}: {case} {why}"


def _orphan(case: str, entry: Entry, baselines: Baselines) -> str | None:
    known = CASES.get(case)
    if known is None or known.case.build.pipeline.id != baselines.pipeline:
        return f"is no case of {baselines.pipeline} in the matrix: remove the entry"
    if baselines.platform not in known.platforms:
        return f"is not measured on {baselines.platform}, says the matrix: remove the entry"
    if entry.digest != known.case.digest:
        digests = f"digest {entry.digest[:12]} then, {known.case.digest[:12]} now"
        return f"has changed since its baseline ({digests}): record it again"
    unknown = sorted(set(entry.metrics).difference(METRIC_NAMES))
    return f"has unknown metrics: {', '.join(unknown)}" if unknown else None


# Selecting and refusing


def _selected(record: RunRecord, patterns: tuple[str, ...]) -> tuple[Run, ...]:
    for pattern in patterns:
        if not any(fnmatchcase(run.id, pattern) for run in record.cases):
            ids = ", ".join(sorted(run.id for run in record.cases)) or "none"
            raise UsageError(f"--only {pattern!r} matches no case of the run; its cases are: {ids}")
    return tuple(run for run in record.cases if any(fnmatchcase(run.id, each) for each in patterns))


def _refusal(run: Run, record: RunRecord, platform: str | None) -> str | None:
    if platform is not None and run.platform != platform:
        return f"a run of another platform: it was measured on {run.platform}, not on {platform}"
    for check in (_unknown, _injected, _failed, _moved, _foreign, _invalid, _noisy, _unmeasured):
        why = check(run, record)
        if why is not None:
            return why
    return None


def _unknown(run: Run, _record: RunRecord) -> str | None:
    known = CASES.get(run.id)
    if known is None:
        return "the matrix has no such case: it was renamed or removed since the run"
    if run.platform not in known.platforms or run.pipeline != known.case.build.pipeline.id:
        return (
            f"a run of another platform: it was measured on {run.platform}, and the matrix has the case on "
            f"{', '.join(known.platforms)}"
        )
    return None


def _injected(run: Run, _record: RunRecord) -> str | None:
    return f"faults were injected into it: {', '.join(run.injected)}" if run.injected else None


def _failed(run: Run, _record: RunRecord) -> str | None:
    if run.failure is not None:
        return f"it failed: {run.failure.message}"
    unjudged = run.status is Status.INCONCLUSIVE and not run.verdicts
    if run.status.is_error or (run.status in UNMEASURED and not unjudged):
        return f"it is {run.status}: {run.reason}"
    for each in run.verdicts:
        if each.status in UNMEASURED or each.status.is_error:
            return f"{each.metric} is {each.status}: {each.reason}"
    return None


def _moved(run: Run, _record: RunRecord) -> str | None:
    digest = CASES[run.id].case.digest
    if run.digest == digest:
        return None
    digests = f"digest {run.digest[:12]} then, {digest[:12]} now"
    return f"the case has changed since the run ({digests}): measure it again"


def _foreign(run: Run, _record: RunRecord) -> str | None:
    asked = PLATFORM_BY_ID[run.platform].gpu
    asked_name = asked.name if asked else None
    for process in run.processes:
        gpu = process.environment.gpu
        if (gpu.name if gpu else None) != asked_name:
            return (
                f"a run of another platform: it ran on {gpu.name if gpu else 'a processor'}, "
                f"which is not {run.platform}"
            )
    units = sorted({process.environment.unit for process in run.processes})
    return f"its processes ran on different units: {', '.join(units)}" if len(units) > 1 else None


def _invalid(run: Run, _record: RunRecord) -> str | None:
    # A run whose latency no test judged has no INVALID verdict, and its times are no better for it.
    why = verdict.invalidity(run)
    return f"its times cannot be trusted: {why}" if why else None


def _noisy(run: Run, _record: RunRecord) -> str | None:
    case, platform = CASES[run.id].case, PLATFORM_BY_ID[run.platform]
    if not any(metric.noisy for metric in verdict.gated_metrics(case, platform)):
        return None
    noise_pct, most_pct = stats.generation_noise_pct(run), _most_noise_pct(case)
    if noise_pct <= most_pct:
        return None
    return (
        f"its generations lie {noise_pct:.1f} % apart, more than {most_pct:g} %: a baseline of it would "
        "gate nothing; measure it again"
    )


def _most_noise_pct(case: Case) -> float:
    unsteady = case.build.recipe.scheme.unsteady
    # Of a limit that is wider than the noise it was set for, half.
    return MAX_NOISE_PCT if unsteady is None else max(MAX_NOISE_PCT, unsteady.slower_pct / 2)


def _unmeasured(run: Run, record: RunRecord) -> str | None:
    case, platform = CASES[run.id].case, PLATFORM_BY_ID[run.platform]
    for metric in verdict.gated_metrics(case, platform):
        observation = stats.observe(metric, run, reference_of(run, record))
        if observation.missing is not None:
            return observation.missing
        if metric.better is Better.EXACT and len(set(observation.values)) > 1:
            values = ", ".join(f"{value:g}" for value in observation.values)
            return f"{metric.name} has no exact value, its processes differ: {values}"
    return None


def _entry_refusal(entry: Entry, noise: Mapping[str, Noise], most_pct: float) -> str | None:
    """Why the accepted numbers would be no good, each metric for itself having been measured.

    What is not in `noise`, as the case has not that of its platform, may lie `most_pct` apart.
    """
    for name in sorted((NOISY & entry.metrics.keys()) - noise.keys()):
        sd_pct = _sd_pct(entry.metrics[name])
        if noise and sd_pct > most_pct:
            return (
                f"its {len(entry.metrics[name])} processes lie apart: the standard deviation of their {name} "
                f"is {sd_pct:.3g} %, more than {most_pct:g} %; measure it again on a quiet machine"
            )
    for name in sorted(noise.keys() & entry.metrics.keys()):
        times = decision.excess_spread(entry.metrics[name], noise[name])
        if times is not None:
            return (
                f"its {len(entry.metrics[name])} processes lie apart: the standard deviation of their {name} "
                f"is {times:.1f} times the {noise[name].sd_pct:.2g} % of this platform; measure it again on "
                "a quiet machine"
            )
    return _drifted(entry)


def _sd_pct(values: Sequence[float]) -> float:
    return 100.0 * math.sqrt(stats.log_variance(values)) if len(values) > 1 else 0.0


def _drifted(entry: Entry) -> str | None:
    for name in sorted(entry.first.keys() & entry.metrics.keys()):
        moved = _drift(entry, name)
        if moved is not None and moved.is_beyond:
            return (
                f"has moved too far: {name} {moved.change_pct:+.2f} % from its first reference in accepted "
                f"steps, the limit is {moved.limit_pct:+.2f} %: undo one of them, or start anew with "
                "--new-first-reference REASON"
            )
    return None


def _drift(entry: Entry, name: str) -> decision.Drift | None:
    """What accepted steps have added up to; None for a metric that is not held against the first."""
    metric = METRIC_BY_NAME.get(name)
    if metric is None or metric.drift_limit_pct is None or name not in entry.first:
        return None
    return decision.drift(entry.first[name], entry.metrics[name], metric.better, metric.drift_limit_pct)


# Noise


def _noise_of(platform: Platform, folder: Iterable[Baselines]) -> dict[str, Noise] | None:
    """What the entries of all pipelines show together; None where nothing of the platform is noisy."""
    prior = platform.process_noise
    entries = [each for baselines in folder for each in baselines.cases.items()]
    if prior is None or not entries:
        return None
    pooled = {
        name: stats.pooled_noise(
            (
                entry.metrics[name]
                for case_id, entry in entries
                if name in entry.metrics and _shows_noise(case_id, name)
            ),
            prior,
        )
        for name in sorted(NOISY)
    }
    return {
        name: replace(noise, sd_pct=round(noise.sd_pct, NOISE_DECIMALS)) for name, noise in pooled.items()
    }


def _shows_noise(case_id: str, name: str) -> bool:
    """Whether the noisy metric of the case has the noise of its platform."""
    known = CASES.get(case_id)  # None: a case that the matrix no longer has, of a scheme that was steady
    if known is None or known.case.build.recipe.scheme.unsteady is None:
        return True
    return not verdict.rests_on_step(METRIC_BY_NAME[name])


def _changed_noise(root: Path, files: Mapping[Path, Baselines]) -> dict[Path, Mapping[str, Noise]]:
    changed: dict[Path, Mapping[str, Noise]] = {}
    for platform_id in {baselines.platform for baselines in files.values()}:
        written = {b.pipeline: b for b in files.values() if b.platform == platform_id}
        folder = {**baseline.load(root, platform_id), **written}
        path, noise = (
            baseline.noise_path(root, platform_id),
            _noise_of(PLATFORM_BY_ID[platform_id], folder.values()),
        )
        if noise is not None and not _holds(path, noise):
            changed[path] = noise
    return changed


def _holds(path: Path, noise: Mapping[str, Noise]) -> bool:
    return path.exists() and path.read_bytes() == baseline.dumps_noise(noise).encode()


# Entries


def reference_of(run: Run, record: RunRecord) -> Run | None:
    """What the record compares `run` with; None for a run without a reference, or where it is not there."""
    # A bf16 case that was itself selected may stand among the cases only.
    for other in (*record.references, *record.cases):
        if other.id == run.reference:
            return other
    return None


def _read_or_empty(path: Path, run: Run) -> Baselines:
    if path.exists():
        return baseline.read(path)
    return Baselines(
        format_version=baseline.FORMAT_VERSION,
        platform=run.platform,
        pipeline=run.pipeline,
        cases={},
        provenance={},
    )


def _with(before: Baselines, run: Run, source: Source, reason: str, first_reason: str) -> Baselines:
    provenance = provenance_of(run, source, reason)
    key = _key(provenance)
    old = before.cases.get(run.id)
    measured = entry_of(run, source.record, key)
    # Another digest is another case: what it was compared with is no first of it.
    kept = None if first_reason or old is None or old.digest != run.digest else old
    entry = msgspec.structs.replace(
        measured,
        first=_first(measured, PLATFORM_BY_ID[run.platform], CASES[run.id].case, kept),
        first_reason=first_reason or (kept.first_reason if kept else ""),
    )
    # The same numbers again keep their first reason: to bless a run twice changes nothing, and to bless one
    # that was recorded without its seconds adds them.
    if old is not None and _is_same(entry, old):
        kept = msgspec.structs.replace(entry, provenance=old.provenance)
        return msgspec.structs.replace(before, cases={**before.cases, run.id: kept})
    return msgspec.structs.replace(
        before,
        cases={**before.cases, run.id: entry},
        provenance={**before.provenance, key: provenance},
    )


def _is_same(new: Entry, old: Entry) -> bool:
    """Whether the accepted numbers are the same, wherever they come from."""
    besides = ("provenance", "seconds", "samples", "reference_processes")
    return msgspec.structs.replace(new, **{name: getattr(old, name) for name in besides}) == old


def _with_first(baselines: Baselines, platform: Platform) -> Baselines:
    cases = {
        case: msgspec.structs.replace(entry, first=_first(entry, platform, CASES[case].case, entry))
        if case in CASES
        else entry
        for case, entry in baselines.cases.items()
    }
    return msgspec.structs.replace(baselines, cases=cases)


def _first(new: Entry, platform: Platform, case: Case, kept: Entry | None) -> dict[str, tuple[float, ...]]:
    """The first reference of `new`: that of `kept`, or its accepted numbers where it has none; those of `new`
    without either."""
    known = {**kept.metrics, **kept.first} if kept else {}
    return {
        metric.name: known.get(metric.name, new.metrics[metric.name])
        for metric in verdict.gated_metrics(case, platform)
        if metric.drift_limit_pct is not None and metric.name in new.metrics
    }


def entry_of(run: Run, record: RunRecord, provenance: str) -> Entry:
    """The numbers of `run`, a case of `record`, as a baseline has them; without a first reference."""
    case, platform = CASES[run.id].case, PLATFORM_BY_ID[run.platform]
    reference = reference_of(run, record)
    observed = {
        metric.name: stats.observe(metric, run, reference).values
        for metric in (*verdict.gated_metrics(case, platform), *verdict.shown_metrics(case, platform))
        if metric.expected is None  # the tables say what it must be
    }
    return Entry(
        digest=run.digest,
        provenance=provenance,
        processes=len(run.processes),
        reference_processes=len(reference.processes) or None if reference else None,
        samples=_samples(run),
        metrics={name: values for name, values in observed.items() if values},
        seconds=_seconds(run),
    )


def _samples(run: Run) -> int | None:
    counts = [len(process.samples) for process in run.processes]
    return round(statistics.median(counts)) or None if counts else None


def _seconds(run: Run) -> dict[str, float]:
    spent: dict[str, list[float]] = {}
    for process in run.processes:
        for phase, seconds in process.build.seconds.items():
            spent.setdefault(phase, []).append(seconds)
    return {phase: round(statistics.median(each), 1) for phase, each in spent.items()}


def provenance_of(run: Run, source: Source, reason: str) -> Provenance:
    """Where the numbers of `run` come from."""
    environment = run.processes[0].environment
    gpu = environment.gpu
    return Provenance(
        recorded_at=source.record.created_at,
        reason=reason.strip(),
        run_sha256=source.sha256,
        unit=environment.unit,
        gpu=gpu.name if gpu else None,
        power_limit_w=gpu.power_limit_w if gpu else None,
        driver=gpu.driver if gpu else None,
        python=environment.python,
        packages=environment.packages,
        settings=environment.settings,
    )


def _key(provenance: Provenance) -> str:
    canonical = json.dumps(msgspec.to_builtins(provenance), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _changes(case: str, old: Entry | None, new: Entry) -> tuple[Change, ...]:
    before = old.metrics if old else {}
    return tuple(
        Change(
            case=case,
            metric=name,
            old=_median(before.get(name)),
            new=_median(new.metrics.get(name)),
            since_first_pct=_since_first_pct(new, name),
        )
        # A metric that has left the table leaves the file, too: not without being shown.
        for name in dict.fromkeys((*METRIC_NAMES, *before))
        if before.get(name) != new.metrics.get(name)
    )


def _since_first_pct(entry: Entry, name: str) -> float | None:
    moved = _drift(entry, name) if name in entry.metrics else None
    return None if moved is None else moved.change_pct


def _median(values: tuple[float, ...] | None) -> float | None:
    return None if values is None else statistics.median(values)
