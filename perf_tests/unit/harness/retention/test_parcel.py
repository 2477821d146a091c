"""retention/parcel.py: what of a night is uploaded, and that it stays under its limit."""

from __future__ import annotations

import random
import runpy
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.records.builds import BuildReport
from perf_tests.harness.records.evidence import Evidence
from perf_tests.harness.retention import parcel
from perf_tests.harness.retention.parcel import Parcel, choose
from perf_tests.harness.runs.record import Run, Status
from perf_tests.harness.runs.record_file import read_record, write_record
from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.reports import Capture, LayerError
from perf_tests.tables.cases import Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import make_build, make_layers, make_process, make_record, make_run

main = runpy.run_path(str(Path(__file__).resolve().parents[4] / "tools" / "pack.py"))["main"]
IDS = [row.case(Weights.SYNTHETIC).id for row in MATRIX if H100 in row.platforms][:208]
PICTURE = 2_000_000
"""Bytes of a PNG of 1024 x 1024 pixels of synthetic weights."""
FILM = 6_000_000
LAYERS = 504
"""Of FLUX.1-dev."""


def night_of(out: Path, red: dict[int, str], *, cases: int = 20, layers: int = 1, processes: int = 2) -> Path:
    """The run directory of so many cases, those of `red` regressed in that metric, with pictures drawn."""
    build = make_build(layers=_layers(layers))
    runs = tuple(
        _run(out, case_id, red.get(number), build, processes) for number, case_id in enumerate(IDS[:cases])
    )
    write_record(out / "run.json", make_record(*runs, references=()))
    (out / "junit.xml").write_text("<testsuite/>")
    (out / ".lock").touch()
    _file(out / "cache" / "inductor" / "fxgraph", 30_000_000)
    return out


def _run(out: Path, case_id: str, metric: str | None, build: BuildReport, processes: int) -> Run:
    stems = [f"captures/{case_id}.0.{pair}" for pair in range(4)]
    captures = [Capture(array=f"{stem}.npy", sha256="0" * 64, image=f"{stem}.png") for stem in stems]
    for capture in captures:
        _file(out / capture.image, PICTURE)
    if metric == "psnr_db":
        for name in ("reference.png", "candidate.png", "heatmap.png"):
            _file(out / f"captures/{case_id}.0.0.{name}", PICTURE)
        _file(out / f"captures/{case_id}.0.0.mp4", FILM)
        _file(out / f"captures/{case_id}.0.0.npy", 12_000_000)
    measured = []
    for index in range(processes):
        log = f"logs/{case_id}.{index}.log"
        (out / log).parent.mkdir(exist_ok=True)
        (out / log).write_text(f"{case_id} loads\n" * 500)
        of_first = tuple(captures) if index == 0 else ()
        measured.append(make_process(build=build, captures=of_first, log=log))
    status = Status.PASS if metric is None else Status.REGRESSED
    reason = "" if metric is None else f"{metric}: beyond its limit"
    return msgspec.structs.replace(
        make_run(), id=case_id, status=status, reason=reason, processes=tuple(measured)
    )


def _layers(count: int) -> dict[str, LayerError]:
    """Figures that no archive makes smaller."""
    chance = random.Random(0)
    (layer,) = tuple(make_layers().values())[:1]
    return {
        f"transformer_blocks.{number}.attn.to_q": msgspec.structs.replace(
            layer, sqnr_db=30 + chance.random(), gain=chance.random(), worst_row_sqnr_db=chance.random()
        )
        for number in range(count)
    }


def _file(path: Path, size: int) -> None:
    """A file of that size, which takes no room on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def chosen(out: Path, limit_mb: float = parcel.LIMIT_MB) -> Parcel:
    return choose(out, read_record(out), limit_mb)


def of_kind(parcel: Parcel, *ends: str) -> list[str]:
    return [str(file) for file in parcel.files if str(file).endswith(ends)]


@pytest.mark.parametrize(
    ("red", "layers"),
    [
        pytest.param({}, 1, id="green"),
        pytest.param(dict.fromkeys(range(12), "psnr_db"), 1, id="12 red pictures"),
        pytest.param(
            {number: ("psnr_db", "denoise_step_ms")[number % 2] for number in range(208)},
            LAYERS,
            id="all red",
        ),
    ],
)
def test_a_night_of_208_cases_is_under_100_mb(tmp_path: Path, red: dict[int, str], layers: int) -> None:
    found = chosen(night_of(tmp_path, red, cases=208, layers=layers))

    assert found.megabytes <= 95.0
    sizes = {file: (tmp_path / file).stat().st_size for file in found.files}
    assert sum(sizes[Path(name)] for name in of_kind(found, ".png", ".mp4")) <= 95e6
    assert {"run.json", "junit.xml"} <= {str(file) for file in found.files}
    assert len(of_kind(found, ".log")) == 2 * 208
    assert of_kind(found, ".npy", "fxgraph", ".lock") == []


def test_what_explains_a_red_case_is_uploaded_and_no_file_from_elsewhere(tmp_path: Path) -> None:
    out = night_of(tmp_path, {3: "denoise_step_ms"})
    evidence = Evidence(
        id=IDS[3],
        script="repro/a.py",
        traces={"stable": "profiles/a.stable.json.gz", "candidate": "cache/inductor/fxgraph"},
        snapshot="profiles/a.memory.pickle.gz",
    )
    for file in evidence.files:
        _file(out / file, 1_000_000)
    write_record(out / "run.json", msgspec.structs.replace(read_record(out), evidence=(evidence,)))

    found = chosen(out)

    assert of_kind(found, "a.py", ".gz", "fxgraph") == [
        "repro/a.py",
        "profiles/a.stable.json.gz",
        "profiles/a.memory.pickle.gz",
    ]


def test_pictures_of_green_cases_are_not_uploaded(tmp_path: Path) -> None:
    found = chosen(night_of(tmp_path, {3: "psnr_db", 4: "denoise_step_ms"}))

    pictures = of_kind(found, ".png", ".mp4")
    assert {Path(name).name.partition(".0.")[0] for name in pictures} == {IDS[3], IDS[4]}
    assert len(pictures) == 4 + 4 + 4
    assert found.left_out == ()


def test_each_cause_is_shown_before_a_second_case_of_one(tmp_path: Path) -> None:
    out = night_of(tmp_path, dict.fromkeys(range(15), "psnr_db") | {18: "ssim"})
    _file(out / f"captures/{IDS[18]}.0.0.heatmap.png", PICTURE)
    found = chosen(out)

    drawn = of_kind(found, "heatmap.png")
    assert [Path(name).name.partition(".0.")[0] for name in drawn[:3]] == [IDS[0], IDS[18], IDS[1]]
    assert len(drawn) < 16
    assert found.left_out


def test_the_record_is_uploaded_however_little_room_there_is(tmp_path: Path) -> None:
    found = chosen(night_of(tmp_path, {3: "psnr_db"}), limit_mb=0.0)

    assert [str(file) for file in found.files] == ["junit.xml", "run.json"]


def test_a_killed_session_leaves_its_journal_and_its_logs(tmp_path: Path) -> None:
    _file(tmp_path / "logs" / "case.0.log", 100)
    (tmp_path / "run.jsonl").write_text("{")
    (tmp_path / "run.json.4711.tmp").touch()

    assert [str(file) for file in choose(tmp_path, None, 95.0).files] == ["run.jsonl", "logs/case.0.log"]


def test_a_file_outside_of_the_run_is_not_uploaded(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (tmp_path / "secret.log").touch()
    process = make_process(log="../secret.log")
    run = msgspec.structs.replace(make_run(), status=Status.REGRESSED, processes=(process,))

    assert choose(out, make_record(run, references=()), 95.0).files == ()


def test_the_tool_copies_the_record_as_it_is_and_says_what_did_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = night_of(tmp_path / "run", {3: "psnr_db"}, processes=1)
    arguments = [str(out), "--out", str(tmp_path / "upload"), "--limit-mb", "15"]

    assert main(arguments) == 0
    assert "did not fit, and are only in " in capsys.readouterr().out
    assert (tmp_path / "upload" / "run.json").read_bytes() == (out / "run.json").read_bytes()
    assert main(arguments) == 2
    assert "is not empty, and all of it would be uploaded" in capsys.readouterr().err


def test_the_tool_refuses_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), "--out", str(tmp_path / "upload")]) == 2
    assert "is not a directory; give that of a run" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "upload")]) == 2
    assert "holds nothing to upload" in capsys.readouterr().err


def test_the_tool_refuses_a_file_in_place_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "junit.xml").touch()
    (tmp_path / "upload").touch()
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "upload")]) == 2
    assert f"{tmp_path / 'upload'} is not a folder: choose another --out" in capsys.readouterr().err


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copy2", refuse)
    (tmp_path / "run.json").touch()
    found = Parcel(files=(Path("run.json"),), megabytes=0.0, left_out=())
    with pytest.raises(PerfError, match=r"cannot copy the run to .*: No space left on device; make room"):
        parcel.copy(found, tmp_path, tmp_path / "upload")


def test_page_is_the_first_to_be_uploaded_and_the_first_to_stay_where_it_does_not_fit(tmp_path: Path) -> None:
    night_of(tmp_path, {}, processes=1)
    (tmp_path / "report.html").write_bytes(random.Random(0).randbytes(3_000_000))

    assert Path("report.html") in choose(tmp_path, read_record(tmp_path), 95.0).files
    small = choose(tmp_path, read_record(tmp_path), 2.5)
    assert Path("report.html") in small.left_out
    assert Path("run.json") in small.files
