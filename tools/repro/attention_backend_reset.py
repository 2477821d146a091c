"""A model's attention backend stays active for every later model, also after it was reset.

    python tools/repro/attention_backend_reset.py           # the active backend before, with and after it
    python tools/repro/attention_backend_reset.py --active  # one line of JSON

`set_attention_backend` of diffusers sets the backend of the model's own layers, and that of the process,
which layers without their own fall back to; `reset_attention_backend` resets only the former. Needs no GPU.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

BACKEND = "_native_math"


def main() -> None:
    """Print which backend is active in the process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--active", action="store_true")
    arguments = parser.parse_args()
    before, between, after = active_backends()
    if arguments.active:
        print(json.dumps({"active": int(after == BACKEND != before), "set": int(between == BACKEND)}))
        return
    print(f"before: {before}\nset:    {between}\nreset:  {after}")


def active_backends() -> tuple[str, str, str]:
    """The active backend before a model's is set, while it is, and after it was reset."""
    from diffusers import FluxTransformer2DModel
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    def active() -> str:
        return str(_AttentionBackendRegistry.get_active_backend()[0].value)

    model: Any = FluxTransformer2DModel(  # its mixins are lost to type checkers
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(8, 12, 12),
    )
    before = active()
    model.set_attention_backend(BACKEND)
    between = active()
    model.reset_attention_backend()
    return before, between, active()


if __name__ == "__main__":
    main()
