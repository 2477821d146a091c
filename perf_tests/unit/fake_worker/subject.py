"""The build that the worker holds, and what was asked of it: everything that its answers depend on."""

from __future__ import annotations

from dataclasses import dataclass, field

from perf_tests.protocol.messages import Fault
from perf_tests.protocol.reports import ComponentState, MemoryWindow, ModuleGroup, PipelineState
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Device
from perf_tests.unit.fake_worker.switches import Switches

MODULES = 24
BYTES_PER_MODULE = 1 << 20


@dataclass
class Subject:
    """A fake build."""

    switches: Switches
    case: Case = field(init=False)
    """Told by the first request."""
    device: Device = Device.CPU
    amounts: dict[Fault, float] = field(default_factory=dict)
    """Of the faults that were injected."""
    is_loaded: bool = False
    probed: bool = False
    groups: tuple[ModuleGroup, ...] = ()
    timed: int = 0
    """How many timed generations there were, with the one that is made."""

    def argument(self, switch: str) -> str | None:
        """The argument of the switch for the case that is measured; None where it is off."""
        return self.switches.argument(switch, self.case)

    def has(self, switch: str) -> bool:
        """Whether the switch is on for the case that is measured."""
        return self.argument(switch) is not None

    def number(self, switch: str) -> float:
        """The argument of the switch; 0 where it is off."""
        return float(self.argument(switch) or 0)

    @property
    def compiles(self) -> bool:
        """Whether anything is compiled."""
        return self.case.build.recipe.compiles

    @property
    def dropped(self) -> int:
        """Modules that were to be quantized, and are not."""
        return int(self.amounts.get(Fault.DROP_QUANTIZATION, 0.0))

    @property
    def quantized(self) -> int:
        """Modules that are quantized."""
        return 0 if self.case.build.recipe.scheme.weight is None else MODULES - self.dropped

    @property
    def weight_bytes(self) -> int:
        """Of the transformer: a quantized module is half as large."""
        return (2 * MODULES - self.quantized) * BYTES_PER_MODULE

    @property
    def state(self) -> PipelineState:
        """What is known of the pipeline once it is quantized."""
        transformer = ComponentState(
            weight_bytes=self.weight_bytes,
            checksum=1,
            convolutions=2,
            channels_last=2 if self.case.build.recipe.channels_last else 0,
        )
        return PipelineState(components={"transformer": transformer}, groups=self.groups)

    def window(self, mib: float) -> MemoryWindow:
        """So much memory, of the host and of the GPU where there is one."""
        on_gpu = mib if self.device is Device.CUDA else None
        return MemoryWindow(allocated_mib=on_gpu, reserved_mib=on_gpu, device_mib=on_gpu, rss_mib=mib)

    def reported(self, name: str, value: float) -> float:
        """The value that is reported for a metric that is `value`."""
        reported, _, instead = (self.argument("reports") or "").partition("=")
        twice = name in (self.argument("doubles") or "").split("+")
        return float(instead) if reported == name else value * 2 if twice else value
