"""Of which red cases something is recorded beside their numbers, and what; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from perf_tests.harness.attribution.clusters import MAX_REPRESENTATIVES, Cluster, Suspect, clusters

PEAKS = frozenset({"peak_allocated_mib", "peak_reserved_mib", "peak_device_mib"})
"""Metrics of a GPU that a generation decides."""
TRAINS = "it trains, and takes no denoise step"
GENERATES_NOTHING = "it is only quantized and moved"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What is to be recorded of one case."""

    suspect: Suspect
    profile: bool = False
    snapshot: bool = False
    no_profile: str = ""
    """Why no step of a red time is recorded."""
    no_snapshot: str = ""
    """Why no memory of a red peak is recorded."""


def wanted(suspects: Iterable[Suspect]) -> tuple[Wanted, ...]:
    """Every case with a time whose regression pairs have confirmed, or with a red peak on a GPU.

    Of cases that are alike in scheme, compile mode and metric, one is recorded, and of at most
    `MAX_REPRESENTATIVES` steps and memory each.
    """
    found = [*suspects]
    times = [each for each in found if each.is_time and each.is_confirmed]
    peaks = [each for each in found if each.metric.name in PEAKS and _is_on_gpu(each)]
    no_profile, no_snapshot = _reasons(clusters(times)), _reasons(clusters(peaks))
    cases = {each.run.id: each for each in (*peaks, *times)}
    return tuple(
        Wanted(
            suspect=each,
            profile=no_profile.get(case_id) == "",
            snapshot=no_snapshot.get(case_id) == "",
            no_profile=no_profile.get(case_id, ""),
            no_snapshot=no_snapshot.get(case_id, ""),
        )
        for case_id, each in cases.items()
    )


def _reasons(found: Iterable[Cluster]) -> Mapping[str, str]:
    """Case -> why it is not recorded; empty for one that is."""
    reasons: dict[str, str] = {}
    for cluster in found:
        for each in cluster.suspects:
            case_id = each.run.id
            if not each.case.is_generating:
                reasons[case_id] = TRAINS if each.case.is_training else GENERATES_NOTHING
            elif cluster.measured is None:
                reasons.setdefault(case_id, f"{MAX_REPRESENTATIVES} others were recorded, which is the most")
            elif cluster.measured.run.id == case_id:
                reasons[case_id] = ""
            else:
                reasons.setdefault(case_id, f"{cluster.measured.run.id} was recorded, which is red alike")
    return reasons


def _is_on_gpu(suspect: Suspect) -> bool:
    return any(process.environment.gpu is not None for process in suspect.run.processes)
