"""TABLE: the colours of the page, light and dark. A test computes their contrast."""

from __future__ import annotations

from collections.abc import Mapping

from perf_tests.harness.page.marks import Kind

LIGHT: Mapping[str, str] = {
    "ground": "#ffffff",
    "panel": "#f4f6f8",
    "text": "#1b1f24",
    "muted": "#4d5763",
    "rule": "#c4ccd5",
    "link": "#0b4fa8",
    "band": "#cfe8d5",
    "band-edge": "#2f7d45",
    "limit": "#b3150f",
    "bad": "#b3150f",
    "warn": "#8a4600",
    "new": "#0b4fa8",
    "good": "#176a31",
    "none": "#5c6672",
}
DARK: Mapping[str, str] = {
    "ground": "#0e1217",
    "panel": "#171d24",
    "text": "#e8edf2",
    "muted": "#a6b0bb",
    "rule": "#3a4450",
    "link": "#7fbcff",
    "band": "#1d3a27",
    "band-edge": "#62c483",
    "limit": "#ff9189",
    "bad": "#ff9189",
    "warn": "#e8b84a",
    "new": "#7fbcff",
    "good": "#62c483",
    "none": "#98a3ae",
}
OF_KIND: Mapping[Kind, str] = {
    Kind.BROKEN: "bad",
    Kind.WORSE: "bad",
    Kind.SURPRISING: "bad",
    Kind.UNSURE: "warn",
    Kind.NEW: "new",
    Kind.LEFT: "warn",
    Kind.ABSENT: "none",
    Kind.BETTER: "good",
    Kind.GOOD: "good",
    Kind.NEVER: "none",
}
"""Kind -> the name of its colour."""
PHASES = ("#3b6fb6", "#b06a1c", "#5b8c3e", "#8a4fa3", "#a8474a", "#4a7f86", "#7a7433")
"""Of the parts of a bar, in turn. Each stands between white and black, so that one set serves both modes."""
