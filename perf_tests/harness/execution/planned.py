"""The cases of a session: which there are, what they are compared with, and which of them share a worker."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from perf_tests.harness.runs import injections
from perf_tests.harness.runs.record import REASON_OF_PROGRESS, Progress, Run, Status
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.messages import Injection
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Platform


@dataclass(frozen=True, slots=True)
class Planned:
    """A case of this session, where it is measured and which faults are injected into it."""

    case: Case
    platform: Platform
    injections: tuple[Injection, ...] = ()
    verified_only: bool = False
    """Whether it is only verified and generated once, without its fp32 twin: no time of it is judged."""

    @property
    def is_compared(self) -> bool:
        """Whether its layers and the transformer's answers are compared with bf16."""
        return self.case.is_compared and not self.verified_only

    @property
    def reference(self) -> Planned | None:
        """What the case is compared with, free of faults; None for a reference, and if only verified."""
        if self.verified_only or self.case.is_reference:
            return None
        return Planned(self.case.reference, self.platform)

    @property
    def fp32_twin(self) -> Planned:
        """What generates alternately with the case where the platform interleaves twins, free of faults."""
        return Planned(self.case.fp32_twin, self.platform)

    def shares_worker_with(self, other: Planned) -> bool:
        """Whether one worker can hold both cases. A fault is armed for a whole worker."""
        return (
            self.case.worker_key == other.case.worker_key
            and self.platform == other.platform
            and not self.injections
            and not other.injections
        )


def blank(planned: Planned) -> Run:
    """The run of a case before anything of it is measured."""
    case = planned.case
    return Run(
        id=case.id,
        digest=case.digest,
        platform=planned.platform.id,
        pipeline=case.build.pipeline.id,
        status=Status.INCONCLUSIVE,
        reason=REASON_OF_PROGRESS[Progress.PLANNED],
        progress=Progress.PLANNED,
        reference=None if case.is_reference else case.reference.id,
        injected=tuple(map(injections.spelled, planned.injections)),
        projected=case.workload.measured_steps is not None,
    )


class PlannedCases:
    """The selected cases in their order, and the references that they need but that nobody selected."""

    def __init__(self, selected: Sequence[Planned]) -> None:
        self._selected = {each.case.id: each for each in selected}
        references = [each.reference for each in selected if each.reference is not None]
        self._implicit = {each.case.id: each for each in references if not self.has_reference(each.case)}

    def __iter__(self) -> Iterator[Planned]:
        return iter(self._selected.values())

    def __getitem__(self, case_id: str) -> Planned:
        """The selected case. Raises UsageError, which names similar ids, where it is not selected."""
        if case_id in self._selected:
            return self._selected[case_id]
        near = ", ".join(difflib.get_close_matches(case_id, self._selected, n=3)) or "none is similar"
        raise UsageError(
            f"no case {case_id!r} among the {len(self._selected)} of this session; nearest: {near}"
        )

    @property
    def blanks(self) -> Mapping[str, Run]:
        """Case id -> the run of each selected case before it is measured, in order."""
        return {each.case.id: blank(each) for each in self}

    @property
    def dependants(self) -> Mapping[str, Sequence[str]]:
        """Id of each reference -> ids of the selected cases that are compared with it."""
        found: dict[str, list[str]] = {}
        for each in self:
            if each.reference is not None:
                found.setdefault(each.reference.case.id, []).append(each.case.id)
        return found

    def has_reference(self, reference: Case) -> bool:
        """Whether `reference` is itself a selected case without injected faults, which then serves as one."""
        selected = self._selected.get(reference.id)
        return selected is not None and not selected.injections

    def sharing(self, wanted: Planned) -> tuple[list[Planned], list[Planned]]:
        """The selected cases, and the implicit references, that can share a worker with `wanted`."""
        return (
            [each for each in self._selected.values() if each.shares_worker_with(wanted)],
            [each for each in self._implicit.values() if each.shares_worker_with(wanted)],
        )
