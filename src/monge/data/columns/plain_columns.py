"""Converts coordinates of a table to columns in the file's units; categories become codes."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from monge.data.columns import arrow, gaps
from monge.data.columns.schema import TableCodec


def plain_columns(
    codec: TableCodec, x: Float[Tensor, "n d"]
) -> tuple[Float64[Tensor, "n columns"], list[str], list[bool]]:
    """The learned columns of coordinates, their names, and which are codes of categories.

    Labels, conditions and constants are left out. Numbers are decoded like samples, so decoding
    adds no difference between real rows and samples. A column with gaps is followed by a code that
    is 1 where its value is missing; the value there is that of its coordinates.

    Raises:
        UserError: coordinates that are not finite, or a wrong number of them.
    """
    table = codec.decode(x, fill=True)
    at, made, names, codes = 0, [], [], []
    for c in codec.columns:
        block, at = x[:, at : at + c.size], at + c.size
        if c.role not in ("number", "category") or c.size == 0:
            continue
        names.append(c.name)
        codes.append(c.role == "category")
        if c.role == "category":
            made.append(block[:, : c.value_size].argmax(1).double().cpu())
        else:
            numbers = arrow.numbers_of(table[c.name], c.name).astype(np.float64)
            made.append(torch.from_numpy(numbers))
        if c.gaps:
            names.append(gaps.name_of(c))
            codes.append(True)
            missing = gaps.are_missing(block[:, -1].double().cpu().numpy())
            made.append(torch.from_numpy(missing).double())
    return torch.stack(made, 1), names, codes
