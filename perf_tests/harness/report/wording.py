"""Numbers and long sentences as all reports write them."""

from __future__ import annotations

import math
import re
import textwrap

SIGNIFICANT_DIGITS = 4
MAX_DECIMALS = 4
MAX_LINE_LENGTH = 160
INDENT = " " * 13
CONTINUED = " \\"
COMMAND = re.compile(r"^  \w+ +(python|pytest) ")
"""A line of a failure text that holds nothing but a command, after its name."""


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


def clipped(text: str, width: int) -> str:
    """`text`, with an ellipsis in place of what is beyond `width` characters."""
    return text if len(text) <= width else f"{text[: width - 1]}\N{HORIZONTAL ELLIPSIS}"


def refitted(line: str, width: int) -> list[str]:
    """A line of a failure text on as many lines as it takes within `width`.

    What a shell is to execute is continued with a backslash, so that it can be copied as it stands.
    """
    if len(line) <= width:
        return [line]
    is_command = COMMAND.search(line) is not None
    lines = textwrap.wrap(
        line.strip(),
        width=width - len(CONTINUED) * is_command,
        subsequent_indent=INDENT,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        initial_indent=line[: len(line) - len(line.lstrip())],
    )
    if not is_command:
        return lines
    return [*(f"{each}{CONTINUED}" for each in lines[:-1]), lines[-1]]
