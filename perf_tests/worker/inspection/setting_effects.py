"""What became of the settings that a recipe makes: their values, and the kernels that tell."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from perf_tests.protocol.reports import SettingReport
from perf_tests.tables.recipes import Recipe, Setting
from perf_tests.worker.model import inductor_settings


def report(recipe: Recipe, step: Mapping[str, int] | None) -> dict[str, SettingReport]:
    """By id of setting; `step` says how often a denoise step ran each kernel, None where nobody looked."""
    return {
        setting.id: SettingReport(
            inductor=inductor_settings.read(setting.inductor), kernels=_telling(setting, step)
        )
        for setting in recipe.settings
    }


def _telling(setting: Setting, step: Mapping[str, int] | None) -> int | None:
    if setting.kernels is None or step is None:
        return None
    return sum(count for name, count in step.items() if fnmatchcase(name, setting.kernels))
