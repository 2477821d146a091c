"""A plugin of pytest that passes PERF_FAKE on to the workers, which inherit few variables.

PYTEST_DONT_REWRITE: a session within a test finds it imported already, and warns of it, which is an error.
"""

from __future__ import annotations

import os

from perf_tests.harness.processes import inherited
from perf_tests.unit.fake_worker.switches import VARIABLE


def pytest_configure() -> None:
    """Before any worker starts."""
    inherited.ALWAYS[VARIABLE] = os.environ.get(VARIABLE, "")
