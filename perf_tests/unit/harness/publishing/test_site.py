"""A folder of nights as a static site: what it lists, what it trusts, what it refuses."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from perf_tests.harness.page.pages import page_of
from perf_tests.harness.publishing import site
from perf_tests.harness.runs.record import Run, Status
from perf_tests.harness.runs.record_file import write_record
from perf_tests.protocol.errors import BaselineError, UsageError
from perf_tests.protocol.reports import Capture
from perf_tests.unit.builders import (
    make_environment,
    make_process,
    make_record,
    make_run,
    make_verdict,
)
from perf_tests.unit.conftest import ROOT
from perf_tests.unit.harness.page.documents import Document, Element
from perf_tests.unit.harness.page.nights import HOSTILE

pages: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "tools" / "pages.py"))["main"]
STEP = "denoise_step_ms"
RED = (make_verdict(STEP, Status.REGRESSED, measured=104.0, change_pct=4.0, limit=101.0),)
GREEN = (make_verdict(STEP, Status.PASS, measured=100.0, change_pct=0.1, limit=101.0),)


def a_run(verdicts: tuple[Any, ...] = GREEN, **changes: Any) -> Run:
    status = verdicts[0].status
    return make_run(status=status, verdicts=verdicts, measured={STEP: verdicts[0].measured}, **changes)


def add(nights: Path, name: str, created_at: str, *runs: Run) -> Path:
    """A night in a folder of its own."""
    folder = nights / name
    folder.mkdir(parents=True)
    record = make_record(*(runs or (a_run(),)), created_at=created_at, command=f"pytest {name}")
    write_record(folder / "run.json", record)
    return folder


def published(tmp_path: Path) -> Element:
    """The index of the site of the nights in `tmp_path`."""
    site.write(tmp_path / "nights", tmp_path / "site", tmp_path / "none")
    return Document((tmp_path / "site" / "index.html").read_text(encoding="utf-8")).root


def rows(index: Element) -> list[list[str]]:
    """The cells of each night, as words."""
    (body,) = index.all("tbody")
    return [[" ".join(cell.words().split()) for cell in row.children] for row in body.all("tr")]


def test_index_has_a_line_for_each_night_the_newest_first(tmp_path: Path) -> None:
    packages = {"torch": "2.15.0", "torchao": "0.19.0", "numpy": "2.4"}
    process = make_process(environment=make_environment(packages=packages))
    add(tmp_path / "nights", "b", "2026-11-20T07:17:00+00:00")
    add(tmp_path / "nights", "a", "2026-11-21T07:17:00+00:00", a_run(RED, processes=(process,)))

    index = published(tmp_path)

    first, second = rows(index)
    assert first == [
        "2026-11-21 07:17",
        "cpu",
        "denoise_step_ms of flux-mini-b1-int8wo-eager: REGRESSED by +4.00 % (104.0 ms, limit 101.0 ms), "
        "green as late as 2026-11-20.red",
        "1 case: 1 red for 1 cause",
        "torch 2.15.0torchao 0.19.0",
    ]
    assert second[:4] == ["2026-11-20 07:17", "cpu", "The case is green.green", "1 case: 1 green"]
    assert [each.words() for each in index.all("title")][1:] == ["red", "green"]


def test_every_night_has_a_page_that_the_index_links(tmp_path: Path) -> None:
    add(tmp_path / "nights", "a", "2026-11-20T07:17:00+00:00")
    add(tmp_path / "nights", "b", "2026-11-21T07:17:00+00:00")

    index = published(tmp_path)

    links = [each.attributes["href"] for each in index.all("a")]
    written = {path.name for path in (tmp_path / "site").iterdir()}
    assert {*links, "index.html"} == written
    assert len(links) == 2
    for link in links:
        page = (tmp_path / "site" / link).read_text(encoding="utf-8")
        assert "flux-mini-b1-int8wo-eager" in page
        assert str(tmp_path) not in page


def test_index_loads_and_runs_nothing(tmp_path: Path) -> None:
    add(tmp_path / "nights", "a", "2026-11-20T07:17:00+00:00")

    index = published(tmp_path)

    policies = [
        each.attributes["content"]
        for each in index.all("meta")
        if each.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    (policy,) = policies
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script" not in policy
    assert {each.name for each in index.everything()}.isdisjoint({"script", "link", "img", "iframe", "base"})


def test_night_that_cannot_be_read_is_listed(tmp_path: Path) -> None:
    nights = tmp_path / "nights"
    add(nights, "good", "2026-11-20T07:17:00+00:00")
    add(nights, "dateless", "</script> in spring")
    (nights / "empty").mkdir()
    (nights / "broken").mkdir()
    (nights / "broken" / "run.json").write_text('{"format_version": 1, "cases": ')
    (nights / "later").mkdir()
    (nights / "later" / "run.json").write_text('{"format_version": 99}')
    (nights / "deep").mkdir()
    deep = "[" * 100_000 + "]" * 100_000
    (nights / "deep" / "run.json").write_text(f'{{"format_version": 1, "cases": [], "x": {deep}}}')
    (nights / "file.zip").write_bytes(b"PK")

    index = published(tmp_path)

    (section,) = index.all("section")
    said = {each.words().partition(": ")[0]: each.words() for each in section.all("li")}
    assert sorted(said) == ["broken", "dateless", "deep", "empty", "file.zip", "later"]
    assert said["later"].startswith("later: the run record later/run.json has format version 99, this suite ")
    assert "which is no date" in said["dateless"]
    assert "it is truncated or not a run.json" in said["deep"]
    assert len(rows(index)) == 1


def test_night_whose_page_fails_is_listed_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path / "nights", "a", "2026-11-20T07:17:00+00:00")
    add(tmp_path / "nights", "b", "2026-11-21T07:17:00+00:00", a_run(RED))

    def fragile(sources: Any) -> Any:
        if sources.where == "b":
            raise ZeroDivisionError("a chart of nothing")
        return page_of(sources)

    monkeypatch.setattr(site, "page_of", fragile)
    index = published(tmp_path)

    assert [row[0] for row in rows(index)] == ["2026-11-20 07:17"]
    (item,) = index.all("li")
    assert item.words() == "b: ZeroDivisionError: a chart of nothing"


def test_only_the_newest_nights_have_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "MAX_NIGHTS", 2)
    for day in (3, 1, 4, 2):
        add(tmp_path / "nights", str(day), f"2026-11-0{day}T07:17:00+00:00")

    index = published(tmp_path)

    assert [row[0][:10] for row in rows(index)] == ["2026-11-04", "2026-11-03"]
    assert "2 older ones are not shown" in index.words()
    assert len(list((tmp_path / "site").iterdir())) == 3


def test_time_of_another_zone_is_sorted_as_what_it_is(tmp_path: Path) -> None:
    add(tmp_path / "nights", "a", "2026-11-20T23:30:00-05:00")
    add(tmp_path / "nights", "b", "2026-11-21T01:00:00")

    assert [row[0] for row in rows(published(tmp_path))] == ["2026-11-21 04:30", "2026-11-21 01:00"]


def test_night_that_was_uploaded_twice_is_shown_once(tmp_path: Path) -> None:
    folder = add(tmp_path / "nights", "a", "2026-11-20T07:17:00+00:00")
    (tmp_path / "nights" / "b").mkdir()
    (tmp_path / "nights" / "b" / "run.json").write_bytes((folder / "run.json").read_bytes())

    assert len(rows(published(tmp_path))) == 1


def test_fire_drill_is_said_to_be_one(tmp_path: Path) -> None:
    add(tmp_path / "nights", "a", "2026-11-20T07:17:00+00:00", a_run(RED, injected=("latency:+5%",)))

    assert "(a fire drill: what is red was planted)" in rows(published(tmp_path))[0][2]


def test_whatever_a_night_says_is_neither_markup_nor_a_path(tmp_path: Path) -> None:
    packages = {"torch": HOSTILE, "../../up": HOSTILE}
    process = make_process(environment=make_environment(packages=packages))
    hostile = msgspec.structs.replace(
        a_run(RED, processes=(process,)), id="../../../etc/passwd", platform=f"/{HOSTILE}"
    )
    folder = tmp_path / "nights" / "<b>name"
    folder.mkdir(parents=True)
    record = make_record(hostile, created_at="2026-11-20T07:17:00+00:00", command=HOSTILE)
    # msgspec refuses to write half of a surrogate pair, and a hostile night would not be asked.
    write_record(folder / "run.json", msgspec.convert(_encodable(msgspec.to_builtins(record)), type(record)))
    (folder / "report.html").write_text("<script>alert(1)</script>")

    index = published(tmp_path)

    names = sorted(path.name for path in (tmp_path / "site").iterdir())
    assert names[0] == "index.html"
    assert len(names) == 2
    assert names[1].startswith("night-")
    assert not list(index.all("script"))
    assert not [name for each in index.everything() for name in each.attributes if name.startswith("on")]
    page = Document((tmp_path / "site" / names[1]).read_text(encoding="utf-8")).root
    assert len(list(page.all("script"))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nights", "site"]


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.replace("\ud800", "")
        case dict():
            return {_encodable(key): _encodable(each) for key, each in value.items()}
        case list() | tuple():
            return [_encodable(each) for each in value]
    return value


def test_page_shows_the_pictures_beside_the_record_and_none_from_elsewhere(tmp_path: Path) -> None:
    captures = tuple(Capture(array="", sha256="", image=name) for name in ("inside.png",))
    folder = add(
        tmp_path / "nights",
        "a",
        "2026-11-20T07:17:00+00:00",
        a_run(RED, processes=(make_process(captures=captures),)),
        a_run(
            RED,
            id="other",
            processes=(make_process(captures=(Capture(array="", sha256="", image="../secret.png"),)),),
        ),
    )
    Image.new("RGB", (8, 8)).save(folder / "inside.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "nights" / "secret.png")

    index = published(tmp_path)

    (link,) = (each.attributes["href"] for each in index.all("a"))
    page = Document((tmp_path / "site" / link).read_text(encoding="utf-8")).root
    assert [each.attributes["alt"] for each in page.all("img")] == ["this run of flux-mini-b1-int8wo-eager"]


def test_baselines_that_cannot_be_trusted_refuse_the_whole_site(tmp_path: Path) -> None:
    add(tmp_path / "nights", "a", "2026-11-20T07:17:00+00:00")
    broken = tmp_path / "baselines" / "cpu" / "flux-mini.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{}")

    with pytest.raises(BaselineError):
        site.write(tmp_path / "nights", tmp_path / "site", tmp_path / "baselines")
    assert not (tmp_path / "site" / "index.html").exists()


def test_folder_that_holds_anything_is_not_published(tmp_path: Path) -> None:
    add(tmp_path / "nights", "a", "2026-11-20T07:17:00+00:00")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "secret").write_text("")

    with pytest.raises(UsageError, match="is not empty, and all of it would be published"):
        published(tmp_path)


def test_tool_says_what_it_wrote_and_what_it_could_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(tmp_path / "nights", "a", "2026-11-20T07:17:00+00:00")
    (tmp_path / "nights" / "b").mkdir()
    out = tmp_path / "site"

    assert pages([str(tmp_path / "nights"), "--out", str(out), "--baselines", str(tmp_path / "none")]) == 0

    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "1 night has a page, no older one was left out"
    assert second.startswith("without a page: b: cannot read the run record ")
    assert third == f"{out}/index.html"


def test_tool_refuses_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nights").mkdir()

    assert pages([str(tmp_path / "nights"), "--out", str(tmp_path / "site")]) == 2
    assert capsys.readouterr().err.startswith(f"pages: {tmp_path}/nights is empty, and a site without any ")
    assert pages([str(tmp_path / "none"), "--out", str(tmp_path / "site")]) == 2
    assert "is not a folder; give the one that holds a folder for each night" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()
