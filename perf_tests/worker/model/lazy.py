"""Makes the objects of the stack under test that rows of the tables describe."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from perf_tests.tables.lazy import Lazy


def resolve(target: str) -> Any:
    """The object called `"package.module:Name.attribute"`.

    Raises ImportError or AttributeError where the installed stack lacks it.
    """
    module, _, path = target.partition(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module))


def construct(lazy: Lazy) -> Any:
    """The object that `lazy` describes."""
    nested = {name: construct(value) for name, value in lazy.nested.items()}
    named = {name: resolve(target) for name, target in lazy.named.items()}
    return resolve(lazy.target)(**lazy.kwargs, **nested, **named)
