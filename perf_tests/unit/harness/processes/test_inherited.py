"""processes/inherited.py: which variables reach a worker."""

from __future__ import annotations

import os

import pytest

from perf_tests.harness.processes.inherited import REPOSITORY, SECRETS, worker_environment
from perf_tests.tables.cases import Weights


def test_variables_reach_a_worker_only_if_allowed_and_the_callers_override_them() -> None:
    parent = {"PATH": "/bin", "TRITON_CACHE_DIR": "/old", "CUDA_VISIBLE_DEVICES": "1", "AWS_SECRET": "s"}
    environment = worker_environment(parent, {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"})
    assert environment == {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "2",
        "DIFFUSERS_ATTN_BACKEND": "native",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(REPOSITORY),
    }


def test_this_repository_comes_before_everything_else_on_the_search_path() -> None:
    environment = worker_environment({"PYTHONPATH": "/theirs"}, {})
    assert environment["PYTHONPATH"] == f"{REPOSITORY}{os.pathsep}/theirs"


SECRET = {
    "HF_TOKEN": "hf_1",
    "HF_TOKEN_PATH": "/token",
    "NVIDIA_API_KEY": "nvapi-2",
    "NVIDIA_NGC_KEY": "ngc-3",
    "TRITON_password": "4",
}


@pytest.mark.parametrize(
    ("weights", "inherited"), [(Weights.SYNTHETIC, {}), (Weights.PRETRAINED, {"HF_TOKEN": "hf_1"})]
)
def test_secrets_reach_a_worker_only_if_its_weights_need_them(
    weights: Weights, inherited: dict[str, str]
) -> None:
    parent = {**SECRET, "HF_HOME": "/hub", "NVIDIA_VISIBLE_DEVICES": "0"}
    environment = worker_environment(parent, {}, SECRETS[weights])
    assert {name: environment[name] for name in SECRET if name in environment} == inherited
    assert (environment["HF_HOME"], environment["NVIDIA_VISIBLE_DEVICES"]) == ("/hub", "0")
