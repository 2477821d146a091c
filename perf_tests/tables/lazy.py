"""Objects of the stack under test, named by a table and built by a worker."""

from __future__ import annotations

from dataclasses import dataclass, field

from perf_tests.tables.digest_fields import UNLESS_DEFAULT

Value = bool | int | float | str | None | tuple[bool | int | float | str | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lazy:
    """The call `target(**kwargs, **nested)`, made only where the stack under test is installed."""

    target: str
    """`"package.module:Name"`; a method is written `"package.module:Name.method"`."""
    kwargs: dict[str, Value] = field(default_factory=dict)
    nested: dict[str, Lazy] = field(default_factory=dict)
    """Keyword arguments that are themselves objects of the stack, to be built."""
    named: dict[str, str] = field(default_factory=dict, metadata=UNLESS_DEFAULT)
    """Keyword arguments that name existing objects, such as `torch:int4`, which are not called."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Everything of the stack that the call needs."""
        nested = (target for each in self.nested.values() for target in each.targets)
        return (self.target, *nested, *self.named.values())
