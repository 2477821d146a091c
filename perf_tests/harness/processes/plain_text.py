"""Text of a worker, which may be anything, made harmless for the terminals and files it ends up in."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from perf_tests.protocol.base import Struct

R = TypeVar("R", bound=Struct)

COMMANDS = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline: escape sequences begin with them
    "\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff"  # invisible, or changing the direction of what follows
    "]"
)
"""Characters that tell a terminal what to do instead of being shown."""


def harmless(text: str) -> str:
    """`text` with each command spelled out, as in `\\x1b[31m`."""
    if text.isprintable():  # nearly all is, and no command: a page asks this of 150,000 texts
        return text
    return COMMANDS.sub(lambda command: ascii(command[0])[1:-1], text)


def harmless_strings(reply: R) -> R:
    """`reply` with every string in it harmless."""
    return msgspec.convert(_harmless(msgspec.to_builtins(reply)), type(reply))


def _harmless(value: Any) -> Any:
    match value:
        case str():
            return harmless(value)
        case dict():
            return {_harmless(key): _harmless(each) for key, each in value.items()}
        case list() | tuple():
            return [_harmless(each) for each in value]
        case _:
            return value
