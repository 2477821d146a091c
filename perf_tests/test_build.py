"""Each case builds, runs, and is verified to be what its recipe says."""

from __future__ import annotations

import pytest

from perf_tests.harness.plugin.fixtures import Judged


@pytest.mark.judges
def test_build(judged: Judged) -> None:
    judged.check_build()
