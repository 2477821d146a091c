"""How the worker is told to misbehave: by the variable PERF_FAKE.

It holds `SWITCH[:ARGUMENT][@GLOB]`, several of them separated by commas. A switch applies to the cases whose
id matches GLOB, or to all cases. The tables below name each switch as it is written, and say what it does.
MARKER is a file that the switch makes: once it exists, the switch does something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from perf_tests.protocol.messages import Phase
from perf_tests.tables.cases import Case

VARIABLE = "PERF_FAKE"

AT_THE_START: Mapping[str, str] = {
    "no-torch": "it cannot import torch",
    "die-on-start": "it exits before it has said anything",
    "hang-on-start": "it never says anything",
    "old-protocol": "it speaks version 0 of the protocol",
    "new-torch:MARKER": "it reports another torch, once MARKER exists",
    "versions:TORCH+TORCHAO": "it reports these versions",
    "dead-card:UUID": "it dies where it is shown that card",
    "platform:ID": "its card is one of that platform, not an H100",
    "instructions:SET": "torch would use these vector instructions",
}
"""For every case."""

INSTEAD_OF_AN_ANSWER: Mapping[str, str] = {
    "empty-reply": "an empty line",
    "garbage": "a line that is not JSON",
    "wrong-type": "a message that answers nothing",
    "answers-twice": "two answers",
    "flood": "a line that does not end",
    "escapes": "a failure in words that move the cursor of a terminal",
    "excuses-itself": "a failure that the host is to blame for",
    "exit": "it exits",
    "segfault": "it is killed by SIGSEGV",
    "killed": "it is killed by SIGKILL",
    "hang": "it never answers",
}
"""With `:PHASE`, in that phase; else at a timed generation."""

AT_A_TIMED_GENERATION: Mapping[str, str] = {
    "die-once:MARKER": "it is killed, unless MARKER exists",
    "throttled:COUNT": "the first so many are throttled on a GPU",
    "busy-host:PERCENT": "of the time, tasks waited for a core",
    "slower:PERCENT": "each is slower",
    "slows:PERCENT": "each is slower than the one before",
    "stalls:COUNT": "so many take twice as long, from the third on",
    "leaks:MIB": "each leaves so much memory allocated",
    "drifts:COUNT": "the output is another one after so many",
    "never-repeats": "the output is another one each time",
    "one-hash:HASH": "every output has that hash",
    "other-picture": "the hash is that of another picture",
    "same-picture": "the picture is that of bf16",
    "next-pair": "it is reported for the prompt after the one that was asked for",
    "one-step": "only one step is timed",
    "captures-elsewhere": "the picture is in another file than the one that was asked for",
    "claims-terabytes": "the file of the picture says that it is one of terabytes",
}

IN_AN_ANSWER: Mapping[str, str] = {
    "missing-metric:NAME": "the metric is not reported",
    "doubles:NAME[+NAME...]": "counts or sizes are twice what they are",
    "reports:NAME=VALUE": "the metric has that value, once or with each generation",
    "huge-reply": "the weights of thousands of tensors are reported",
    "refused-scheme": "torchao does not know the scheme",
    "activations:HOW": "they are quantized in that way",
    "quantizes-again": "modules that were loaded are quantized once more",
    "stays-on-host": "quantized weights of a model are on the host",
    "stays-on-device": "quantized weights are on the device",
    "other-tensor": "a tensor is not that of the twin",
    "grown-file:PERCENT": "what is saved is larger",
    "compiles-packages": "kernels are compiled where packages were to be loaded",
    "one-block-for-all": "all blocks have the weights of one",
    "copies-weights": "loaded packages hold weights of their own",
    "records-no-graph": "no step launches a CUDA graph",
    "leaves-blocks-eager": "blocks are not compiled",
    "dequantizes": "after the first image, the weights are plain tensors",
    "ineffective-setting": "no kernel is one of those that a setting asks for",
    "decodes-otherwise": "what was to be decoded in tiles is not, and the other way round",
    "loses-hooks": "after the first image, no component is offloaded",
    "keeps-weights:DEVICE": "the weights are still there after the last image",
    "idle-adapter": "an adapter has no gradient",
    "thaws": "a frozen weight is trained",
    "no-float8:PASS": "nothing multiplies in float8 in that pass, forward or backward",
    "unreported-training": "what was trained is not reported",
    "left-behind": "after the last answer, a part of the model is on another device",
    "unreported-placement": "where the weights are is not reported",
    "slower-kernel:US": "a kernel of the profiled step takes that much longer",
    "other-kernel": "another kernel does its work",
    "unprofiled": "the profiler refuses",
    "trace-elsewhere": "the trace is in another file than the one that was asked for",
    "snapshot-elsewhere": "the snapshot is in another file than the one that was asked for",
}

TABLES = (AT_THE_START, INSTEAD_OF_AN_ANSWER, AT_A_TIMED_GENERATION, IN_AN_ANSWER)
TAKES_ARGUMENT = {form.partition(":")[0]: ":" in form for table in TABLES for form in table}


class Switches:
    """The parsed value of PERF_FAKE. Raises ValueError for a switch that does not exist, or lacks its
    argument."""

    def __init__(self, text: str) -> None:
        self._switches = [_parsed(switch) for switch in text.split(",") if switch]

    def argument(self, name: str, case: Case | None = None) -> str | None:
        """The argument of the switch, None where the switch is off."""
        for switch, argument, pattern in self._switches:
            if switch == name and (pattern == "*" or (case is not None and fnmatchcase(case.id, pattern))):
                return argument
        return None

    def strikes(self, name: str, phase: Phase, case: Case) -> bool:
        """Whether the switch is on in `phase`; a switch without an argument is on while generating."""
        argument = self.argument(name, case)
        return argument is not None and (argument or Phase.GENERATE) == phase


def _parsed(switch: str) -> tuple[str, str, str]:
    """Name, argument and pattern of one switch."""
    action, _, pattern = switch.partition("@")
    name, _, argument = action.partition(":")
    if name not in TAKES_ARGUMENT:
        raise ValueError(f"{VARIABLE}: there is no switch {name!r}; switches.py names them all")
    if bool(argument) is not TAKES_ARGUMENT[name] and name not in INSTEAD_OF_AN_ANSWER:
        raise ValueError(f"{VARIABLE}: {action!r} is not how switches.py writes {name!r}")
    return name, argument, pattern or "*"
