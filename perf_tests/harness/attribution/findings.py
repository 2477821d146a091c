"""What was found out about one cluster of red cases, and the answer to it in words and fields; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from perf_tests.harness.attribution import diagonals, shares
from perf_tests.harness.attribution.clusters import Cluster
from perf_tests.harness.attribution.shares import StackChange
from perf_tests.harness.records.attributions import Amount, Attribution, Blame, CellReport, Corner

MEASURED, NOT_ASKED = "measured", "not asked"
MIXED = (Corner.NEW_TORCH, Corner.NEW_TORCHAO)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How differences of a metric are written."""

    amount: Callable[[StackChange], Amount]
    digits: str
    """As a format of numbers has it."""
    units: str


PERCENT = Scale(amount=diagonals.in_percent, digits="+.1f", units=" %")


@dataclass(kw_only=True, slots=True)
class Findings:
    """Filled while the stacks are measured."""

    blame: Blame = Blame.UNKNOWN
    why: str = ""
    """What the answer does not say by itself: a reason, or a remark."""
    whole: StackChange | None = None
    mixed: StackChange | None = None
    alone: dict[Corner, StackChange] = field(default_factory=dict)
    """Of a mixed stack against the good one."""
    twin: StackChange | None = None
    values: dict[Corner, float] = field(default_factory=dict)
    failed: dict[Corner, tuple[str, str]] = field(default_factory=dict)
    """Status and reason of the stacks that could not be measured."""
    asked: set[Corner] = field(default_factory=set)
    """The stacks that were measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cells:
    """The stacks of a session, as far as they are known."""

    pythons: Mapping[Corner, str]
    packages: Mapping[Corner, Mapping[str, str]]


def attribution(cluster: Cluster, found: Findings, cells: Cells, scale: Scale) -> Attribution:
    """The record of what was found."""
    first = cluster.measured or cluster.suspects[0]
    scheme, compile_mode, metric = first.key
    torch, torchao = _shares(found)
    amounts = {
        "whole": found.whole,
        "mixed": found.mixed,
        "torch_alone": found.alone.get(Corner.NEW_TORCH),
        "torchao_alone": found.alone.get(Corner.NEW_TORCHAO),
        "torch": torch,
        "torchao": torchao,
        "twin": found.twin,
    }
    return Attribution(
        case=first.run.id,
        metric=metric,
        scheme=scheme,
        compile=compile_mode,
        platform=first.run.platform,
        blame=found.blame,
        sentence=sentence(found, cells, scale, FAILURES if first.is_failure else SENTENCES),
        members=cluster.members,
        cells=tuple(_cell(corner, found, cells) for corner in Corner),
        **{name: scale.amount(each) for name, each in amounts.items() if each is not None},
    )


def _shares(found: Findings) -> tuple[StackChange | None, StackChange | None]:
    if found.whole is None or found.mixed is None:
        return None, None
    return shares.shares(found.whole, found.mixed)


def _cell(corner: Corner, found: Findings, cells: Cells) -> CellReport:
    status, reason = found.failed.get(corner, (MEASURED if corner in found.asked else NOT_ASKED, ""))
    known = cells.packages.get(corner, {})
    return CellReport(
        corner=corner,
        python=cells.pythons.get(corner, ""),
        packages={name: known[name] for name in ("torch", "triton", "torchao") if name in known},
        status=status,
        reason=reason,
        value=found.values.get(corner),
    )


# In words

SENTENCES = {
    Blame.TORCH: "{torch}: {of_torch} of {whole}; {torchao}: {of_torchao}",
    Blame.TORCHAO: "{torchao}: {of_torchao} of {whole}; {torch}: {of_torch}",
    Blame.EACH: "{torch} and {torchao}, each its part: {of_torch} and {of_torchao} of {whole}",
    Blame.TOGETHER: "{torch} only together with {torchao}: {whole}, of which {torch} alone {alone}",
    Blame.EITHER: "{torch} and {torchao}, either alone: {whole}, of which {torch} alone {alone}",
    Blame.BOTH: "{torch} and {torchao}: {of_torch} and {of_torchao} of {whole}, in what way is not known",
    Blame.NOT_REPRODUCED: (
        "not reproduced: with {good_torch} and {good_torchao} it is the same on this device today ({whole}): "
        "the device or the baseline moved, not a package"
    ),
    Blame.UNKNOWN: "not attributed",
}


FAILURES = {
    **SENTENCES,
    Blame.TORCH: "{torch}: it fails alike with {good_torchao}",
    Blame.TORCHAO: "{torchao}: it fails alike with {good_torch}",
    Blame.TOGETHER: "{torch} only together with {torchao}: with either of them alone it works",
    Blame.EITHER: "{torch} and {torchao}: with either of them alone it fails alike",
    Blame.NOT_REPRODUCED: "neither: it fails alike with {good_torch} and {good_torchao}",
}
"""Of a case that could not be measured as asked."""


def sentence(found: Findings, cells: Cells, scale: Scale, sentences: Mapping[Blame, str] = SENTENCES) -> str:
    """The answer in words."""
    if found.blame is Blame.PARTLY:
        said = _partly(found, cells, scale, is_failure=sentences is FAILURES)
    elif found.blame is Blame.TORCH and found.mixed is None:
        said = f"{_named('torch', Corner.NEW, cells)}: {_written(found.whole, scale)}"
    else:
        torch, torchao = _shares(found)
        said = sentences[found.blame].format(
            torch=_named("torch", Corner.NEW, cells),
            torchao=_named("torchao", Corner.NEW, cells),
            good_torch=_named("torch", Corner.GOOD, cells),
            good_torchao=_named("torchao", Corner.GOOD, cells),
            whole=_written(found.whole, scale),
            of_torch=_written(torch, scale, interval=True),
            of_torchao=_written(torchao, scale, interval=True),
            alone=_written(found.alone.get(Corner.NEW_TORCH), scale, interval=True),
        )
    return f"{said}: {found.why}" if found.why else said


def _partly(found: Findings, cells: Cells, scale: Scale, *, is_failure: bool) -> str:
    failed = "; ".join(
        f"{_pair(corner, cells)} cannot be measured: {status}: {reason}"
        for corner, (status, reason) in found.failed.items()
    )
    if not found.alone:
        return f"nothing more is known of {'it' if is_failure else _written(found.whole, scale)}: {failed}"
    ((corner, alone),) = found.alone.items()
    mine, other = ("torch", "torchao") if corner.has_new_torch else ("torchao", "torch")
    if is_failure:
        fares = "it fails alike" if alone.value else "it works"
        return f"{_named(mine, Corner.NEW, cells)} alone: {fares}; {failed}"
    return (
        f"{_named(mine, Corner.NEW, cells)} alone: {_written(alone, scale, interval=True)} of "
        f"{_written(found.whole, scale)}, the rest needs {_named(other, Corner.NEW, cells)}; {failed}"
    )


def _pair(corner: Corner, cells: Cells) -> str:
    torch, torchao = (
        Corner.NEW if new else Corner.GOOD for new in (corner.has_new_torch, corner.has_new_torchao)
    )
    return f"{_named('torch', torch, cells)} with {_named('torchao', torchao, cells)}"


def _named(package: str, corner: Corner, cells: Cells) -> str:
    """A package as a sentence calls it: with its version, torch with the Triton that its wheel pins."""
    packages = cells.packages.get(corner, {})
    age = "the good" if corner is Corner.GOOD else "the new"
    if package not in packages:
        return f"{age} {package}"
    # As a worker reports it, torch's version ends with its git revision in brackets.
    version = f"{package} {packages[package].partition(' (')[0]}"
    return f"{version} with Triton" if package == "torch" and "triton" in packages else version


def _written(change: StackChange | None, scale: Scale, *, interval: bool = False) -> str:
    if change is None:
        return "an unknown part"
    amount = scale.amount(change)
    text = f"{amount.value:{scale.digits}}{scale.units}"
    if not interval or change.half == 0:
        return text
    return f"{text} (95 % interval {amount.low:{scale.digits}} to {amount.high:{scale.digits}})"
