"""The paths and targets that the laws of this folder run over; every target is smooth."""

from __future__ import annotations

import torch

from monge.components import build
from monge.paths import Path
from monge.targets.base import Target
from monge.targets.gaussian import Gaussian, GaussianSpec
from monge.targets.mixture import GaussianMixture, MixtureSpec

PATHS: list[Path] = [
    build("path", text)
    for text in (
        "linear",
        "trigonometric",
        "ou",
        "ou:horizon=2",
        "linear_beta",
        "power:kappa=0.5",
        "power:kappa=0.75",
        "power:kappa=1",
        "power:kappa=2",
    )
]

LINE = GaussianMixture(
    torch.tensor([[-6.0], [4.0], [6.0]]),
    torch.tensor(0.25),
    torch.tensor([0.1, 0.4, 0.5], dtype=torch.float64),
)
"""The one-dimensional target of arXiv 2404.09730."""

TARGETS: dict[str, Target] = {
    "gaussian-diagonal": Gaussian(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 1.0, 4.0])),
    "gaussian-full": GaussianSpec(dim=6, condition=50.0, seed=1).build(),
    "line": LINE,
    "isotropic": MixtureSpec(dim=2, modes=5, spread=1.0).build(),
    "unequal": GaussianMixture(
        MixtureSpec(dim=3, modes=3, spread=1.5).build().means,
        torch.tensor([0.1, 0.5, 1.5]),
        torch.tensor([1.0, 2.0, 3.0]),
    ),
    "shared": MixtureSpec(dim=4, modes=5, spread=1.0, covariance="shared", std=0.8).build(),
    "full": MixtureSpec(dim=6, modes=5, spread=1.0, covariance="full", std=0.8).build(),
}

TIMES = (0.0, 0.05, 0.5, 0.9, 1.0)


def states(target: Target, path: Path, t: float, n: int = 7) -> torch.Tensor:
    """Samples of the law at t, and beyond where it has its mass."""
    rng = torch.Generator().manual_seed(5)
    alpha, sigma = path.scales(torch.tensor(t, dtype=torch.float64))
    x1 = target.sample(n, rng)
    x0 = torch.randn(n, target.dim, dtype=torch.float64, generator=rng)
    wide = torch.linspace(0.5, 2.0, n, dtype=torch.float64)[:, None]
    return wide * (alpha * x1 + sigma * x0)


def states_at_all_times(target: Target, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """States (B, D) at times (B,) that cover the path, its ends included."""
    x = torch.cat([states(target, path, t) for t in TIMES])
    t = torch.tensor(TIMES, dtype=torch.float64).repeat_interleave(len(x) // len(TIMES))
    return x, t
