r"""The training examples nearest to samples, and how far they are.

For each sample the two nearest training examples are found, at distances :math:`d_1 \le d_2`. Where
:math:`d_1` is a small part of :math:`d_2` a sample belongs to one training example and to no other;
`copies` makes a test of that. The quantiles of the :math:`d_1` of held-out examples say how near is
near.

Training sets repeat themselves, and repeated examples are the ones most often memorised, so
:math:`d_2` is the nearest *larger* distance: exact repetitions count once. An example and its
mirror image count as one, too.

References:
    | Why diffusion models don't memorize (Bonnaire et al., 2025) -- https://arxiv.org/abs/2505.17638
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from monge.metrics.intervals import quantile_interval
from monge.metrics.samples import Rows, Values, as_matrix, require_same_dimension
from monge.metrics.table import Row

CANDIDATES = 8
QUANTILES = (0.01, 0.05, 0.5)
GROUP = "Copies of training examples?"
CHUNK_ENTRIES = 2**23
"""Numbers in the largest intermediate of a search."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest training examples of n queries.

    Args:
        index: row of the training set that is nearest.
        distance: to it, in data units.
        second: the nearest larger distance to a training example.
    """

    index: Rows
    distance: Values
    second: Values

    @property
    def ratio(self) -> Values:
        """The distance over the second, in [0, 1]; 0 for exact copies."""
        return torch.where(self.distance > 0, self.distance / self.second, 0.0)


def nearest_neighbours(queries: Tensor, train: Tensor, examples: int | None = None) -> Neighbours:
    """The nearest training example of each query, by exhaustive search in bounded memory.

    Candidates are ranked in single precision by one matrix product for each chunk, and measured
    again in double precision, so that a copy has distance zero.

    Args:
        queries: (n, ...).
        train: (N, ...), at least two.
        examples: row i of `train` shows the example i mod this number; none: rows are examples.

    Raises:
        UserError: different dimensions or bad entries.
    """
    x, y = as_matrix(queries, "queries", minimum=1), as_matrix(train, "training set")
    require_same_dimension(x, "queries", y, "training examples")
    centre = y.mean(0)
    near_y = (y - centre).float()
    squares = near_y.square().sum(1)
    k = min(CANDIDATES, len(y))
    rows = max(1, CHUNK_ENTRIES // max(len(y), 2 * k * y.shape[1]))
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for part in x.split(rows):
        rank = torch.addmm(squares, (part - centre).float(), near_y.T, alpha=-2)
        candidates = rank.topk(k, dim=1, largest=False).indices
        exact = (y[candidates].double() - part[:, None].double()).norm(dim=2)
        distance, best = exact.min(dim=1)
        # All candidates at one distance or of one example: nothing larger was found, so the
        # ratio is one.
        shown = candidates % (examples or len(y))
        same = shown == shown.gather(1, best[:, None])
        larger = exact.masked_fill(same | (exact <= distance[:, None]), torch.inf).amin(dim=1)
        second = torch.where(larger.isfinite(), larger, distance)
        found.append((candidates.gather(1, best[:, None])[:, 0], distance, second))
    index, distance, second = map(torch.cat, zip(*found, strict=True))
    return Neighbours(index, distance, second)


def distance_rows(
    samples: Neighbours,
    heldout: Neighbours,
    baselines: Mapping[str, Neighbours],
    n_train: int,
    *,
    space: str = "data",
    group: str = GROUP,
    settings: Mapping[str, str | int | float] = MappingProxyType({}),
) -> list[Row]:
    """Quantiles of the distance to the training set.

    Args:
        space: what distances are measured between, if not the data: part of the rows' names.
        group: the part of the table that the rows stand in.
        settings: more of the protocol.
    """
    n, n_heldout = len(samples.distance), len(heldout.distance)
    where, unit = ("", "data units") if space == "data" else (f" ({space})", "feature units")
    protocol: dict[str, str | int | float] = {
        **settings,
        "training examples": n_train,
        "floor": f"{n_heldout} held-out examples",
    }
    rows = []
    for q in QUANTILES:
        between = quantile_interval(samples.distance, q)
        rows.append(
            Row(
                name=f"distance to training, {100 * q:g} %{where}",
                value=float(samples.distance.quantile(q)),
                interval=(between.low, between.high),
                interval_method=between.method,
                floor=float(heldout.distance.quantile(q)),
                baselines={k: float(found.distance.quantile(q)) for k, found in baselines.items()},
                n=n,
                protocol={**protocol, "quantile": q},
                unit=unit,
                better="near floor",
                group=group,
            )
        )
    return rows
