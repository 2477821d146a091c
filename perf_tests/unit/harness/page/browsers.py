"""A Chromium of the machine, without a window, and pages that remember what went wrong in them.

`python -m perf_tests.unit.harness.page.browsers` says what is missing here, and how to install it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Error, Request
    from playwright.sync_api import Page as Tab

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
"""What distributions and hosted runners call it."""
PACKAGES = ("playwright", "axe_playwright_python")
REQUIRED = "PERF_BROWSER_REQUIRED"
"""The environment variable that makes a failure of a skipped test: for where a browser must be."""
ARGUMENTS = (
    "--no-sandbox",  # root has none, and the pages are our own
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Scheme = Literal["light", "dark"]


def missing() -> str:
    """What opening a page takes and is not installed here, and how to install it; empty where all is."""
    if not any(map(shutil.which, NAMES)):
        return f"no browser to open pages in ({', '.join(NAMES)}): apt-get install chromium"
    packages = [name for name in PACKAGES if find_spec(name) is None]
    return f"no {' and no '.join(packages)} to open pages with: pip install -e '.[dev]'" if packages else ""


@dataclass(kw_only=True)
class Opened:
    """A page in a browser, with what it did that no page may do."""

    tab: Tab
    requests: list[str] = field(default_factory=list)
    """Of the page: whatever it asked for, but itself and what it holds."""
    errors: list[str] = field(default_factory=list)
    """Exceptions, and what the console calls an error or a warning."""

    def __post_init__(self) -> None:
        """Listen from now on."""
        self.tab.on("request", self._asks)
        self.tab.on("console", self._says)
        self.tab.on("pageerror", self._raises)

    def ask(self, script: str) -> Any:
        """The value of an expression of JavaScript."""
        return self.tab.evaluate(script)

    def _asks(self, request: Request) -> None:
        if not (request.is_navigation_request() or request.url.startswith("data:")):
            self.requests.append(request.url)

    def _says(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _raises(self, error: Error) -> None:
        self.errors.append(error.message)


@contextmanager
def started() -> Iterator[Browser]:
    """A browser with an empty profile. Skips the test where there is none, unless it is required."""
    if why := missing():
        if os.environ.get(REQUIRED):
            pytest.fail(why)
        pytest.skip(why)
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, NAMES)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, path: Path, *, width: int = 1000, scheme: Scheme = "light", script: bool = True
) -> Iterator[Opened]:
    """The page of the file `path`, loaded, in a window of that width."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=script
    )
    page = Opened(tab=context.new_page())
    page.tab.goto(path.as_uri())
    yield page
    context.close()


if __name__ == "__main__":
    sys.exit(missing() or None)
