r"""Fidelity and diversity by nearest-neighbour balls around examples.

Density and coverage use balls around real examples that reach to their k-th real neighbour.
*Coverage* is the fraction of balls with a sample in them, *density* the mean number of balls
around a sample, over k. For equal laws and sizes n, density has mean 1 and coverage
:math:`1 - \prod_{i=1}^{k} (n - i)/(2n - i)`, whatever the law (Naeem et al., Sec. 3.3). *Precision*
is the fraction of samples in some real ball, *recall* the fraction of real examples in some ball
of the samples.

References:
    | Reliable fidelity and diversity metrics (Naeem et al., 2020)
    |   -- https://arxiv.org/abs/2002.09797
    | Improved precision and recall (Kynkäänniemi et al., 2019) -- https://arxiv.org/abs/1904.06991
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from monge.errors import UserError
from monge.metrics.samples import Values, as_pair, distances, own_distances

DENSITY_NEIGHBOURS = 5
PRECISION_NEIGHBOURS = 3


@dataclass(frozen=True)
class Support:
    """How two samples cover each other. Each depends on both sizes: compare at equal sizes."""

    density: float
    coverage: float
    precision: float
    recall: float


def support(
    samples: Tensor,
    real: Tensor,
    k: int = DENSITY_NEIGHBOURS,
    k_precision: int = PRECISION_NEIGHBOURS,
) -> Support:
    """Density, coverage (k neighbours), precision and recall (k_precision neighbours).

    Memory grows as the product of the sizes.

    Raises:
        UserError: not more than k examples in a sample, different dimensions, bad entries.
    """
    x, y = as_pair(samples, real)
    if min(len(x), len(y)) <= max(k, k_precision):
        raise UserError(
            f"{max(k, k_precision)} neighbours need more examples than {len(x)} and {len(y)}"
        )
    between, own_x, own_y = distances(x, y), own_distances(x), own_distances(y)
    inside = between <= _radii(own_y, k)
    return Support(
        density=float(inside.sum()) / (k * len(x)),
        coverage=float(inside.any(0).double().mean()),
        precision=float((between <= _radii(own_y, k_precision)).any(1).double().mean()),
        recall=float((_radii(own_x, k_precision) >= between.T).any(1).double().mean()),
    )


def expected_coverage(n_samples: int, n_real: int, k: int = DENSITY_NEIGHBOURS) -> float:
    """The mean of coverage when both sets follow one law without atoms (Naeem et al., Sec. 3.3).

    >>> round(expected_coverage(360, 360), 4)
    0.9694
    """
    missed = 1.0
    for i in range(1, k + 1):
        missed *= (n_real - i) / (n_samples + n_real - i)
    return 1 - missed


def _radii(own: Float[Tensor, "n n"], k: int) -> Values:
    """Distance of each example to its k-th neighbour; itself, at distance 0, is not one."""
    return own.kthvalue(k + 1, dim=1).values
