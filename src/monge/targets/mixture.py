r"""Gaussian mixtures under any affine path.

With :math:`x_1 \sim \sum_k w_k N(m_k, C_k)` the law of x_t is the mixture of
:math:`N(\alpha m_k, S_k)`, :math:`S_k = \alpha^2 C_k + \sigma^2 I`, and S_k has the eigenvectors
of C_k at all times. So each covariance is diagonalised once, and nothing is ever inverted.
Write :math:`r_k(x)` for the posterior probability of component k, and

.. math::
    g_k &= -S_k^{-1}(x - \alpha m_k), \qquad D_k = m_k - \alpha C_k g_k, \\
    u_k &= \dot\alpha D_k - \sigma\dot\sigma g_k
         = \dot\alpha m_k + A_k (x - \alpha m_k), \quad
    A_k = (\alpha\dot\alpha C_k + \sigma\dot\sigma I) S_k^{-1}

for score, posterior mean and velocity given k. Score, posterior mean and velocity v are their
averages, and :math:`\nabla v = \sum_k r_k A_k + \sum_k r_k (u_k - v)(g_k - s)^T`.

References:
    | Stochastic Interpolants (Albergo et al., 2023), App. A -- https://arxiv.org/abs/2303.08797
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.func import debug_unwrap

from monge.paths import Linear, Path
from monge.targets.base import (
    JacobianRange,
    Label,
    Marginals,
    Target,
    TargetSpec,
    at_least_float32,
    check_states,
    rates,
    require,
    scales,
)
from monge.targets.line import QuantileMap, log_cdf, marginal_quantile
from monge.targets.minimal_loss import minimal_loss_on_the_line
from monge.targets.slices import in_slices, per_example
from monge.targets.spectrum import Spectrum, diagonalise
from monge.tensors import stream
from monge.types import FlowMap, PerExample, State, Time


class GaussianMixture(Target):
    """The law sum_k w_k N(m_k, C_k). Labels are component indices.

    Args:
        means: (K, D).
        covariances: one variance (), a variance for each component (K,), one covariance (D, D),
            or a covariance for each component (K, D, D). Singular ones, and variance 0, are
            allowed: the exact field then ends before t = 1.
        weights: (K,), normalised here; None for equal weights.

    Raises:
        UserError: shapes disagree, or something is not a covariance or a weight.

    >>> from monge.paths import Linear
    >>> pair = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.tensor(0.25))
    >>> pair.field(Linear())(torch.tensor([[2.0, 0.5]]), 0.0)  # E[x1] - x at the source
    tensor([[-2.0000, -0.5000]])
    """

    def __init__(self, means: Tensor, covariances: Tensor, weights: Tensor | None = None) -> None:
        self.means = torch.as_tensor(means, dtype=torch.float64)
        require(self.means.ndim == 2 and self.means.numel() > 0, "mixture", "means must be (K, D)")
        modes, dim = self.means.shape
        self.covariances = torch.as_tensor(covariances, dtype=torch.float64)
        shapes = [(), (modes,), (dim, dim), (modes, dim, dim)]
        require(
            self.covariances.shape in shapes,
            self,
            f"covariances must have one of the shapes {shapes}, not "
            f"{tuple(self.covariances.shape)}",
        )
        given = torch.ones(modes) if weights is None else weights
        given = torch.as_tensor(given, dtype=torch.float64)
        require(
            given.shape == (modes,) and bool((given >= 0).all()) and bool(given.sum() > 0),
            self,
            f"weights must be {modes} numbers, none negative and not all zero",
        )
        self.weights = given / given.sum()
        finite = all(bool(a.isfinite().all()) for a in (self.means, self.covariances, given))
        require(finite, self, "means, covariances and weights must be finite")
        self.spectrum = diagonalise(self.means, self.covariances, self.weights, self)
        self._casts: dict[tuple[torch.dtype, torch.device], Spectrum] = {}

    def __repr__(self) -> str:
        return f"GaussianMixture(dim={self.dim}, modes={self.n_classes})"

    @property
    def dim(self) -> int:
        return self.means.shape[1]

    @property
    def n_classes(self) -> int:
        return len(self.means)

    @property
    def smooth(self) -> bool:
        return bool((self.spectrum.variances > 0).all())

    @property
    def mean(self) -> Tensor:
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        variances, basis = self.spectrum.variances, self.spectrum.basis
        spread = self.weights[:, None] * variances.expand(self.n_classes, self.dim)
        if len(basis) == 1:
            spread = spread.sum(0, keepdim=True)
        within = (basis.mT @ (spread[..., None] * basis)).sum(0)
        centred = self.means - self.mean
        return within + centred.T @ (self.weights[:, None] * centred)

    def spectrum_like(self, x: Tensor) -> Spectrum:
        """The spectrum in the dtype and on the device of x, cast once."""
        key = (x.dtype, x.device)
        if key not in self._casts:
            # Plain tensors, whichever transform or mode the first call happens to run under.
            with torch.inference_mode(False):
                cast = (debug_unwrap(a.to(dtype=x.dtype, device=x.device)) for a in self.spectrum)
                self._casts[key] = Spectrum(*cast)
        return self._casts[key]

    def sample_labelled(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        spectrum = self.spectrum_like(torch.empty(0, dtype=torch.float64, device=rng.device))
        label = torch.multinomial(spectrum.log_weights.exp(), n, replacement=True, generator=rng)
        z = torch.randn(n, self.dim, dtype=torch.float64, device=rng.device, generator=rng)
        y = z * spectrum.variances.expand(self.n_classes, -1)[label].sqrt()
        if len(spectrum.basis) == 1:
            x = y @ spectrum.basis[0]
        else:
            x = torch.empty_like(y)
            for k, basis in enumerate(spectrum.basis):
                x[label == k] = y[label == k] @ basis
        return x + spectrum.means[label], label

    def at(self, path: Path) -> MixtureMarginals:
        return MixtureMarginals(self, path)

    def flow_map(self, path: Path) -> FlowMap:
        """In one dimension, the map between equal quantiles."""
        return QuantileMap(self, path) if self.dim == 1 else super().flow_map(path)

    def quantile(self, z: Tensor) -> Tensor:
        if self.dim != 1:
            return super().quantile(z)
        return marginal_quantile(self, Linear(), z.reshape(-1, 1), 1.0).reshape(z.shape)

    def minimal_loss(self, path: Path, interval: tuple[float, float] = (0.0, 1.0)) -> float:
        """In one dimension, by quadrature."""
        if self.dim != 1:
            return super().minimal_loss(path, interval)
        return minimal_loss_on_the_line(self, path, interval)

    def jacobian_range(self, path: Path, t: float) -> JacobianRange:
        r"""Exact for one component, and for two of equal, isotropic covariance.

        With equal covariances the posterior means of two components differ by
        :math:`\sigma^2 S^{-1} (m_k - m_l)` everywhere, and no direction's variance is above a
        quarter of its range squared (Popoviciu). With unequal ones no finite bound is known, and
        in two dimensions or more there is none: far out they differ by anything.
        """
        spectrum, one = self.spectrum, torch.ones((), dtype=torch.float64)
        (alpha, sigma), (d_alpha, noise_rate) = scales(path, t, one), rates(path, t, one)
        variances = alpha**2 * spectrum.variances + sigma**2
        own = (alpha * d_alpha * spectrum.variances + noise_rate) / variances
        lowest, highest = float(own.min()), float(own.max())
        if self.n_classes == 1:
            return JacobianRange(lowest, highest, exact=True)
        equal = bool((spectrum.variances == spectrum.variances[:1]).all())
        if not equal or len(spectrum.basis) > 1:
            return JacobianRange(lowest, math.inf, exact=False)
        gain = alpha * (sigma**2 * d_alpha - alpha * noise_rate)
        apart = torch.pdist(spectrum.centres / variances[0]).square().max()
        isotropic = bool((spectrum.variances == spectrum.variances[0, 0]).all())
        exact = isotropic and self.n_classes == 2 and bool((self.weights > 0).all())
        return JacobianRange(lowest, highest + float(gain * apart) / 4, exact)


class _Given(NamedTuple):
    """Everything at (x, t) that depends on the component; T is 1 or B."""

    log_density: Tensor  # (B,)
    posterior: Tensor  # (B, K): r_k
    residual: Tensor  # (B, K, D): x - alpha m_k in the eigenbasis of C_k
    variances: Tensor  # (T, K, D or 1): of S_k
    alpha: Tensor  # (T, 1, 1)


@dataclass(frozen=True)
class MixtureMarginals(Marginals):
    """The laws of a Gaussian mixture along a path; a label k selects component k alone."""

    target: GaussianMixture
    path: Path

    def log_density(self, x: State, t: Time, label: Label = None) -> PerExample:
        def f(x: State, t: Time, label: Label) -> tuple[Tensor]:
            return (self._given(x, t, label).log_density,)

        return self._sliced(f, x, t, label)[0]

    def moments(self, x: State, t: Time, label: Label = None) -> tuple[State, State]:
        def f(x: State, t: Time, label: Label) -> tuple[Tensor, Tensor]:
            spectrum, given = self.target.spectrum_like(x), self._given(x, t, label)
            pull = given.posterior[..., None] * given.residual / given.variances  # -r_k g_k
            away = given.alpha[..., 0] * spectrum.back(spectrum.variances * pull)
            return -spectrum.back(pull), given.posterior @ spectrum.means + away

        score, mean = self._sliced(f, x, t, label)
        return score.to(x.dtype), mean.to(x.dtype)

    def jacobian(self, x: State, t: Time, label: Label = None) -> Tensor:
        def f(x: State, t: Time, label: Label) -> tuple[Tensor]:
            basis = self.target.spectrum_like(x).basis
            r, a, u, g = self._motions(x, t, label)
            between = torch.einsum("bki,bk,bkj->bij", u, r, g)
            if len(basis) == 1:
                within = torch.einsum("bk,bkj->bj", r, a).expand(len(x), x.shape[1])
                return (basis[0].T @ (torch.diag_embed(within) + between) @ basis[0],)
            each = (basis.mT * a[..., None, :]) @ basis  # A_k, (T, K, D, D)
            return (torch.einsum("bk,bkij->bij", r, each) + between,)

        matrices = self.target.spectrum.basis.numel() if per_example(t) else self.target.dim**2
        return self._sliced(f, x, t, label, matrices)[0].to(x.dtype)

    def divergence(self, x: State, t: Time, label: Label = None) -> PerExample:
        def f(x: State, t: Time, label: Label) -> tuple[Tensor]:
            r, a, u, g = self._motions(x, t, label)
            traces = self.target.dim * a.mean(-1) + (u * g).sum(-1)
            return ((r * traces).sum(-1),)

        return self._sliced(f, x, t, label)[0].to(x.dtype)

    def log_tail(self, x: State, left: Tensor, t: Time, label: Label = None) -> Tensor:
        if self.target.dim != 1:
            return super().log_tail(x, left, t, label)
        means, stds = self._on_the_line(x, t)
        z = torch.where(left, x - means, means - x) / stds
        log_weights = self.target.spectrum_like(x).log_prior(label)
        return (log_weights + log_cdf(z)).logsumexp(1, keepdim=True)

    def bracket(self, z: Tensor, t: Time, label: Label = None) -> tuple[Tensor, Tensor]:
        if self.target.dim != 1:
            return super().bracket(z, t, label)
        means, stds = self._on_the_line(z, t)
        ends = means + stds * z
        return ends.amin(1, keepdim=True), ends.amax(1, keepdim=True)

    def _on_the_line(self, x: State, t: Time) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of the components at t, (B or 1, K)."""
        spectrum = self.target.spectrum_like(x)
        alpha, sigma = (c.reshape(-1, 1) for c in scales(self.path, t, x))
        stds = (alpha**2 * spectrum.variances[:, 0] + sigma**2).sqrt()
        tiny = torch.finfo(stds.dtype).tiny  # an atom is a steep step
        return alpha * spectrum.means[:, 0], stds.clamp_min(tiny)

    def _given(self, x: State, t: Time, label: Label) -> _Given:
        spectrum, dim = self.target.spectrum_like(x), self.target.dim
        alpha, sigma = (c.reshape(-1, 1, 1) for c in scales(self.path, t, x))
        variances = alpha**2 * spectrum.variances + sigma**2
        residual = spectrum.rotate(x) - alpha * spectrum.centres
        # The mean over the last axis times D is the sum, also where one number stands for all.
        log_det = dim * (2 * math.pi * variances).log().mean(-1)
        distance = (residual.square() / variances).sum(-1)
        logits = spectrum.log_prior(label) - 0.5 * (distance + log_det)
        return _Given(logits.logsumexp(-1), logits.softmax(-1), residual, variances, alpha)

    def _motions(self, x: State, t: Time, label: Label) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """r_k (B, K), the eigenvalues of A_k (T, K, D or 1), and u_k - v and g_k - s (B, K, D):
        these in the basis that the components share, if they share one."""
        spectrum, given = self.target.spectrum_like(x), self._given(x, t, label)
        d_alpha, noise_rate = (c.reshape(-1, 1, 1) for c in rates(self.path, t, x))
        a = (given.alpha * d_alpha * spectrum.variances + noise_rate) / given.variances
        u, g, means = a * given.residual, -given.residual / given.variances, spectrum.centres
        if len(spectrum.basis) > 1:
            u, g, means = spectrum.back_each(u), spectrum.back_each(g), spectrum.means
        u = u + d_alpha * means
        r = given.posterior[:, None]
        return given.posterior, a, u - r @ u, g - r @ g

    def _sliced(
        self,
        f: Callable[[State, Time, Label], tuple[Tensor, ...]],
        x: State,
        t: Time,
        label: Label,
        per_row: int = 0,
    ) -> tuple[Tensor, ...]:
        """f over slices of the rows, in float32 at least, its results concatenated."""
        check_states(x, self.target)
        size = max(self.target.means.numel(), per_row)
        return in_slices(f, at_least_float32(x), t, label, size)


@dataclass(frozen=True, repr=False)
class MixtureSpec(TargetSpec):
    """A random mixture of equally likely modes with means spread * N(0, I).

    Attributes:
        dim: dimension.
        modes: number of components.
        std: the standard deviation of a component; for the full covariances, its scale.
        spread: the standard deviation of each coordinate of the means.
        covariance: ``isotropic``: std^2 I; ``shared``: one std^2 (W^T W / dim + I) / 2 with
            standard normal W; ``full``: one such for each component, as in arXiv 2404.09730.
        seed: of means and covariances.
    """

    dim: int = 2
    modes: int = 5
    std: float = 0.5
    spread: float = 3.0
    covariance: Literal["isotropic", "shared", "full"] = "isotropic"
    seed: int = 0

    name = "mixture"

    def __post_init__(self) -> None:
        require(self.dim >= 1 and self.modes >= 1, self, "dim and modes must be at least 1")
        require(self.std >= 0 and self.spread >= 0, self, "std and spread must not be negative")
        kinds = ("isotropic", "shared", "full")
        require(self.covariance in kinds, self, f"covariance must be one of {', '.join(kinds)}")

    def build(self) -> GaussianMixture:
        means = torch.randn(
            self.modes, self.dim, generator=stream(self.seed, "means"), dtype=torch.float64
        )
        variance = torch.tensor(self.std**2, dtype=torch.float64)
        if self.covariance == "isotropic":
            return GaussianMixture(self.spread * means, variance)
        number = self.modes if self.covariance == "full" else 1
        w = torch.randn(
            number, self.dim, self.dim, generator=stream(self.seed, "covariances"),
            dtype=torch.float64,
        )  # fmt: skip
        covariances = variance * (w.mT @ w / self.dim + torch.eye(self.dim)) / 2
        if self.covariance == "shared":
            return GaussianMixture(self.spread * means, covariances[0])
        return GaussianMixture(self.spread * means, covariances)
