"""Which fields of a table row distinguish one case from another: all but those that say otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

_ROLE: Final = "identity"

NEVER: Final[Mapping[str, Any]] = {_ROLE: "never"}
"""Metadata of a field that only describes or judges: `field(default=..., metadata=NEVER)`."""

UNLESS_DEFAULT: Final[Mapping[str, Any]] = {_ROLE: "unless default"}
"""Metadata of a field that enters the digest only where it differs from its default, so that adding the field
to a table leaves the baselines of all other rows valid."""


def identity(value: Any) -> Any:
    """`value` as JSON-ready data, without the fields that do not enter the digest."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    fields = _fields(type(value))  # type: ignore[arg-type]  # mypy takes the hash of instances for a class's
    if fields is not None:
        items = ((field, getattr(value, field.name)) for field in fields)
        return {field.name: identity(item) for field, item in items if _counts(field, item)}
    if isinstance(value, Mapping):
        return {key: identity(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [identity(item) for item in value]
    return value


@cache
def _fields(kind: type) -> tuple[dataclasses.Field[Any], ...] | None:
    """The fields that may enter a digest; None for what is no dataclass."""
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(field for field in dataclasses.fields(kind) if field.metadata.get(_ROLE) != NEVER[_ROLE])


def _counts(field: dataclasses.Field[Any], value: Any) -> bool:
    return field.metadata.get(_ROLE) != UNLESS_DEFAULT[_ROLE] or bool(value != _default(field))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
