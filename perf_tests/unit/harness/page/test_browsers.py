"""Where no browser is, tests in one are skipped with the reason; where one must be, they fail."""

from __future__ import annotations

import re

import pytest

from perf_tests.unit.conftest import ROOT
from perf_tests.unit.harness.page import browsers

NONE_HERE = (
    "no browser to open pages in (chromium, chromium-browser, google-chrome-stable, google-chrome): "
    "apt-get install chromium"
)


@pytest.fixture(autouse=True)
def no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any browser, where none is required."""
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.delenv(browsers.REQUIRED, raising=False)


def test_without_a_browser_a_test_is_skipped_and_says_what_to_install() -> None:
    with pytest.raises(pytest.skip.Exception, match=re.escape(NONE_HERE)), browsers.started():
        pass


def test_without_a_browser_that_is_required_a_test_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(browsers.REQUIRED, "1")

    with pytest.raises(pytest.fail.Exception, match=re.escape(NONE_HERE)), browsers.started():
        pass


def test_without_the_packages_the_sentence_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(browsers, "find_spec", lambda _: None)

    assert browsers.missing() == (
        "no playwright and no axe_playwright_python to open pages with: pip install -e '.[dev]'"
    )


def test_full_run_requires_a_browser() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    assert f'env {browsers.REQUIRED}=1 pytest "${{BROWSER_TESTS[@]}}"' in script
    assert "BROWSER_TESTS=(perf_tests/unit/harness/page/test_in_a_browser.py)" in script
