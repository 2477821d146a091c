"""A night with five causes that nobody knows: what its page alone tells is written down, then compared.

    python -m perf_tests.unit.harness.page.blind_night plant DIR     # prints the hash of the sealed answers
    python -m perf_tests.unit.harness.page.blind_night open DIR      # prints the answers

The night is a session of H100 rows on a simulated card, with the fake worker, against baselines that the
same worker recorded without any cause. Its page is DIR/night/report.html. Each cause spoils the cases of one
scope, and no case belongs to two causes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import msgspec

from perf_tests.tables.cases import Case
from perf_tests.tables.recipes import CompileMode
from perf_tests.unit import fake_cards
from perf_tests.unit.conftest import FAKE_WORKER, rebaseline
from perf_tests.unit.fake_worker.switches import VARIABLE
from perf_tests.unit.harness.page.nights import h100_cases

CAUSES: Final = 5
ROWS: Final = ("flux1-schnell-*", "flux1-dev-b1-*", "sd3-*", "pixart-*", "auraflow-*", "cogvideox-5b-*[!4]")
"""Globs of the rows that the night measures."""
SCOPES: Final = 3, 12
"""How many cases a cause spoils, at least and at most."""
COUNTS: Final = "kernels_per_step", "step_tflop", "transformer_calls", "decode_calls"


def _is_quantized(case: Case) -> bool:
    return case.build.recipe.scheme.weight is not None


def _is_dynamic(case: Case) -> bool:
    weight = case.build.recipe.scheme.weight
    return weight is not None and weight.dynamic_activation


def _is_compiled(case: Case) -> bool:
    return case.build.recipe.compile is CompileMode.REGIONAL


def _is_any(_: Case) -> bool:
    return True


KINDS: Final[Mapping[str, tuple[Callable[[Case], bool], tuple[str, ...]]]] = {
    "slower": (_is_any, ("slower:6", "slower:14", "slower:40")),
    "slower from image to image": (_is_any, ("slows:3", "slows:6")),
    "leaks": (_is_any, ("leaks:4", "leaks:64")),
    "twice the work": (
        _is_any,
        (
            "doubles:kernels_per_step",
            "doubles:step_tflop",
            "doubles:transformer_calls",
            "doubles:decode_calls",
        ),
    ),
    "another picture each time": (_is_any, ("never-repeats", "drifts:3")),
    "quantized no more": (_is_quantized, ("dequantizes",)),
    "activations": (_is_dynamic, ("activations:per_tensor",)),
    "eager blocks": (_is_compiled, ("leaves-blocks-eager",)),
    "unsupported": (_is_quantized, ("refused-scheme",)),
    "crash": (_is_any, ("segfault:quantize", "killed:compile", "exit:generate")),
    "unreported": (_is_any, ("missing-metric:weight_bytes", "missing-metric:kernels_per_step")),
    "throttled card": (_is_any, ("throttled:99",)),
}
"""What may happen, to which cases, and the switches of the fake worker that have it happen."""


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """One cause, as it is sealed."""

    kind: str
    switch: str
    scope: str
    """A glob of case ids."""
    cases: tuple[str, ...]

    @property
    def told(self) -> str:
        """As the fake worker is told."""
        return f"{self.switch}@{self.scope}"


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """The answers, and what keeps anybody from guessing them by their hash."""

    salt: str
    planted: tuple[Planted, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("plant", "open"))
    parser.add_argument("folder", type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    sealed: Path = options.folder / "sealed"
    if options.action == "open":
        print(_hash(sealed.read_bytes()))
        for each in msgspec.json.decode(sealed.read_bytes(), type=Sealed).planted:
            print(f"{each.kind}: {each.switch}, {each.scope} ({len(each.cases)} cases)")
        return 0
    (options.folder / "baselines").mkdir(parents=True)
    planted = draw(random.SystemRandom(), measured())
    sealed.write_bytes(msgspec.json.encode(Sealed(salt=secrets.token_hex(16), planted=planted)))
    _measure(options.folder, planted)
    print(f"sealed: sha256 {_hash(sealed.read_bytes())}; look at {options.folder / 'night' / 'report.html'}")
    return 0


def measured() -> tuple[Case, ...]:
    """The cases of the night."""
    return tuple(
        case
        for case in h100_cases()
        if any(fnmatchcase(case.id, each) for each in ROWS) and case.build.recipe.scheme.id != "autoquant"
    )


def draw(chance: random.Random, cases: Sequence[Case]) -> tuple[Planted, ...]:
    """Causes of different kinds that share no case."""
    found: list[Planted] = []
    selected = _scopes(cases)
    for kind in chance.sample(sorted(KINDS), len(KINDS)):
        applies, switches = KINDS[kind]
        taken = {case_id for each in found for case_id in each.cases}
        scopes = [
            (scope, members)
            for scope, members in selected.items()
            if SCOPES[0] <= len(members) <= SCOPES[1]
            and all(applies(case) for case in members)
            and taken.isdisjoint(case.id for case in members)
        ]
        if len(found) < CAUSES and scopes:
            scope, members = chance.choice(scopes)
            ids = tuple(case.id for case in members)
            found.append(Planted(kind=kind, switch=chance.choice(switches), scope=scope, cases=ids))
    return tuple(found)


def _scopes(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Globs that select by pipeline, by scheme, by both, or by pipeline and how it is compiled -> what they
    select."""
    ids = sorted({case.build.pipeline.id for case in cases})
    schemes = sorted({case.build.recipe.scheme.id for case in cases})
    globs = (
        *(f"{each}-*" for each in ids),
        *(f"*-{scheme}-*" for scheme in schemes),
        *(f"{each}-*-{scheme}-*" for each in ids for scheme in schemes),
        *(f"{each}-*-{mode}" for each in ids for mode in ("eager", "regional")),
    )
    return {glob: [case for case in cases if fnmatchcase(case.id, glob)] for glob in globs}


def _measure(folder: Path, planted: Sequence[Planted]) -> None:
    """Record without any cause, then measure with all of them."""
    _session(folder / "recorded", folder / "baselines", "")
    accept = ["apply", str(folder / "recorded"), "--only", "*", "--reason", "synthetic", "--write"]
    with contextlib.redirect_stdout(None):
        code = rebaseline([*accept, "--baselines", str(folder / "baselines")])
    if code != 0:
        raise SystemExit("what the fake worker measured was not accepted")
    _session(folder / "night", folder / "baselines", ",".join(each.told for each in planted))


def _session(out: Path, baselines: Path, switches: str) -> None:
    """Its output says what was planted, so it goes to a file."""
    plugins = "perf_tests.unit.fake_cards", "perf_tests.unit.fake_worker.plugin"
    command = [
        *(sys.executable, "-m", "pytest", "-m", "h100", "-p", "no:cacheprovider"),
        *(f"-p{each}" for each in plugins),
        *(f"--perf-worker-module={FAKE_WORKER}", f"--perf-out={out}", f"--perf-baselines={baselines}"),
        *(f"--perf-case={case.id}" for case in measured()),
    ]
    with out.with_suffix(".log").open("wb") as log:
        subprocess.run(
            command,
            env={**os.environ, fake_cards.CARDS: "1", VARIABLE: switches},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,  # a night with five causes is red
        )


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
