"""Which fields of a table row distinguish one case from another: all but those that say otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

_ROLE: Final = "identity"

NEVER: Final[Mapping[str, Any]] = {_ROLE: "never"}
"""Metadata of a field that only describes or judges: `field(default=..., metadata=NEVER)`."""

UNLESS_DEFAULT: Final[Mapping[str, Any]] = {_ROLE: "unless default"}
"""Metadata of a field that enters the digest only where it differs from its default, so that adding the field
to a table leaves the baselines of all other rows valid."""


def identity(value: Any) -> Any:
    """`value` as JSON-ready data, without the fields that do not enter the digest."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: identity(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if _counts(field, getattr(value, field.name))
        }
    if isinstance(value, Mapping):
        return {key: identity(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [identity(item) for item in value]
    return value


def _counts(field: dataclasses.Field[Any], value: Any) -> bool:
    role = field.metadata.get(_ROLE)
    if role == "never":
        return False
    return role != "unless default" or value != _default(field)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
