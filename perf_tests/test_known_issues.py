"""Defects that recipes work around are watched, so that no workaround outlives its defect."""

from __future__ import annotations

from perf_tests.harness.plugin.fixtures import Watched


def test_known_issue(watched: Watched) -> None:
    watched.check()
