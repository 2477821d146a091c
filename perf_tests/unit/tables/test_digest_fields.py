"""Which fields of a row make a case another case."""

from __future__ import annotations

from dataclasses import dataclass, field

from perf_tests.tables.digest_fields import NEVER, UNLESS_DEFAULT, identity


@dataclass(frozen=True)
class Inner:
    size: int


@dataclass(frozen=True)
class Row:
    name: str
    parts: dict[str, Inner]
    limit: float = field(default=1.0, metadata=NEVER)
    toggle: bool = field(default=False, metadata=UNLESS_DEFAULT)
    extras: tuple[str, ...] = field(default=(), metadata=UNLESS_DEFAULT)
    table: dict[str, int] = field(default_factory=dict, metadata=UNLESS_DEFAULT)


def test_identity_keeps_only_what_counts() -> None:
    row = Row(name="a", parts={"x": Inner(1)}, limit=2.0)
    assert identity(row) == {"name": "a", "parts": {"x": {"size": 1}}}


def test_field_that_was_added_later_counts_once_it_is_used() -> None:
    row = Row(name="a", parts={}, toggle=True, extras=("b",), table={"c": 1})
    assert identity(row) == {"name": "a", "parts": {}, "toggle": True, "extras": ["b"], "table": {"c": 1}}
