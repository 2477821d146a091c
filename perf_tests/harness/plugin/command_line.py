"""Lets `--perf-out DIR` be written with a space: an entry point, which pytest loads before any conftest.py.

Until a conftest.py declares the options, pytest takes DIR for a folder of tests if it exists, and looks there
for its configuration and for that conftest.py. So values are joined to their options, and pytest starts
again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

PREFIX = "--perf-"


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before output is captured
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Start again where an existing path follows one of the options; ends the process then."""
    given = early_config.invocation_params.args
    joined = join_values(given)
    if joined != tuple(given):
        raise SystemExit(pytest.main(list(joined)))
    return (yield)


def join_values(arguments: Sequence[str]) -> tuple[str, ...]:
    """`arguments` with existing paths joined by `=` to the options of the suite that they follow."""
    if not any(argument.startswith(PREFIX) and "=" not in argument for argument in arguments):
        return tuple(arguments)  # the usual case, also of the tests of other projects
    from perf_tests.harness.plugin.options import OPTIONS

    joined: list[str] = []
    for argument in arguments:
        option = joined[-1] if joined else ""
        takes_value = option in OPTIONS and "action" not in OPTIONS[option]
        if takes_value and not argument.startswith("-") and Path(argument).exists():
            joined[-1] = f"{option}={argument}"
        else:
            joined.append(argument)
    return tuple(joined)
