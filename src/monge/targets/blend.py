r"""Mixtures of any laws under any affine path.

The law of x_t is the mixture of the components' laws of x_t. With the posterior probability
:math:`r_k(x)` of component k, the score and the posterior mean are averages,

.. math::
    s = \sum_k r_k s_k, \qquad D = \sum_k r_k D_k, \qquad
    \nabla v = \sum_k r_k \nabla v_k + c \sum_k r_k (D_k - D)(D_k - D)^T ,

where the last term is the part of :math:`c\,\mathrm{Cov}[x_1 | x_t]` between components; see
`base.jacobian_parts` for c.

References:
    | Stochastic Interpolants (Albergo et al., 2023), App. A -- https://arxiv.org/abs/2303.08797
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monge.errors import UserError
from monge.paths import Path
from monge.targets.base import (
    Label,
    Marginals,
    Target,
    at_least_float32,
    check_states,
    jacobian_parts,
    require,
)
from monge.tensors import expand
from monge.types import PerExample, State, Time


class Blend(Target):
    """The law sum_k w_k P_k.

    Args:
        laws: the components, of one dimension. Their own labels are dropped.
        weights: (K,), normalised here; None for equal weights.
        labelled: whether labels are component indices; else it has none.

    Raises:
        UserError: no laws, laws of several dimensions, or no weights.

    >>> from monge.paths import Linear
    >>> from monge.targets.densities import Uniform
    >>> pair = Blend([Uniform(-2, -1), Uniform(1, 2)])
    >>> float(pair.mean), round(float(pair.covariance), 12)  # 2.25 + 1/12
    (0.0, 2.333333333333)
    """

    def __init__(
        self, laws: Sequence[Target], weights: Tensor | None = None, *, labelled: bool = True
    ) -> None:
        require(len(laws) > 0, "blend", "needs at least one law")
        require(len({law.dim for law in laws}) == 1, "blend", "its laws differ in dimension")
        self.laws, self.labelled = tuple(laws), labelled
        given = torch.ones(len(laws)) if weights is None else weights
        given = torch.as_tensor(given, dtype=torch.float64)
        right = given.shape == (len(laws),) and bool((given >= 0).all() & given.isfinite().all())
        require(right and float(given.sum()) > 0, "blend", "needs a weight >= 0 for each law")
        self.weights = given / given.sum()

    def __repr__(self) -> str:
        return f"Blend(dim={self.dim}, laws={len(self.laws)})"

    @property
    def dim(self) -> int:
        return self.laws[0].dim

    @property
    def n_classes(self) -> int | None:
        return len(self.laws) if self.labelled else None

    @property
    def smooth(self) -> bool:
        return all(law.smooth for law in self.laws)

    @property
    def mean(self) -> Tensor:
        return self.weights @ torch.stack([law.mean for law in self.laws])

    @property
    def covariance(self) -> Tensor:
        means = torch.stack([law.mean for law in self.laws]) - self.mean
        within = torch.stack([law.covariance for law in self.laws])
        return torch.einsum("k,kij->ij", self.weights, within) + means.T @ (
            self.weights[:, None] * means
        )

    def sample_labelled(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        weights = self.weights.to(rng.device)
        which = torch.multinomial(weights, n, replacement=True, generator=rng)
        x = torch.empty(n, self.dim, dtype=torch.float64, device=rng.device)
        for k, law in enumerate(self.laws):
            own = which == k
            if count := int(own.sum()):
                x[own] = law.sample(count, rng)
        return x, which if self.labelled else None

    def at(self, path: Path) -> BlendMarginals:
        return BlendMarginals(self, path)


@dataclass(frozen=True)
class BlendMarginals(Marginals):
    """The laws of a blend along a path; a label k selects component k alone, if it has labels."""

    target: Blend
    path: Path

    def log_density(self, x: State, t: Time, label: Label = None) -> PerExample:
        return self._logits(x, t, label).logsumexp(1)

    def moments(self, x: State, t: Time, label: Label = None) -> tuple[State, State]:
        r = self._posterior(x, t, label)
        scores, means = self._moments(at_least_float32(x), t)
        score, mean = (torch.einsum("bk,bki->bi", r, m) for m in (scores, means))
        return score.to(x.dtype), mean.to(x.dtype)

    def jacobian(self, x: State, t: Time, label: Label = None) -> Tensor:
        r, spread, gain = self._between(x, t, label)
        each = [law.at(self.path).jacobian(at_least_float32(x), t) for law in self.target.laws]
        within = torch.einsum("bk,bkij->bij", r, torch.stack(each, 1))
        between = torch.einsum("bk,bki,bkj->bij", r, spread, spread)
        return (within + expand(gain, between) * between).to(x.dtype)

    def divergence(self, x: State, t: Time, label: Label = None) -> PerExample:
        r, spread, gain = self._between(x, t, label)
        each = [law.at(self.path).divergence(at_least_float32(x), t) for law in self.target.laws]
        within = (r * torch.stack(each, 1)).sum(1)
        return (within + gain * (r * spread.square().sum(2)).sum(1)).to(x.dtype)

    def _between(self, x: State, t: Time, label: Label) -> tuple[Tensor, Tensor, Tensor]:
        """r_k (B, K), D_k - D (B, K, D), and c () or (B,)."""
        r = self._posterior(x, t, label)
        _, means = self._moments(at_least_float32(x), t)
        mean = torch.einsum("bk,bki->bi", r, means)
        _, gain = jacobian_parts(self.path, t, at_least_float32(x))
        return r, means - mean[:, None], gain

    def _moments(self, x: State, t: Time) -> tuple[Tensor, Tensor]:
        """Score and posterior mean of each component, (B, K, D)."""
        found = [law.at(self.path).moments(x, t) for law in self.target.laws]
        scores, means = zip(*found, strict=True)
        return torch.stack(scores, 1), torch.stack(means, 1)

    def _posterior(self, x: State, t: Time, label: Label) -> Tensor:
        return self._logits(at_least_float32(x), t, label).softmax(1)

    def _logits(self, x: State, t: Time, label: Label) -> Tensor:
        """log w_k p_k(x), (B, K)."""
        check_states(x, self.target)
        each = [law.at(self.path).log_density(x, t) for law in self.target.laws]
        logits = torch.stack(each, 1)
        weights = self.target.weights.to(logits).log()
        if label is None or not self.target.labelled:
            return logits + weights
        size = len(weights)
        if label.numel() and int(label.max()) >= size:
            raise UserError(f"label {int(label.max())} of a blend with labels 0 to {size - 1}")
        index = torch.arange(size, device=label.device)
        alone = torch.where(label[:, None] == index, 0.0, -math.inf).to(logits)
        return logits + torch.where(label[:, None] < 0, weights, alone)
