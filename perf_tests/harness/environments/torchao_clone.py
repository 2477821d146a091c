"""Installs torchao by commit, from a clone: its Python alone, without the submodules of its repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perf_tests.harness.environments.uv import InstallError, Uv
from perf_tests.harness.environments.wanted import TorchaoWanted
from perf_tests.harness.environments.work_trees import WorkTrees, git
from perf_tests.protocol.errors import UsageError

WITHOUT_KERNELS = {"USE_CPP": "0"}
BUILDS_WITH = ("setuptools", "wheel")
"""What must be installed for it: in all stacks, so that they do not differ in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchaoClone:
    """A clone, whose own work tree is left alone."""

    path: Path

    def commit(self, name: str) -> TorchaoWanted:
        """The commit that a branch, a tag or a digest names. Raises UsageError where there is none."""
        try:
            found = git(self.path, "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
        except InstallError as error:
            raise UsageError(f"{self.path} has no commit {name}: fetch it first ({error})") from error
        return TorchaoWanted(commit=found)

    def install(self, uv: Uv, environment: Path, commit: str, tree: Path) -> None:
        """Build the commit in a work tree of its own, which goes afterwards, and install it.

        Neither uv nor pip may fetch it: they clone CUTLASS, too, even where nothing is compiled. Its set-up
        imports torch, so that it is built beside the torch that is installed. Raises InstallError where it
        does not build.
        """
        trees = WorkTrees(clone=self.path)
        try:
            trees.add(tree, commit)
            built = ("--no-build-isolation", str(tree.absolute()))
            uv.install(environment, *built, variables=WITHOUT_KERNELS)
        finally:
            trees.remove(tree)


def is_built_from(version: str, commit: str) -> bool:
    """Whether an installed version says that it was built from that commit, as in `0.19.0+git36027d82`."""
    _, git, digest = version.partition("+git")
    return bool(git) and bool(digest) and commit.startswith(digest)
