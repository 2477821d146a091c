"""Each scale of a quantized weight beside the others of it: two swapped ones leave a layer its error."""

from __future__ import annotations

import torch
from torch.nn import functional

MANY_SE, FEW_SE, FEW_ELEMENTS = 5.0, 12.0, 256
"""Standard errors of a scale's gain that chance explains, for many elements and for fewer than that many: of
millions of rows a handful has more than five; of 160 thousand groups of 32 one was seen to have nine."""

MOST_COLUMNS = 1 << 11
"""Of a weight that are looked at: half as many inputs as FLUX.1-dev has tokens, since a kernel may be slow
for many (int4wo takes two seconds for a step)."""


def farthest(weight: torch.Tensor, quantized: torch.Tensor, group_size: int | None = None) -> float:
    """How far the farthest scale of `quantized` is off, beyond what chance explains; 0 for none.

    Both (out_features, in_features), `weight` before it was quantized; a scale is of a row, or of
    `group_size` neighbours in it. Where it applies, the quantized elements over the others have a slope: the
    gain g = <w, q> / <w, w>. Counted is by how much it differs from the layer's median, as a share of that,
    and by more than some standard errors (White 1980: sqrt(sum w^2 (q - g w)^2) / <w, w>): what all scales
    share is in the gain of the layer. Where `weight` is zero there is no gain.
    """
    columns = _sampled(weight.shape[1], group_size).to(weight.device)
    # What the layer multiplies by is asked of its kernel: each input is 1 in one place.
    identity = weight.new_zeros(columns.numel(), weight.shape[1])
    identity.scatter_(1, columns.reshape(-1, 1), 1)
    q = functional.linear(identity, quantized).T.double().unflatten(1, columns.shape)
    w = weight[:, columns].double()
    ww = w.square().sum(-1)
    alive = ww > 0
    if not alive.any():
        return 0.0
    gains = (w * q).sum(-1) / ww
    residuals = w * (q - gains[..., None] * w)
    chance = residuals.square().sum(-1).sqrt() / ww
    chance *= FEW_SE if columns.shape[1] < FEW_ELEMENTS else MANY_SE
    centre = gains[alive].median()
    beyond = ((gains - centre).abs() - chance) / centre.abs()
    return float(beyond[alive].max().clamp_min(0))  # NaN stays NaN, which no gate takes for a number


def _sampled(size: int, group_size: int | None) -> torch.Tensor:
    """int64 (scales of a row, elements of each): the columns of a weight that are looked at.

    Of many, every second, third and so on: of a scale's elements where it is of a row, of the groups else.
    """
    every = -(-size // MOST_COLUMNS)
    if group_size is None:
        return torch.arange(0, size, every)[None]
    return torch.arange(size - size % group_size).reshape(-1, group_size)[::every]
