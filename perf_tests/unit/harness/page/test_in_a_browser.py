"""Pages in a real browser: what they load, whom they keep out, how they are worked by keyboard, how soon."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

from perf_tests.unit.harness.page.browsers import Opened, Scheme, opened, started
from perf_tests.unit.harness.page.nights import SYNTHETIC
from perf_tests.unit.harness.page.synthetic_pages import CASES, PAGES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NARROW, WIDE = 320, 1600
"""CSS pixels: a phone, which is also 1280 pixels at 400 %, and a large screen."""
PAPER = 718
"""CSS pixels of A4 between its usual margins."""
FIRST_RESULT_LIMIT_S = 1.0
SMALL = tuple(kind for kind in PAGES if kind != "full")
OPEN = "(each) => (each.open = true)"
UNFOLD = f"document.querySelectorAll('details').forEach({OPEN})"
UNFOLDED = 8
"""Parts of a page that axe reads: cases of every kind. It takes seconds for all, and they are alike."""
FLAT = """document.styleSheets[0].insertRule(
    ".scroll, th { background: none !important; position: static !important; }"
)"""
"""Without shades at the sides of tables, which axe would take for the ground of all text in them."""
TEXT_OF_CHARTS = "<text "
"""Axe sees no ground behind it; test_report_file.py computes the contrast of its colours."""
SCROLLED = "(each) => each.scrollLeft > 0"
"""Whether an element has scrolled to the right."""
FAULTY = """<!doctype html><title>Faulty</title><img src="https://example.invalid/a.png">
<p style="color: #ccc; width: 2000px">faint and wide</p><script>throw new Error("broken")</script>"""

each_kind = pytest.mark.parametrize("kind", PAGES)
each_small_kind = pytest.mark.parametrize("kind", SMALL)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    return {kind: write(folder) for kind, write in PAGES.items()}


def violations(page: Opened, *rules: str) -> str:
    """What axe has to say against the page as it is now, by `rules` or all; empty where that is nothing."""
    from axe_playwright_python.sync_playwright import Axe

    options: dict[str, object] = {"resultTypes": ["violations", "incomplete"]}
    found = Axe().run(page.tab, options=options | ({"runOnly": list(rules)} if rules else {}))
    undecided = [
        f"{rule['id']} cannot tell: {node['html'][:80]}"
        for rule in found.response["incomplete"]
        for node in rule["nodes"]
        if not node["html"].startswith(TEXT_OF_CHARTS)
    ]
    return "\n".join([found.generate_report() if found.violations_count else "", *undecided]).strip()


def too_wide(page: Opened) -> list[str]:
    """What reaches beyond the window, but for what scrolls within itself."""
    found: list[str] = page.ask(
        """() => [...document.body.querySelectorAll("*")].filter((each) =>
            !each.closest(".scroll, .skip") && each.checkVisibility()
            && each.getBoundingClientRect().right > document.documentElement.clientWidth + 1
        ).map((each) => each.outerHTML.slice(0, 80))"""
    )
    scrolls = page.ask("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return [*found, "the page scrolls sideways"] if scrolls else found


def shown(page: Opened) -> list[str]:
    """The ids of the cases that are shown, in their order."""
    ids: list[str] = page.ask(
        "[...document.querySelectorAll('details.case')].filter((each) => !each.hidden)"
        ".map((each) => each.dataset.id)"
    )
    return ids


# What it loads


def test_a_faulty_page_is_seen_to_be_faulty(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "faulty.html").write_text(FAULTY, encoding="utf-8")

    with opened(browser, tmp_path / "faulty.html", width=NARROW) as page:
        assert page.requests == ["https://example.invalid/a.png"]
        assert "broken" in page.errors
        assert "color-contrast" in violations(page)
        assert too_wide(page)[-1] == "the page scrolls sideways"


@each_kind
def test_page_asks_for_nothing_and_raises_nothing(
    browser: Browser, pages: dict[str, Path], kind: str
) -> None:
    with opened(browser, pages[kind]) as page:
        page.tab.locator("input[name=text]").fill("bf16")
        page.ask(UNFOLD)

        assert SYNTHETIC in page.tab.locator("main").inner_text()
        assert (page.requests, page.errors) == ([], [])


# Whom it keeps out


@each_small_kind
@pytest.mark.parametrize("scheme", get_args(Scheme))
def test_axe_finds_nothing(browser: Browser, pages: dict[str, Path], kind: str, scheme: Scheme) -> None:
    with opened(browser, pages[kind], width=WIDE, scheme=scheme) as page:
        page.ask(FLAT)
        page.ask(f"[...document.querySelectorAll('details')].slice(0, {UNFOLDED}).forEach({OPEN})")

        # The colours are all that differs between light and dark, and reading a page takes seconds.
        assert violations(page, *(["color-contrast"] if scheme == "dark" else [])) == ""


@each_kind
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_nothing_is_wider_than_the_window(
    browser: Browser, pages: dict[str, Path], kind: str, width: int
) -> None:
    with opened(browser, pages[kind], width=width) as page:
        if kind in SMALL:
            page.ask(UNFOLD)

        assert too_wide(page) == []


def test_what_is_wider_scrolls_within_itself_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["red"], width=NARROW) as page:
        wide = [
            each
            for each in page.tab.locator(".scroll").all()
            if each.is_visible() and each.evaluate("(each) => each.scrollWidth > each.clientWidth")
        ]

        assert len(wide) > 3
        for each in wide:
            each.focus()
            page.tab.keyboard.press("ArrowRight")
            page.tab.wait_for_function(SCROLLED, arg=each.element_handle())


def test_colours_follow_the_system_and_paper_is_white(browser: Browser, pages: dict[str, Path]) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"

    with opened(browser, pages["green"], scheme="dark") as page:
        on_screen = page.ask(ground)
        page.tab.emulate_media(media="print", color_scheme="dark")

        assert (on_screen, page.ask(ground)) == ("rgb(14, 18, 23)", "rgb(255, 255, 255)")


# The keyboard


def test_tab_reaches_every_control_and_the_focus_is_seen(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["green"]) as page:
        reached = list(walk(page))

        assert [each["outline"] for each in reached if each["outline"] == "none"] == []
        assert reached[0]["text"] == "To the cases"
        assert page.tab.locator(".filters :is(input, select, button)").count() == len(
            [each for each in reached if each["control"]]
        )
        assert page.tab.locator("details.case > summary").count() == CASES
        assert len([each for each in reached if each["name"] == "SUMMARY"]) >= CASES


def walk(page: Opened) -> Iterator[dict[str, Any]]:
    """What is focused, at each press of Tab, until it leaves the page, or could have been everywhere."""
    for _ in range(page.ask("document.querySelectorAll('*').length")):
        page.tab.keyboard.press("Tab")
        focused = page.ask(
            """(() => {
                const at = document.activeElement;
                return {name: at.tagName, text: at.textContent, control: Boolean(at.closest(".filters")),
                    outline: getComputedStyle(at).outlineStyle};
            })()"""
        )
        if focused["name"] == "BODY":
            return
        yield focused


def test_keyboard_alone_works_every_filter(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["red"]) as page:
        keys, every = page.tab.keyboard, shown(page)
        keys.press("Tab")
        keys.press("Enter")  # the link to the cases
        keys.press("Tab")

        keys.type("b1 fp8dq-")
        assert shown(page) == [case for case in every if "fp8dq-" in case]
        page.tab.locator("output").get_by_text(f"{len(shown(page))} of {CASES} cases").wait_for()
        keys.press("ControlOrMeta+a")
        keys.press("Delete")
        assert shown(page) == every

        keys.press("Tab")
        keys.press("ArrowDown")
        pipeline = page.tab.locator("select[name=pipeline]").input_value()
        assert shown(page) == [case for case in every if case.startswith(pipeline)] != every
        keys.press("ArrowUp")

        keys.press("Tab")
        keys.press("ArrowDown")
        scheme = page.tab.locator("select[name=scheme]").input_value()
        assert shown(page) == [case for case in every if f"-{scheme}-" in case] != every
        keys.press("ArrowUp")

        keys.press("Tab")
        keys.press("ArrowDown")
        assert shown(page) == sorted(every) != every

        keys.press("Tab")
        keys.press("Tab")
        keys.press("Space")  # the box of what failed
        assert len(shown(page)) == CASES - 1
        keys.press("Shift+Tab")
        keys.press("Enter")  # the button that shows all again
        page.tab.locator("output").get_by_text(f"{CASES} of {CASES} cases").wait_for()
        assert shown(page) == every


def test_keyboard_alone_unfolds_cases_and_follows_links_to_them(
    browser: Browser, pages: dict[str, Path]
) -> None:
    with opened(browser, pages["green"]) as page:
        page.tab.locator("details.case > summary").first.focus()
        page.tab.keyboard.press("Enter")
        assert page.tab.locator("details.case").first.get_attribute("open") is not None
        page.tab.keyboard.press("Space")
        assert page.tab.locator("details.case").first.get_attribute("open") is None

        page.tab.locator("a.cell").last.focus()
        page.tab.keyboard.press("Enter")
        page.tab.locator("details.case:target[open]").wait_for()


# Without a script, and on paper


def test_page_without_scripts_has_every_case_and_no_controls(
    browser: Browser, pages: dict[str, Path]
) -> None:
    with opened(browser, pages["red"], script=False) as page:
        assert not page.tab.locator("form").is_visible()
        cases = page.tab.locator("details.case")
        assert cases.count() == CASES
        assert all(case.is_visible() for case in cases.all())
        assert page.tab.locator("details.case pre").first.is_visible()
        assert not cases.last.locator(".body").is_visible()
        cases.last.locator("summary").first.click()
        assert cases.last.locator(".body").is_visible()
        assert page.errors == []


def test_paper_has_everything_that_is_folded_and_no_controls(
    browser: Browser, pages: dict[str, Path]
) -> None:
    with opened(browser, pages["red"], width=PAPER) as page:
        page.tab.emulate_media(media="print")

        assert too_wide(page) == []
        hidden = page.ask(
            "[...document.querySelectorAll('.body, pre, table, img, .chart')].filter((each) =>"
            " !each.checkVisibility({contentVisibilityAuto: true})).map((each) => each.className)"
        )
        assert hidden == []
        assert not page.tab.locator("form").is_visible()
        assert page.tab.pdf().startswith(b"%PDF")


# How soon


@pytest.mark.untraced
def test_page_of_every_row_answers_the_first_filter_in_time(browser: Browser, pages: dict[str, Path]) -> None:
    """Seconds of the page's own thread: what else the machine does does not count."""
    spent_s = sorted(seconds_to_the_first_result(browser, pages["full"]) for _ in range(5))

    assert statistics.median(spent_s) < FIRST_RESULT_LIMIT_S, spent_s


def seconds_to_the_first_result(browser: Browser, path: Path) -> float:
    """From the beginning of the navigation until a filter has shown what it found."""
    context = browser.new_context()
    tab = context.new_page()
    profiler = context.new_cdp_session(tab)
    profiler.send("Performance.enable", {"timeDomain": "threadTicks"})
    tab.goto(path.as_uri(), wait_until="commit")
    tab.locator("input[name=text]").fill("int8")
    tab.locator("details.case[hidden]").first.wait_for(state="attached")
    metrics = {each["name"]: each["value"] for each in profiler.send("Performance.getMetrics")["metrics"]}
    context.close()
    return float(metrics["ThreadTime"])
