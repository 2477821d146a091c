"""The files under baselines/: which there are, what they hold together, and the noise of each platform.

<platform>/<pipeline>/<case>.json and figures/ beside them <-> Baselines, <platform>/noise.json <-> Noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from perf_tests.harness.baselines import case_file, defects, pipeline_file, transaction
from perf_tests.harness.baselines.acknowledged import ACKNOWLEDGED
from perf_tests.harness.baselines.canonical_json import indented, require_unique_keys
from perf_tests.harness.baselines.entry import Baselines
from perf_tests.harness.stats.critical_values import MIN_DOF
from perf_tests.protocol.errors import BaselineError
from perf_tests.tables.metrics.plausible import MOST_NOISE_PCT
from perf_tests.tables.platforms import Noise

NOISE = "noise.json"
"""Stands in the folder of a platform: metric -> noise, pooled over the processes of all its pipelines."""
FIGURES = "figures"
"""The folder beside case files that holds their figures."""


def load(root: Path, platform: str) -> Mapping[str, Baselines]:
    """Pipeline id -> its baselines on `platform`; empty where the platform has no folder.

    Raises BaselineError for the first file that cannot be trusted.
    """
    for path in of_whole_pipelines(root, platform):
        raise BaselineError(
            f"the baseline file {path} holds a whole pipeline, as it was before there was one file a case: "
            "`python tools/rebaseline.py rewrite` divides it"
        )
    pipelines = {path.parent.name for path in transaction.listed(root, f"{platform}/*/*.json")}
    return {pipeline: read(root, platform, pipeline) for pipeline in sorted(pipelines)}


def load_any_layout(root: Path, platform: str) -> Mapping[str, Baselines]:
    """As `load`, with what files of whole pipelines hold; of a case in both, what was recorded later."""
    pipelines = {path.parent.name for path in transaction.listed(root, f"{platform}/*/*.json")}
    found = {pipeline: read(root, platform, pipeline) for pipeline in sorted(pipelines)}
    for path in of_whole_pipelines(root, platform):
        old = pipeline_file.loads(transaction.read_existing(root, path), path)
        found[old.pipeline] = pipeline_file.merged(old, found.get(old.pipeline))
    return found


def of_whole_pipelines(root: Path, platform: str) -> tuple[Path, ...]:
    """The files of the layout before there was one file a case."""
    listed = transaction.listed(root, f"{platform}/*.json")
    return tuple(path for path in listed if path.name not in (NOISE, ACKNOWLEDGED))


def folder_of(root: Path, platform: str, pipeline: str) -> Path:
    """The folder that holds the baselines of `pipeline` on `platform`."""
    return root / platform / pipeline


def path_of(root: Path, platform: str, pipeline: str, case: str) -> Path:
    """The file of a case."""
    return folder_of(root, platform, pipeline) / f"{case}.json"


def figures_path(folder: Path, digest: str) -> Path:
    """The file of the figures that case files in `folder` name by their digest."""
    return folder / FIGURES / f"{digest}.json"


def noise_path(root: Path, platform: str) -> Path:
    """The file that holds the noise of `platform`."""
    return root / platform / NOISE


def read(root: Path, platform: str, pipeline: str) -> Baselines:
    """The baselines of `pipeline` on `platform`; without any case where it has none. Raises BaselineError."""
    cases = [read_case(root, path) for path in transaction.listed(root, f"{platform}/{pipeline}/*.json")]
    return Baselines(
        platform=platform,
        pipeline=pipeline,
        cases={name: entry for each in cases for name, entry in each.cases.items()},
        provenance={key: provenance for each in cases for key, provenance in each.provenance.items()},
    )


def read_case(root: Path, path: Path) -> Baselines:
    """The baselines of the one case whose file is `path`, under `root`. Raises BaselineError."""

    def figures_of(digest: str) -> str:
        return transaction.read_existing(root, figures_path(path.parent, digest))

    return case_file.loads(transaction.read_existing(root, path), path, figures_of)


def contents(root: Path, baselines: Baselines) -> Mapping[Path, str | None]:
    """What must change under `root` for it to hold `baselines`, and no others of their pipeline.

    Path -> new content, None for a file that goes. Raises BaselineError for numbers that `load` would refuse.
    """
    if (why := defects.defect(baselines)) is not None:
        raise BaselineError(
            f"baselines of {baselines.pipeline} on {baselines.platform} cannot be written: {why}"
        )
    folder = folder_of(root, baselines.platform, baselines.pipeline)
    wanted: dict[Path, str] = {}
    for case in sorted(baselines.cases):
        text, figures = case_file.dumps(baselines, case)
        wanted[folder / f"{case}.json"] = text
        wanted[figures_path(folder, case_file.digest_of(figures))] = figures
    of_pipeline = f"{baselines.platform}/{baselines.pipeline}"
    present = (
        *transaction.listed(root, f"{of_pipeline}/*.json"),
        *transaction.listed(root, f"{of_pipeline}/{FIGURES}/*.json"),
    )
    changed = {path: text for path, text in wanted.items() if not holds(path, text)}
    return {**changed, **dict.fromkeys(path for path in present if path not in wanted)}


def holds(path: Path, text: str) -> bool:
    """Whether `path` is a file of exactly that content."""
    return path.is_file() and path.read_bytes() == text.encode()


def read_noise(path: Path) -> Mapping[str, Noise]:
    """The noise in `path`, in the folder of a platform. Raises BaselineError."""
    text = transaction.read_existing(path.parents[1], path)
    require_unique_keys(text, path)
    try:
        noise = msgspec.json.decode(text, type=dict[str, Noise])
    except msgspec.DecodeError as exc:
        raise BaselineError(f"the noise file {path} does not hold noise: {exc}") from exc
    for metric, each in noise.items():
        if each.dof < MIN_DOF or not 0 < each.sd_pct <= MOST_NOISE_PCT:
            raise BaselineError(
                f"the noise file {path} is broken: {metric} has a noise of {each.sd_pct} % with {each.dof} "
                "degrees of freedom"
            )
    return noise


def dumps_noise(noise: Mapping[str, Noise]) -> str:
    """Canonical JSON of `noise`."""
    return indented(msgspec.to_builtins(dict(noise)), "") + "\n"
