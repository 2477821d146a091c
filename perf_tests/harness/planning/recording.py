"""In which order rows that lack processes are recorded: as many as possible in the time there is; pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping


def order(
    case_ids: Iterable[str], expected_s: Mapping[str, float], published: Collection[str]
) -> dict[str, int]:
    """Case id -> its place: what others have published before the rest, and of each the cheapest first.

    A case that `expected_s` does not know comes last among its like.
    """
    ordered = sorted(
        case_ids, key=lambda case_id: (case_id not in published, expected_s.get(case_id, math.inf), case_id)
    )
    return {case_id: place for place, case_id in enumerate(ordered)}
