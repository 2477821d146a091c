"""The page as HTML: whole, self-contained, harmless, legible, and in time."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import time
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.page import report_file
from perf_tests.harness.page.marks import DARK, LIGHT, OF_KIND, PHASES, Kind
from perf_tests.harness.page.pages import page_of
from perf_tests.harness.page.sources import PageSources
from perf_tests.harness.records.evidence import Evidence
from perf_tests.protocol.errors import PerfError
from perf_tests.unit.harness.page.documents import Document, Element
from perf_tests.unit.harness.page.nights import HOSTILE, SYNTHETIC, night

SIZE_LIMIT_BYTES = 10_000_000
TIME_LIMIT_S = 5.0


@pytest.fixture(scope="module")
def html() -> str:
    """The page of a hostile night of 45 rows."""
    return report_file.rendered(page_of(PageSources(record=night(45), where="run")))


@pytest.fixture(scope="module")
def page(html: str) -> Element:
    """Its elements."""
    return Document(html).root


def test_page_begins_as_html_in_english_and_names_its_encoding(html: str, page: Element) -> None:
    assert html.startswith("<!doctype html>\n")
    assert next(page.all("html")).attributes == {"lang": "en"}
    assert next(page.all("meta")).attributes == {"charset": "utf-8"}


def test_page_asks_nothing_of_any_other_file_or_machine(page: Element) -> None:
    urls = [
        value
        for element in page.everything()
        for name, value in element.attributes.items()
        if name in ("href", "src", "srcset", "action", "data", "poster", "xlink:href", "background")
    ]

    assert urls
    assert [url for url in urls if not url.startswith(("#", "data:image/", "data:video/"))] == []
    assert {element.name for element in page.everything()}.isdisjoint(
        {"link", "iframe", "object", "embed", "base", "audio"}
    )
    style = next(page.all("style")).text
    assert not re.search(r"url\(|@import|expression\(", style)


def test_files_that_explain_a_case_are_linked_by_their_place_beside_the_record() -> None:
    record = night(5)
    script = 'repro/a b"><script>.py'
    evidence = (Evidence(id=record.cases[0].id, script=script),)
    html = report_file.rendered(
        page_of(PageSources(record=msgspec.structs.replace(record, evidence=evidence), where="run"))
    )

    (link,) = [each for each in Document(html).root.all("a") if each.text == script]
    assert link.attributes["href"] == "repro/a%20b%22%3E%3Cscript%3E.py"


def test_policy_lets_nothing_in_but_the_style_and_script_of_the_page(page: Element) -> None:
    policy = next(
        each.attributes["content"]
        for each in page.all("meta")
        if each.attributes.get("http-equiv") == "Content-Security-Policy"
    )

    (style,), (script,) = page.all("style"), page.all("script")
    assert policy == (
        f"default-src 'none'; style-src '{digest(style.text)}'; script-src '{digest(script.text)}'; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    )


def digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def test_text_of_a_worker_becomes_neither_element_nor_attribute(html: str, page: Element) -> None:
    handlers = [name for element in page.everything() for name in element.attributes if name.startswith("on")]

    assert handlers == []
    assert not [each for each in page.everything() if "style" in each.attributes]
    assert len(list(page.all("script"))) == 1
    assert not list(page.all("img"))
    assert "{{ 7 * 7 }}" in page.words()
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in html
    assert not re.search("[\x00\x1b\u202e\u2028]", html)
    assert "\\x1b[31m" in page.words()


def test_page_can_be_encoded_whatever_a_worker_wrote(tmp_path: Path) -> None:
    assert "\ud800" in HOSTILE

    report_file.write(tmp_path, night(5), tmp_path / "baselines", tmp_path / "report.html")

    assert "https://example.invalid/a.js" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_picture_and_chart_has_a_title(page: Element) -> None:
    drawings = list(page.all("svg"))

    assert len(drawings) > 100
    assert [each.attributes for each in drawings if not next(each.all("title")).text.strip()] == []


def test_every_id_is_there_once_and_every_link_leads_somewhere(page: Element) -> None:
    ids = [each.attributes["id"] for each in page.everything() if "id" in each.attributes]
    links = {each.attributes["href"][1:] for name in ("a", "use") for each in page.all(name)}

    assert len(ids) == len(set(ids))
    assert [each for each in ids if re.search(r"\s", each)] == []
    assert links - set(ids) == set()


def test_every_control_has_a_label_and_is_reached_by_the_keyboard(page: Element) -> None:
    controls = [each for name in ("input", "select") for each in page.all(name)]

    assert len(controls) > 8
    for control in controls:
        assert control.parent is not None
        assert control.parent.name == "label"
        assert control.parent.words().strip()
    assert not [each for each in page.everything() if int(each.attributes.get("tabindex", "0")) > 0]
    scrolling = [each for each in page.everything() if "scroll" in each.attributes.get("class", "").split()]
    assert [each for each in scrolling if each.attributes.get("tabindex") != "0"] == []
    assert [each for each in scrolling if not each.attributes.get("aria-label")] == []


def test_page_is_whole_without_its_script(page: Element) -> None:
    (form,) = page.all("form")
    hidden = [each.name for each in page.everything() if "hidden" in each.attributes]

    assert "hidden" in form.attributes
    assert hidden == ["form"]
    assert len([each for each in page.all("details") if each.attributes.get("class") == "case"]) == 45


def test_headings_leave_out_no_level(page: Element) -> None:
    levels = [int(each.name[1]) for each in page.everything() if re.fullmatch("h[1-6]", each.name)]

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(after - before for before, after in itertools.pairwise(levels)) == 1


@pytest.mark.untraced
def test_page_of_every_row_is_small_and_written_in_time(tmp_path: Path) -> None:
    record = night()
    assert len(record.cases) >= 208
    began = time.process_time()

    report_file.write(tmp_path, record, tmp_path / "baselines", tmp_path / "report.html")

    assert time.process_time() - began < TIME_LIMIT_S
    content = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert SYNTHETIC in content
    assert 500_000 < len(content.encode()) < SIZE_LIMIT_BYTES
    assert content.count("<details") > 208


def test_page_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "no folder" / "report.html"

    with pytest.raises(PerfError, match=r"cannot write .*report\.html: No such file or directory; make room"):
        report_file.write(tmp_path, night(1), tmp_path / "baselines", path)
    said = report_file.problem_of_writing(tmp_path, night(1), tmp_path / "baselines", path)
    assert said is not None
    assert said.startswith("no page was written: PerfError: cannot write ")


def test_whatever_is_wrong_with_a_page_is_said_and_not_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: PageSources) -> None:
        raise RecursionError("deep")

    monkeypatch.setattr(report_file, "page_of", broken)

    said = report_file.problem_of_writing(
        tmp_path, night(1), tmp_path / "baselines", tmp_path / "report.html"
    )

    assert said == "no page was written: RecursionError: deep"
    assert not (tmp_path / "report.html").exists()


# Colours


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio by WCAG 2."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_wcag_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_every_text_and_shape_stands_out_from_its_ground(palette: dict[str, str]) -> None:
    texts = {"text", "muted", "link", *OF_KIND.values()}
    lines = {"band-edge", "limit"}

    for ground in ("ground", "panel"):
        faint = {name: contrast(palette[name], palette[ground]) for name in texts | lines}
        assert {name: ratio for name, ratio in faint.items() if ratio < 4.5} == {}
    assert contrast(palette["new"], palette["band"]) >= 3  # dots on the band
    assert contrast(palette["muted"], palette["band"]) >= 4.5  # the name of the line in it
    assert {colour for colour in PHASES if contrast(colour, palette["ground"]) < 3} == set()


def test_both_modes_have_the_same_colours_and_every_kind_has_one() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert set(OF_KIND) == set(Kind)
    assert set(OF_KIND.values()) < LIGHT.keys()


def test_every_kind_has_a_shape_of_its_own(page: Element) -> None:
    symbols = {
        each.attributes["id"]: [dict(c.attributes) for c in each.children] for each in page.all("symbol")
    }

    assert set(symbols) == {f"m-{kind}" for kind in Kind}
    drawn = [str(shape) for shape in symbols.values()]
    assert len(drawn) == len(set(drawn))
