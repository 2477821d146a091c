"""Numbers and long sentences as all reports write them."""

from __future__ import annotations

import math
import textwrap

SIGNIFICANT_DIGITS = 4
MAX_DECIMALS = 4
MAX_LINE_LENGTH = 160
INDENT = " " * 13


def format_value(value: float | None, unit: str) -> str:
    """`value` and its unit, with four significant digits, or all digits of counts and bytes; `-` for None."""
    if value is None:
        return "-"
    return f"{_digits(value, exact=unit in ('', 'B'))} {unit}".rstrip()


def format_change(change_pct: float | None) -> str:
    """A signed percentage with two decimals; `-` for None."""
    return "-" if change_pct is None else f"{change_pct:+.2f} %"


def flat(text: str) -> str:
    """`text` on one line."""
    return " ".join(text.split())


def wrapped(name: str, text: str) -> list[str]:
    """A line that begins with `name`, continued on further lines where it is long: nothing is cut off."""
    beginning = f"  {name:<10} "
    lines = textwrap.wrap(
        flat(text),
        width=MAX_LINE_LENGTH,
        initial_indent=beginning,
        subsequent_indent=INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines or [beginning.rstrip()]


def _digits(value: float, *, exact: bool) -> str:
    if not math.isfinite(value):
        return str(value)
    if value == 0 or (exact and float(value).is_integer()):
        return f"{value:,.0f}"
    decimals = SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(decimals, 0), MAX_DECIMALS)}f}"
