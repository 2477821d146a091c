"""What differs between the environments of two measurements, and what must not; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from perf_tests.protocol.reports import Environment

Described = Mapping[str, str | None]
"""Name of a package, setting or part of the machine -> its version or value; None where there is none."""


def differences(before: Described, now: Described, names: Collection[str] | None = None) -> list[str]:
    """`name before -> now` for everything that differs, sorted by name.

    A name that one side lacks is `absent` there. `names` limits the comparison to these; None compares all.
    """
    return [
        f"{name} {_shown(before.get(name))} -> {_shown(now.get(name))}"
        for name in sorted({*before, *now} if names is None else names)
        if before.get(name) != now.get(name)
    ]


def stack_of(environment: Environment) -> tuple[object, ...]:
    """What measurements of two sessions must share, so that the later one goes on with those of the earlier.

    Versions of CUDA and cuDNN are among the settings.
    """
    driver = environment.gpu.driver if environment.gpu else None
    return environment.python, environment.packages, environment.settings, environment.variables, driver


def _shown(value: str | None) -> str:
    return "absent" if value is None else value
