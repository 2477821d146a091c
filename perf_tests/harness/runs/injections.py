"""How an injected fault is written, in `--perf-inject` and in the record of the run: `latency:+3%`, `oom`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.messages import Fault, Injection


@dataclass(frozen=True, kw_only=True, slots=True)
class AmountForm:
    """How the amount of a fault is written."""

    pattern: re.Pattern[str]
    """Matches the whole amount; its only group is the number."""
    template: str
    """Format of the number."""
    example: float


PERCENT = re.compile(r"\+?(\d+(?:\.\d+)?)%")
COUNT = re.compile(r"([1-9]\d*)")
AMOUNT_FORMS = {
    Fault.LATENCY: AmountForm(pattern=PERCENT, template="+{:g}%", example=3),
    Fault.MEMORY: AmountForm(pattern=PERCENT, template="+{:g}%", example=2),
    Fault.DROP_QUANTIZATION: AmountForm(pattern=COUNT, template="{:g}", example=1),
    Fault.SCALE: AmountForm(pattern=PERCENT, template="+{:g}%", example=1),
}
"""The faults that take an amount."""


def parse(text: str) -> Injection:
    """The fault written as `FAULT[:AMOUNT]`. Raises UsageError for an unknown fault or a malformed amount."""
    name, _, amount = text.partition(":")
    try:
        fault = Fault(name)
    except ValueError:
        raise UsageError(f"no fault {name!r}; there are {', '.join(Fault)}") from None
    return Injection(fault=fault, amount=_amount(fault, amount))


def spelled(injection: Injection) -> str:
    """The text that `parse` reads as `injection`."""
    if injection.amount is None:
        return injection.fault.value
    return f"{injection.fault}:{AMOUNT_FORMS[injection.fault].template.format(injection.amount)}"


def _amount(fault: Fault, text: str) -> float | None:
    form = AMOUNT_FORMS.get(fault)
    if form is None:
        if text:
            raise UsageError(f"{fault} takes no amount")
        return None
    matched = form.pattern.fullmatch(text)
    if matched is None:
        example = spelled(Injection(fault=fault, amount=form.example))
        raise UsageError(f"write an amount such as {example!r}")
    return float(matched[1])
