"""All baseline files of a folder together: what is wrong with them, and the noise they show."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from perf_tests.harness.baselines import (
    acknowledged,
    case_file,
    files,
    instruction_sets,
    register,
    transaction,
)
from perf_tests.harness.baselines.entry import Accepted, Baselines, Entry, Provenance, accepted_of
from perf_tests.harness.rebaseline.candidates import CASES, METRIC_NAMES, shows_noise, with_first
from perf_tests.harness.rebaseline.eligibility import drifted
from perf_tests.harness.stats import location
from perf_tests.harness.verdicts.gates import gated_metrics
from perf_tests.protocol.errors import BaselineError, UsageError
from perf_tests.tables.metrics.plausible import MOST_NOISE_PCT
from perf_tests.tables.metrics.rows import NOISY
from perf_tests.tables.platforms import PLATFORM_BY_ID, Noise, Platform

NOISE_DECIMALS = 4
"""Of stored percentages, so that they come out the same on every machine."""
NOT_PLATFORMS = frozenset({"anchors", "published", "README.md"})
"""What baselines/ contains apart from the folders of platforms."""
REWRITE = "fix it with `python tools/rebaseline.py rewrite`"
NOT_A_BASELINE = (
    "{path} is not a baseline file: they are <platform>/<pipeline>/<case>.json, with a known platform"
)
NOT_THEIR_NOISE = f"{{path}} does not match the noise of the baselines in its folder: {REWRITE}"


def problems(root: Path) -> tuple[str, ...]:
    """Everything that is wrong with the baselines under `root`, one sentence each.

    Raises UsageError where `root` is not a folder.
    """
    if not root.is_dir():
        raise UsageError(f"the baseline folder {root} does not exist: name another with --baselines")
    if transaction.unfinished(root):
        return (f"{root} holds what an interrupted command had still to write: {REWRITE}",)
    found: list[str] = []
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.is_file() and not path.name.startswith(".") and parts[0] not in NOT_PLATFORMS:
            found.extend(_file_problems(root, path, parts))
    return tuple(found) or (
        *_figures_problems(root),
        *_noise_problems(root),
        *_register_problems(root),
    )


def stored(root: Path, pattern: str, platform_id: str | None = None) -> tuple[tuple[str, str, Accepted], ...]:
    """(platform id, case id, what was accepted) for every stored case whose id matches `pattern`, on one
    platform or on all.

    Raises UsageError where none does, BaselineError for a file that cannot be trusted.
    """
    rows = tuple(
        (platform.id, case, accepted_of(of_pipeline, case))
        for platform in PLATFORM_BY_ID.values()
        if platform_id in (None, platform.id)
        for of_pipeline in files.load(root, platform.id).values()
        for case in sorted(of_pipeline.cases)
        if fnmatchcase(case, pattern)
    )
    if not rows:
        of_platform = "" if platform_id is None else f"of {platform_id} "
        raise UsageError(
            f"no baseline {of_platform}under {root} matches {pattern!r}: `show` without a pattern lists all"
        )
    return rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbers:
    """What was accepted of one metric of a case, and where that comes from."""

    metric: str
    instructions: str | None
    """The instruction set that they are of; None where the metric does not follow it."""
    values: tuple[float, ...]
    provenance: Provenance


def numbers(platform_id: str, accepted: Accepted) -> Iterator[Numbers]:
    """All numbers of a case on a platform, by metric, and by instruction set where a metric follows it."""
    following = instruction_sets.following(platform_id)
    for name, values in sorted(accepted.entry.metrics.items()):
        own = instruction_sets.instructions(accepted.provenance.settings) if name in following else None
        yield Numbers(metric=name, instructions=own, values=values, provenance=accepted.provenance)
        for other, each in accepted.others.items():
            if name in following and name in each.entry.metrics:
                values = each.entry.metrics[name]
                yield Numbers(metric=name, instructions=other, values=values, provenance=each.provenance)


def rewrite(root: Path) -> tuple[Path, ...]:
    """Rewrite every file under `root` as rebaseline.py writes it; returns the files that changed.

    Entries without a first reference get one, and the noise of each platform is computed again. Raises
    BaselineError for a file that cannot be trusted.
    """
    with transaction.exclusive(root):
        changed = dict(_rewritten(root))
        transaction.replace_all(root, changed)
    return tuple(changed)


def _rewritten(root: Path) -> Iterator[tuple[Path, str | None]]:
    for platform in PLATFORM_BY_ID.values():
        folder = files.load_any_layout(root, platform.id)
        for baselines in folder.values():
            yield from files.contents(root, with_first(baselines, platform)).items()
        for path in files.of_whole_pipelines(root, platform.id):
            yield path, None
        path = files.noise_path(root, platform.id)
        noise = noise_of(platform, folder.values())
        if noise is not None and not _holds(path, noise):
            yield path, files.dumps_noise(noise)
        entries = _case_ids(folder)
        registered = register.with_entries(root, platform.id, entries) if entries else None
        if registered is not None:
            yield register.path_of(root, platform.id), registered


def _figures_problems(root: Path) -> Iterator[str]:
    """Figures that no case names, in a store whose other files have no problems."""
    for platform_id in PLATFORM_BY_ID:
        for baselines in files.load(root, platform_id).values():
            for path, text in files.contents(root, baselines).items():
                if text is None:
                    yield f"{path} belongs to no case: {REWRITE}"


def _noise_problems(root: Path) -> Iterator[str]:
    """Problems of the noise files, in a store whose other files have none."""
    for platform in PLATFORM_BY_ID.values():
        path = files.noise_path(root, platform.id)
        noise = noise_of(platform, files.load(root, platform.id).values())
        if path.exists() if noise is None else not _holds(path, noise):
            yield NOT_THEIR_NOISE.format(path=path)


def _register_problems(root: Path) -> Iterator[str]:
    """Problems of the registers, in a store whose other files have none."""
    for platform_id in sorted(register.REGISTERED):
        path = register.path_of(root, platform_id)
        entries = _case_ids(files.load(root, platform_id))
        if register.with_entries(root, platform_id, entries) is not None and entries:
            yield f"{path} does not name every case that has a baseline in its folder: {REWRITE}"
        for case_id in sorted((register.read(root, platform_id) or frozenset()) - entries):
            if case_id in CASES and platform_id in CASES[case_id].platforms:
                yield f"{path}: {case_id} had a baseline, which is gone: restore it, or record it again"


def _case_ids(folder: Mapping[str, Baselines]) -> frozenset[str]:
    return frozenset(case for each in folder.values() for case in each.cases)


def _file_problems(root: Path, path: Path, parts: tuple[str, ...]) -> Iterator[str]:
    match parts:
        case (platform, *_) if platform not in PLATFORM_BY_ID:
            yield NOT_A_BASELINE.format(path=path)
        case (platform, acknowledged.ACKNOWLEDGED):
            yield from _acknowledged_problems(root, platform)
        case (_, files.NOISE | register.REGISTER) | (_, _, files.FIGURES, _):
            return
        case (_, _) if path.suffix == ".json":
            yield f"{path} holds a whole pipeline, and there is one file a case: {REWRITE}"
        case (_, _, _) if path.suffix == ".json":
            yield from _case_problems(root, path)
        case _:
            yield NOT_A_BASELINE.format(path=path)


def _acknowledged_problems(root: Path, platform_id: str) -> Iterator[str]:
    path = acknowledged.path_of(root, platform_id)
    try:
        entries = acknowledged.read(root, platform_id)
    except BaselineError as error:
        yield str(error)
        return
    for case_id, metric in entries:
        known = CASES.get(case_id)
        if known is None or platform_id not in known.platforms:
            yield f"{path}: {case_id} is not measured on {platform_id}: remove the entry"
        elif metric not in {each.name for each in gated_metrics(known.case, PLATFORM_BY_ID[platform_id])}:
            yield f"{path}: {metric} of {case_id} is not judged on {platform_id}: remove the entry"


def _case_problems(root: Path, path: Path) -> Iterator[str]:
    try:
        baselines = files.read_case(root, path)
    except BaselineError as exc:
        yield str(exc)
        return
    for case, entry in baselines.cases.items():
        if not files.holds(path, case_file.dumps(baselines, case)[0]):
            yield f"{path} is not as rebaseline.py writes it, because somebody formatted it: {REWRITE}"
        why = _orphan(case, entry, baselines) or drifted(entry)
        if why is not None:
            yield f"{path}: {case} {why}"


def _orphan(case: str, entry: Entry, baselines: Baselines) -> str | None:
    known = CASES.get(case)
    if known is None or known.case.build.pipeline.id != baselines.pipeline:
        return f"is not a case of {baselines.pipeline} in the matrix: remove the entry"
    if baselines.platform not in known.platforms:
        return f"is not measured on {baselines.platform}, according to the matrix: remove the entry"
    if entry.digest != known.case.digest:
        digests = f"digest {entry.digest[:12]} then, {known.case.digest[:12]} now"
        return f"has changed since its baseline ({digests}): record it again"
    unknown = sorted(set(entry.metrics).difference(METRIC_NAMES))
    if unknown:
        return f"has unknown metrics: {', '.join(unknown)}"
    following = instruction_sets.following(baselines.platform)
    for name, each in entry.other_instructions.items():
        foreign = sorted(each.metrics.keys() - following)
        if foreign:
            return f"has numbers of {name} of what follows no instruction set: {', '.join(foreign)}"
    return None


# Noise


def noise_in_force(root: Path, platform: Platform) -> Mapping[str, Noise]:
    """Noisy metric -> how far unchanged fresh processes lie apart on `platform`; empty where none is judged.

    Computed from the baselines under `root`, of which noise.json is a copy for the reader; from the row of
    the platform for each metric that none of them has. Raises BaselineError where that copy is broken or
    differs, where the baselines lie further apart than those of any machine, and for a file that cannot be
    trusted.
    """
    if platform.process_noise is None:
        return {}
    path = files.noise_path(root, platform.id)
    if path.exists():
        files.read_noise(path)
    noise = noise_of(platform, files.load(root, platform.id).values())
    if path.exists() and (noise is None or not _holds(path, noise)):
        raise BaselineError(NOT_THEIR_NOISE.format(path=path))
    for metric, each in (noise or {}).items():
        if each.sd_pct > MOST_NOISE_PCT:
            raise BaselineError(
                f"the processes of the baselines in {path.parent} lie {each.sd_pct:.3g} % apart in {metric}, "
                f"and {MOST_NOISE_PCT:g} % is the most that a gate can allow for: record them again"
            )
    return {**dict.fromkeys(sorted(NOISY), platform.process_noise), **(noise or {})}


def noise_of(platform: Platform, folder: Iterable[Baselines]) -> dict[str, Noise] | None:
    """Noisy metric that an entry has -> the noise that those of all pipelines in `folder` show together.

    None where the platform has no noisy metrics, and where `folder` has no entries.
    """
    prior = platform.process_noise
    entries = [each for baselines in folder for each in baselines.cases.items()]
    if prior is None or not entries:
        return None
    recorded = NOISY.intersection(name for _, entry in entries for name in entry.metrics)
    pooled = {
        name: location.pooled_noise(
            (
                entry.metrics[name]
                for case_id, entry in entries
                if name in entry.metrics and shows_noise(case_id, name)
            ),
            prior,
        )
        for name in sorted(recorded)
    }
    return {
        name: replace(noise, sd_pct=round(noise.sd_pct, NOISE_DECIMALS)) for name, noise in pooled.items()
    }


def changed_noise(root: Path, proposed: Collection[Baselines]) -> dict[Path, Mapping[str, Noise]]:
    """Noise file -> its new content once `proposed` is written under `root`, for those that change."""
    changed: dict[Path, Mapping[str, Noise]] = {}
    for platform_id in {baselines.platform for baselines in proposed}:
        written = {b.pipeline: b for b in proposed if b.platform == platform_id}
        folder = {**files.load(root, platform_id), **written}
        path, noise = (
            files.noise_path(root, platform_id),
            noise_of(PLATFORM_BY_ID[platform_id], folder.values()),
        )
        if noise is not None and not _holds(path, noise):
            changed[path] = noise
    return changed


def _holds(path: Path, noise: Mapping[str, Noise]) -> bool:
    return files.holds(path, files.dumps_noise(noise))
