"""Loading a compiled package compiles programs that ask which vector instructions the CPU has.

    python tools/repro/package_cpu_probes.py           # as users load it, and without being asked for the CPU
    python tools/repro/package_cpu_probes.py --probes  # one line of JSON

`aoti_load_package` warns where a package was made on another kind of CPU. To know its own, it has inductor
compile and load a program for each kind, even if nothing of the package runs on the CPU. On the host of an
H200 (torch 2.11) that took about 33 s, and the first of six packages 31.9 s of 31.9. A workaround is the
loader in C++ that it hands over to. Needs a C++ compiler, and no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODEL = "model"
CACHE = "TORCHINDUCTOR_CACHE_DIR"


def main() -> None:
    """Print how many programs each way of loading a package of one layer compiles, and how long it takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--probes", action="store_true")
    parser.add_argument("--load", choices=LOADERS, help=argparse.SUPPRESS)
    parser.add_argument("--package", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        print(json.dumps({"seconds": load(arguments.load, arguments.package)}))
        return
    with tempfile.TemporaryDirectory() as folder:
        made = package(Path(folder))
        found = {name: in_fresh_process(name, made) for name in LOADERS}
    if arguments.probes:
        print(json.dumps({"probes": found["public"][0], "without_asking": found["loader"][0]}))
        return
    for name, (probes, seconds) in found.items():
        print(f"{name:6}  {probes:2} programs compiled, {seconds:.1f} s")


def package(folder: Path) -> Path:
    """A package of one linear layer on the CPU."""
    os.environ[CACHE] = str(folder / "made")
    import torch

    layer = torch.nn.Linear(8, 8).eval()
    exported = torch.export.export(layer, (torch.zeros(1, 8),))
    file = folder / "layer.pt2"
    torch._inductor.aoti_compile_and_package(exported, package_path=str(file))
    return file


def in_fresh_process(name: str, package: Path) -> tuple[int, float]:
    """The programs that a process with an empty cache compiles to load the package, and its seconds."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--load", name, "--package", str(package)]
        said = subprocess.run(command, env={**os.environ, CACHE: cache}, stdout=subprocess.PIPE, check=True)
        compiled = sum(1 for _ in Path(cache).rglob("*.so"))
    return compiled, json.loads(said.stdout)["seconds"]


def load(name: str, package: Path) -> float:
    """Load the package, call it once, and return the seconds that loading took."""
    import torch
    import torch._inductor

    started = time.perf_counter()
    loaded = LOADERS[name](str(package))
    seconds = time.perf_counter() - started
    if loaded(torch.zeros(1, 8)).shape != (1, 8):
        raise RuntimeError(f"{name}: the package answers with another shape than (1, 8)")
    return seconds


def _public(file: str) -> Any:
    import torch

    return torch._inductor.aoti_load_package(file)


def _loader(file: str) -> Callable[..., Any]:
    import torch

    model = torch._C._aoti.AOTIModelPackageLoader(file, MODEL, False, 1, -1)
    return lambda *inputs: model.boxed_run(list(inputs))[0]


LOADERS: dict[str, Callable[[str], Any]] = {"public": _public, "loader": _loader}


if __name__ == "__main__":
    main()
