"""The base class of everything that travels between processes or is stored."""

from __future__ import annotations

from typing import dataclass_transform

import msgspec


# msgspec's own declaration does not tell type checkers that `frozen` is inherited.
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message or record: immutable, built from keywords only, and strict about unknown fields."""
