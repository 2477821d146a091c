"""A page in, one HTML file out, which asks nothing of other files or machines and escapes all it shows."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Callable
from functools import cache, partial
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from perf_tests.harness.page import pictures, sources
from perf_tests.harness.page.marks import DARK, LIGHT, OF_KIND
from perf_tests.harness.page.pages import page_of
from perf_tests.harness.page.pictures import Album
from perf_tests.harness.page.sources import PageSources
from perf_tests.harness.page.view import Page
from perf_tests.harness.processes.plain_text import harmless
from perf_tests.harness.runs.record import RunRecord
from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.files import replace_atomically

TEMPLATE, STYLE, SCRIPT = "page.html", "page.css", "page.js"
LIMIT_BYTES = 9_500_000
"""Of a page: pictures are left out of what would be larger, so that it can be mailed."""
POLICY = (
    "default-src 'none'; style-src '{style}'; script-src '{script}'; img-src data:; media-src data:; "
    "base-uri 'none'; form-action 'none'"
)
"""Of the page: nothing is loaded, sent or run but what the page holds itself."""


def problem_of_writing(out: Path, record: RunRecord, baselines: Path, path: Path) -> str | None:
    """Write the page as `write` does; None, or why there is none: a page is never worth a run."""
    try:
        write(out, record, baselines, path)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the record is what counts
        return f"no page was written: {type(error).__name__}: {error}"
    return None


def write(out: Path, record: RunRecord, baselines: Path, path: Path, history: Path | None = None) -> None:
    """Write the page about `record`, whose run directory is `out`, to the file `path`.

    `history` is a folder of earlier runs. Raises BaselineError where the baselines or published tables cannot
    be trusted, UsageError where there is no such folder, and PerfError where the disk refuses.
    """
    beside = sources.read(out, record, baselines, history)
    _, html = illustrated(beside, page_of, partial(pictures.of_record, out, record, beside.is_red))
    save(path, html, option="--out")


def illustrated(
    beside: PageSources,
    page_of_sources: Callable[[PageSources], Page],
    albums_in: Callable[[int], dict[str, Album]],
) -> tuple[Page, str]:
    """The page that `page_of_sources` makes of `beside`, with the pictures that fit into it, and its HTML.

    `albums_in` finds the pictures of all cases, for a room of so many bytes.
    """
    page = page_of_sources(beside)
    html = rendered(page)
    if albums := albums_in(LIMIT_BYTES - len(html)):
        page = page_of_sources(dataclasses.replace(beside, albums=albums))
        html = rendered(page)
    return page, html


def save(path: Path, html: str, option: str) -> None:
    """Write a page to the file `path`. Raises PerfError, naming the `option` to change, where that fails."""
    try:
        replace_atomically(path, html.encode(errors="replace"))
    except OSError as error:
        raise PerfError(
            f"cannot write {path}: {error.strerror}; make room, or choose another {option}"
        ) from error


def rendered(page: Page) -> str:
    """The HTML of `page`."""
    style, script = stylesheet(), _text(__package__, SCRIPT)
    policy = POLICY.format(style=digest(style), script=digest(script))
    return (
        environment(__package__)
        .get_template(TEMPLATE)
        .render(page=page, style=style, script=Markup(script), policy=policy)
    )


def stylesheet() -> Markup:
    """The CSS of the page, light and dark."""
    template = environment(__package__).get_template(STYLE)
    return Markup(template.render(light=LIGHT, dark=DARK, kinds=OF_KIND))


@cache
def environment(package: str) -> jinja2.Environment:
    """Renders the templates of `package`, and escapes all that is put into them."""
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(partial(_text, package)),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def _shown(value: object) -> object:
    """What is put into the page: text of a worker may hold anything, even what reorders a line of text."""
    return harmless(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def digest(text: str) -> str:
    """What a policy names a style or a script by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
