from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.baselines import transaction
from perf_tests.harness.compare import readme_tables
from perf_tests.protocol.errors import BaselineError, UsageError
from perf_tests.unit.builders import MINI_INT8WO, make_baselines, make_entry, store_baselines
from perf_tests.unit.published import CASES

BASELINES = Path(__file__).resolve().parents[4] / "baselines"
BF16 = "flux1-dev-b1-bf16-regional"
FP8 = "flux1-dev-b1-fp8dqrow-regional"
B4 = "flux1-dev-b4-bf16-regional"
NUMBERS = {
    BF16: {
        "latency_s": [3.95, 4.0, 3.5],
        "denoise_step_ms": [135.14, 136.0, 120.0],
        "model_memory_mib": [32184.32] * 3,
        "peak_allocated_mib": [34652.16] * 3,
        "compile_cold_s": [21.52],
        "compile_warm_s": [5.0, 5.1],
    },
    FP8: {
        "latency_s": [2.9997],
        "denoise_step_ms": [99.996],
        "speedup_vs_bf16": [1.3504],
        "model_memory_mib": [20846.1],
        "peak_allocated_mib": [23318.1],
        "compile_cold_s": [16.0],
        "psnr_db": [34.6, 33.84, 34.5, 34.4],
        "ssim": [0.9951, 0.9949, 0.9936, 0.995],
    },
    B4: {"latency_s": [15.2], "denoise_step_ms": [1528.4]},
}
PUBLISHED = """\
gpu,pipeline,batch_size,fuse_qkv,compile,compile_vae,scheme,model_memory_gib,peak_memory_gib,latency_s,case,reason
H100,flux1-dev,1,false,true,false,fp8dqrow,20.37,31.82,3.039,flux1-dev-b1-fp8dqrow-regional,
"""
HEAD = (
    "| case | processes | s | step ms | x bf16 | model GiB | peak GiB | compile s, cold / warm "
    "| PSNR dB / SSIM | published s |"
)
BF16_LINE = f"| `{BF16}` | 3 | 3.950 | 135.1 |  | 31.43 | 33.84 | 21.5 / 5.0 |  |  |"
FP8_LINE = f"| `{FP8}` | 1 | 3.000 | 100.0 | 1.350 | 20.36 | 22.77 | 16.0 | 33.8 / 0.9936 | 3.039 |"
B4_LINE = f"| `{B4}` | 1 | 15.20 p | 1528 |  |  |  |  |  |  |"
BEGIN = "<!-- python tools/rebaseline.py show --markdown --platform h100 -->"
END = "<!-- end of h100 -->"
BLOCK = "\n".join(
    (BEGIN, HEAD, "|---|---|---|---|---|---|---|---|---|---|", BF16_LINE, FP8_LINE, B4_LINE, END)
)


def _accept(root: Path, numbers: Mapping[str, Mapping[str, Sequence[float]]], platform: str = "h100") -> None:
    entries = {case: make_entry(each, case=CASES[case], layers={}) for case, each in numbers.items()}
    # One value per pair, however many processes there are.
    entries = {
        case: msgspec.structs.replace(entry, processes=len(entry.metrics["latency_s"]))
        for case, entry in entries.items()
    }
    baselines = make_baselines(platform=platform, pipeline="flux1-dev", cases=entries)
    store_baselines(root, baselines)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store of three accepted rows on an H100, and of one published latency."""
    _accept(tmp_path, NUMBERS)
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "flux1-dev.csv").write_text(PUBLISHED)
    return tmp_path


def _refresh(root: Path) -> tuple[Path, ...]:
    with transaction.exclusive(root):
        return readme_tables.refresh(root)


def test_a_table_has_the_medians_the_lowest_pair_and_what_was_published(root: Path) -> None:
    assert readme_tables.show(root) == BLOCK


def test_rows_stand_by_batch_size_and_not_as_they_were_accepted(root: Path) -> None:
    _accept(root, dict(reversed(NUMBERS.items())))
    assert readme_tables.show(root) == BLOCK


def test_a_table_leaves_out_columns_that_no_row_fills(root: Path) -> None:
    assert readme_tables.show(root, B4).splitlines()[1:-1] == [
        "| case | processes | s | step ms |",
        "|---|---|---|---|",
        f"| `{B4}` | 1 | 15.20 p | 1528 |",
    ]


def test_what_was_published_for_another_gpu_is_not_in_the_table(root: Path) -> None:
    _accept(root, {FP8: NUMBERS[FP8]}, platform="h200")
    shown = readme_tables.show(root, FP8, "h200")
    assert shown.splitlines()[3] == FP8_LINE.replace(" 3.039 |", "")


def test_a_warm_compilation_without_a_cold_one_is_not_taken_for_it(root: Path) -> None:
    _accept(root, {BF16: {"latency_s": [4.0], "compile_warm_s": [5.0]}})
    assert readme_tables.show(root).splitlines()[3] == f"| `{BF16}` | 1 | 4.000 | - / 5.0 |"


def test_tables_of_all_gpu_platforms_are_shown_and_none_of_a_cpu(root: Path) -> None:
    store_baselines(root, make_baselines())
    _accept(root, {B4: NUMBERS[B4]}, platform="h200")
    shown = readme_tables.show(root)
    assert shown.startswith(
        f"{BLOCK}\n\n<!-- python tools/rebaseline.py show --markdown --platform h200 -->\n"
    )
    assert MINI_INT8WO.id not in shown


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param(("*", "cpu"), "--markdown shows no cpu, only h100 and h200", id="cpu"),
        pytest.param(("*", "h200"), "no baseline of h200 under .* matches '\\*'", id="nothing-accepted"),
        pytest.param(("sd35-*", None), "no baseline of h100 or h200 .* matches 'sd35-\\*'", id="pattern"),
    ],
)
def test_a_table_without_rows_is_refused(root: Path, arguments: tuple[str, str | None], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        readme_tables.show(root, *arguments)


def test_a_readme_that_holds_the_table_has_no_problem(root: Path) -> None:
    (root / "README.md").write_text(f"# Title\n\n{BLOCK}\n\nProse.\n")
    assert readme_tables.problems(root) == ()
    assert _refresh(root) == ()


def test_a_store_without_a_readme_has_no_problem(root: Path) -> None:
    assert readme_tables.problems(root) == ()
    assert _refresh(root) == ()


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param(BLOCK.replace("135.1", "134.1"), id="a-number"),
        pytest.param(BLOCK.replace(f"{FP8_LINE}\n", ""), id="a-row-is-missing"),
        pytest.param(f"{BEGIN}\n{END}", id="empty"),
    ],
)
def test_an_edited_table_is_a_problem_until_it_is_refreshed(root: Path, edited: str) -> None:
    readme = root / "README.md"
    readme.write_text(f"# Title\n\n{edited}\n\nProse with \\1 in it.\n")
    (problem,) = readme_tables.problems(root)
    assert problem == (
        f"{readme} does not hold the table of what was accepted on h100: fix it with "
        "`python tools/rebaseline.py rewrite`; where it has no such table yet, insert what "
        "`python tools/rebaseline.py show --markdown --platform h100` prints"
    )
    assert _refresh(root) == (readme,)
    assert readme.read_text() == f"# Title\n\n{BLOCK}\n\nProse with \\1 in it.\n"
    assert readme_tables.problems(root) == ()


@pytest.mark.parametrize("text", ["Prose.\n", f"{BEGIN}\nno end\n", f"{END}\n{BEGIN}\n"])
def test_a_table_that_the_readme_does_not_have_stays_a_problem(root: Path, text: str) -> None:
    (root / "README.md").write_text(text)
    assert _refresh(root) == ()
    assert (root / "README.md").read_text() == text
    assert len(readme_tables.problems(root)) == 1


def test_an_unreadable_readme_is_an_error(root: Path) -> None:
    (root / "README.md").write_bytes(b"\xff")
    with pytest.raises(BaselineError, match=r"README\.md cannot be read"):
        readme_tables.problems(root)


def test_the_tables_of_the_committed_readme_are_those_of_the_store() -> None:
    assert readme_tables.problems(BASELINES) == ()
