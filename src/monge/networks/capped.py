r"""Linear maps whose spectral norm is held at most at a cap, after every step of the optimiser.

Two maps hold the cap. `clip_spectrum` is the projection in the Frobenius norm: the singular values
above the cap are set to it. `soft_cap` needs products of matrices alone, so a device does not wait
for it: with a bound k of the norm, :math:`u \in [0, 1/3]` and :math:`a = u / k^2`, the polynomial

.. math:: y = \sigma - a \sigma^3, \qquad z = y + a y^3

rises on [0, k] and takes k to :math:`k (1 - 3 u^2 + 3 u^3 - u^4)`, at least
:math:`\tfrac{62}{81} k`. u is solved for so that this is the cap. A matrix with a larger bound is
divided first. k is the Schatten norm of order 2 p of `spectral_bound`, so the cap is proved for
every matrix, and not estimated by power iteration.

An average of capped matrices is capped, since a norm is convex: so is the moving average of the
weights.

References:
    | Training transformers with enforced Lipschitz constants (Newhouse et al., 2025), Sec. 2
    |   -- https://arxiv.org/abs/2507.13338
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CAP = 1.0
"""The largest spectral norm of a capped linear map."""

SLACK = 1e-4
"""The share of the cap that is left for rounding in float32."""

SQUARINGS = 7
"""Of the Gram matrix in `spectral_bound`: the bound is at most n^(1 / 512) times the norm."""

WORST_DROP = 62 / 81
"""The least cap over k for which the polynomial of `soft_cap` rises on [0, k]."""

SAFETY = 1e-9
"""The relative safety factor of every computed constant; rounding in float64 is far below it."""


class CappedLinear(nn.Module):
    """Linear maps of the last axis, (..., n_in) -> (..., groups n_out), each capped.

    The weight is (groups n_out, n_in); the norm of each matrix (n_out, n_in) is held at most at
    `CAP` by `hold`, which the training loop calls after each step. The bias is free: a translation
    has the Lipschitz constant 1.
    """

    def __init__(self, n_in: int, n_out: int, groups: int = 1, *, bias: bool = True) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(groups * n_out, n_in))
        self.bias = nn.Parameter(torch.empty(groups * n_out)) if bias else None

    @property
    def matrices(self) -> Tensor:
        """The matrices, (groups, n_out, n_in), in the memory of the weight."""
        return self.weight.detach().unflatten(0, (self.groups, -1))

    def reset(self, rng: torch.Generator) -> None:
        """Singular values a little below the cap, so that nothing is lost on the way."""
        for matrix in self.matrices:
            nn.init.orthogonal_(matrix, gain=CAP * (1 - 10 * SLACK), generator=rng)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def capped_layers(network: nn.Module) -> list[CappedLinear]:
    """The layers of a network whose norms are to be held."""
    return [m for m in network.modules() if isinstance(m, CappedLinear)]


def spectral_bound(gram: Tensor) -> Tensor:
    r"""An upper bound of the spectral norm of W from its Gram matrix G = W^T W.

    :math:`\|G^p\|_F^{1/(2p)} \ge \|W\|_2` with p = 2^`SQUARINGS`, the Schatten norm of order 4 p.

    Args:
        gram: (..., n, n).

    Returns:
        (...).
    """
    log, power = torch.zeros(gram.shape[:-2], dtype=gram.dtype, device=gram.device), gram
    for k in range(SQUARINGS + 1):
        power = power if k == 0 else power @ power
        size = power.flatten(-2).norm(dim=-1).clamp_min(1e-30)
        power = power / size[..., None, None]
        log = log + size.log() / 2**k
    return (log / 2).exp()


def clip_spectrum(weight: Tensor, cap: float = CAP) -> Tensor:
    """The nearest matrices (..., m, n) of spectral norm at most `cap`: singular values clipped."""
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    return left * values.clamp_max(cap).unsqueeze(-2) @ right


def soft_cap(weight: Tensor, cap: float = CAP) -> Tensor:
    """Matrices (..., m, n), m >= n, with singular values moved below the cap by a polynomial.

    What is below the cap already, by its bound, is returned to the bit.
    """
    gram = weight.mT @ weight
    bound = spectral_bound(gram)
    goal = cap * (1 - SLACK)
    # A little above the worst case: the solution for u is then below 1/3.
    shrink = (goal / (1.005 * WORST_DROP * bound)).clamp_max(1.0)
    bound = bound * shrink
    u = _drop((1 - goal / bound).clamp_min(0.0))
    a = (u / bound.square().clamp_min(1e-30))[..., None, None]  # u is 0 for small matrices
    gram = gram * shrink.square()[..., None, None]
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    once = eye - a * gram
    return (shrink[..., None, None] * weight) @ (once + a * once @ gram @ once @ once)


def _drop(d: Tensor) -> Tensor:
    """u in [0, 1/3] with 3 u^2 - 3 u^3 + u^4 = d, from above: a larger u lowers the norm more."""
    u = (d / 3).sqrt()
    for _ in range(6):  # convex there: after the first step Newton's method comes from above
        slope = u * (6 - 9 * u + 4 * u.square())
        excess = u.square() * (3 - 3 * u + u.square()) - d
        u = torch.where(d > 0, u - excess / slope.clamp_min(1e-30), 0.0)
    return u


@torch.no_grad()
def hold(weights: Sequence[Tensor], cap: float = CAP) -> list[Tensor]:
    """Weights (groups, m, n) with the norm of each matrix at most `cap`.

    Matrices of one shape are treated in one call of each product.
    """
    shapes: dict[tuple[int, int], list[int]] = {}
    for k, weight in enumerate(weights):
        shapes.setdefault((weight.shape[1], weight.shape[2]), []).append(k)
    found = list(weights)
    for (m, n), members in shapes.items():
        stack = torch.cat([weights[k] for k in members])
        held = soft_cap(stack, cap) if m >= n else soft_cap(stack.mT, cap).mT
        parts = held.split([len(weights[k]) for k in members])
        for k, part in zip(members, parts, strict=True):
            found[k] = part
    return found


def norm_bound(weight: Tensor) -> float:
    """The spectral norm of a matrix (m, n), rounded up by `SAFETY`, in float64.

    LAPACK's singular values have an error of a small multiple of min(m, n) 1e-16 of the norm;
    `SAFETY` is ten thousand times that for 1,000 rows.
    """
    values = torch.linalg.svdvals(weight.detach().to("cpu", torch.float64))
    largest = float(values.max()) if values.numel() else 0.0
    return largest * (1 + SAFETY)
