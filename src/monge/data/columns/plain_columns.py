"""Converts coordinates of a table to columns in the file's units; categories become codes."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from monge.data.columns import arrow
from monge.data.columns.schema import TableCodec


def plain_columns(
    codec: TableCodec, x: Float[Tensor, "n d"]
) -> tuple[Float64[Tensor, "n columns"], list[str], list[bool]]:
    """The learned columns of coordinates, their names, and which are codes of categories.

    Labels, conditions and constants are left out. Numbers are decoded like samples, so decoding
    adds no difference between real rows and samples.

    Raises:
        UserError: coordinates that are not finite, or a wrong number of them.
    """
    table = codec.decode(x)
    at, made, names, codes = 0, [], [], []
    for c in codec.columns:
        block, at = x[:, at : at + c.size], at + c.size
        if c.role not in ("number", "category") or c.size == 0:
            continue
        names.append(c.name)
        codes.append(c.role == "category")
        if c.role == "category":
            made.append(block.argmax(1).double().cpu())
            continue
        numbers = arrow.numbers_of(table[c.name], c.name).astype(np.float64)
        made.append(torch.from_numpy(numbers))
    return torch.stack(made, 1), names, codes
