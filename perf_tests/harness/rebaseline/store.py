"""All baselines of a folder together: what is wrong with them, their noise, today's format of their files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from perf_tests.harness.baselines import files as baseline_files
from perf_tests.harness.baselines.files import Baselines, Entry, Provenance
from perf_tests.harness.rebaseline.candidates import CASES, METRIC_NAMES, shows_noise, with_first
from perf_tests.harness.rebaseline.eligibility import drifted
from perf_tests.harness.stats import observations
from perf_tests.protocol.errors import BaselineError, UsageError
from perf_tests.tables.metrics.rows import NOISY
from perf_tests.tables.platforms import PLATFORM_BY_ID, Noise, Platform

NOISE_DECIMALS = 4
"""Of the stored percents: the same on every machine."""
NOT_PLATFORMS = frozenset({"anchors", "published", "README.md"})
"""What there is under baselines/ besides the folders of platforms."""
REWRITE = "`python tools/rebaseline.py rewrite` writes it anew"


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
        for of_pipeline in baseline_files.load(root, platform.id).values()
        for case, entry in sorted(of_pipeline.cases.items())
        if fnmatchcase(case, pattern)
    )
    if not rows:
        raise UsageError(f"no baseline under {root} matches {pattern!r}: `show` without a pattern lists all")
    return rows


def rewrite(root: Path) -> tuple[Path, ...]:
    """Write every file under `root` in today's format, with a first reference where an entry has none, and
    the noise of each platform anew; the files that changed. Raises BaselineError."""
    changed = []
    for platform in PLATFORM_BY_ID.values():
        folder = baseline_files.load(root, platform.id)
        for baselines in folder.values():
            path = baseline_files.path_of(root, platform.id, baselines.pipeline)
            filled = with_first(baselines, platform)
            if path.read_bytes() != baseline_files.dumps(filled).encode():
                baseline_files.write(path, filled)
                changed.append(path)
        path = baseline_files.noise_path(root, platform.id)
        noise = noise_of(platform, folder.values())
        if noise is not None and not _holds(path, noise):
            baseline_files.write_noise(path, noise)
            changed.append(path)
    return tuple(changed)


def _noise_problems(root: Path) -> Iterator[str]:
    """Of a store whose other files are all good."""
    for platform in PLATFORM_BY_ID.values():
        path = baseline_files.noise_path(root, platform.id)
        noise = noise_of(platform, baseline_files.load(root, platform.id).values())
        if path.exists() if noise is None else not _holds(path, noise):
            yield f"{path} is not the noise of the baselines beside it: {REWRITE}"


def _file_problems(path: Path, parts: tuple[str, ...]) -> Iterator[str]:
    if len(parts) == 2 and parts[0] in PLATFORM_BY_ID and parts[1] == baseline_files.NOISE:
        return
    if len(parts) != 2 or parts[0] not in PLATFORM_BY_ID or path.suffix != ".json":
        yield f"{path} is no baseline file: they are <platform>/<pipeline>.json, of a known platform"
        return
    try:
        baselines = baseline_files.read(path)
    except BaselineError as exc:
        yield str(exc)
        return
    if path.read_bytes() != baseline_files.dumps(baselines).encode():
        yield (
            f"{path} is not as rebaseline.py writes it: it is of an older format, or was edited or merged by "
            f"hand: {REWRITE}"
        )
    for case, entry in baselines.cases.items():
        why = _orphan(case, entry, baselines) or drifted(entry)
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


# Noise


def noise_of(platform: Platform, folder: Iterable[Baselines]) -> dict[str, Noise] | None:
    """What the entries of all pipelines show together; None where nothing of the platform is noisy."""
    prior = platform.process_noise
    entries = [each for baselines in folder for each in baselines.cases.items()]
    if prior is None or not entries:
        return None
    pooled = {
        name: observations.pooled_noise(
            (
                entry.metrics[name]
                for case_id, entry in entries
                if name in entry.metrics and shows_noise(case_id, name)
            ),
            prior,
        )
        for name in sorted(NOISY)
    }
    return {
        name: replace(noise, sd_pct=round(noise.sd_pct, NOISE_DECIMALS)) for name, noise in pooled.items()
    }


def changed_noise(root: Path, files: Mapping[Path, Baselines]) -> dict[Path, Mapping[str, Noise]]:
    """File -> the noise of a platform once `files` are written under `root`, where it changes."""
    changed: dict[Path, Mapping[str, Noise]] = {}
    for platform_id in {baselines.platform for baselines in files.values()}:
        written = {b.pipeline: b for b in files.values() if b.platform == platform_id}
        folder = {**baseline_files.load(root, platform_id), **written}
        path, noise = (
            baseline_files.noise_path(root, platform_id),
            noise_of(PLATFORM_BY_ID[platform_id], folder.values()),
        )
        if noise is not None and not _holds(path, noise):
            changed[path] = noise
    return changed


def _holds(path: Path, noise: Mapping[str, Noise]) -> bool:
    return path.exists() and path.read_bytes() == baseline_files.dumps_noise(noise).encode()
