"""Each scale of a quantized weight against the others: swapping two hardly changes the layer's error."""

from __future__ import annotations

import torch
from torch.nn import functional

MANY_SE, FEW_SE, FEW_ELEMENTS = 5.0, 12.0, 256
"""Standard errors of a scale's gain that chance explains: `MANY_SE` for at least `FEW_ELEMENTS` elements,
`FEW_SE` for fewer. Of millions of rows a handful has more than five; of 160 thousand groups of 32 one had
nine."""

MOST_COLUMNS = 1 << 11
"""Columns of a weight that are examined: half as many inputs as FLUX.1-dev has tokens, since a kernel may be
slow for many (int4wo takes two seconds for a step)."""


def farthest(weight: torch.Tensor, quantized: torch.Tensor, group_size: int | None = None) -> float:
    """The largest relative error of a scale of `quantized`, beyond what chance explains; 0 for none.

    Both are (out_features, in_features), `weight` as it was before quantization; a scale covers a row, or
    `group_size` neighbours in a row. Over the elements that it covers, the slope of quantized over original
    weights is its gain g = <w, q> / <w, w>. Its error is the difference between g and the median gain of the
    layer, as a share of that median, less some standard errors of g (White 1980:
    sqrt(sum w^2 (q - g w)^2) / <w, w>). What all scales share is in the gain of the layer instead. Scales
    over nothing but zeros of `weight` have no gain, and are ignored.
    """
    columns = _sampled(weight.shape[1], group_size).to(weight.device)
    # The kernel itself says what the layer multiplies by: each input is 1 in one place.
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
    return float(beyond[alive].max().clamp_min(0))  # NaN stays NaN, which no gate accepts


def _sampled(size: int, group_size: int | None) -> torch.Tensor:
    """int64 (scales of a row, elements of each): the columns of a weight that are examined.

    If there are too many, every second, third and so on: elements where a scale covers a row, else groups.
    """
    every = -(-size // MOST_COLUMNS)
    if group_size is None:
        return torch.arange(0, size, every)[None]
    return torch.arange(size - size % group_size).reshape(-1, group_size)[::every]
