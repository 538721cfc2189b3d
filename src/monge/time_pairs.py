r"""Laws of the two times (s, t) between which a flow map is trained to jump.

References:
    | The upper triangle (Boffi et al., 2025), Sec. 4 -- https://arxiv.org/abs/2505.18825
    | Logit-normal spans (Sabour et al., 2025), Sec. 3 -- https://arxiv.org/abs/2506.14603
    | Dyadic spans (Frans et al., 2024), Sec. 3 -- https://arxiv.org/abs/2410.12557
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from monge.components import Component
from monge.errors import UserError


class PairLaw(Component, abc.ABC):
    """The law of (s, t), on the domain of what is trained."""

    backwards: bool = False
    """Whether s > t is drawn too, as often as s < t."""

    only_to_data: bool = False
    """Whether t is always the end of the domain."""

    @abc.abstractmethod
    def unit(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """n pairs s < t in [0, 1], float32."""

    @final
    def draw(
        self, n: int, domain: tuple[float, float], rng: torch.Generator, span: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """n pairs in the domain, (n,) float32 on CPU, none longer than `span` of the domain."""
        lo, hi = domain
        s, t = self.unit(n, rng)
        if self.backwards:
            turned = torch.rand(n, generator=rng) < 0.5
            s, t = torch.where(turned, t, s), torch.where(turned, s, t)
        short = (t - s).clamp(-span, span)
        s, t = (t - short, t) if self.only_to_data else (s, s + short)
        return tuple((lo + (hi - lo) * u).clamp(lo, hi) for u in (s, t))  # type: ignore


def _sorted(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return torch.minimum(a, b), torch.maximum(a, b)


@dataclass(frozen=True, repr=False)
class Triangle(PairLaw):
    """s < t uniform on the triangle; with both=true on the whole square, for maps both ways."""

    both: bool = False

    name = "triangle"

    @property
    def backwards(self) -> bool:  # type: ignore[override]
        return self.both

    def unit(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return _sorted(*torch.rand(2, n, generator=rng))


@dataclass(frozen=True, repr=False)
class LogitSpans(PairLaw):
    """logit(t - s) ~ N(mean, std^2), s uniform on [0, 1 - (t - s)]; ``both`` as for `Triangle`."""

    mean: float = 0.0
    std: float = 1.0
    both: bool = False

    name = "logit_spans"

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise UserError(f"pairs logit_spans: std must be positive, not {self.std}")

    @property
    def backwards(self) -> bool:  # type: ignore[override]
        return self.both

    def unit(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        span = torch.sigmoid(self.mean + self.std * torch.randn(n, generator=rng))
        s = torch.rand(n, generator=rng) * (1 - span)
        return s, s + span


@dataclass(frozen=True, repr=False)
class Source(PairLaw):
    """A part of the pairs has s = 0, where sampling starts; the rest are as in `Triangle`."""

    part: float = 0.5

    name = "source"

    def __post_init__(self) -> None:
        if not 0 <= self.part <= 1:
            raise UserError(f"pairs source: part must lie in [0, 1], not {self.part}")

    def unit(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        s, t = _sorted(*torch.rand(2, n, generator=rng))
        at_source = torch.rand(n, generator=rng) < self.part
        return torch.where(at_source, 0.0, s), torch.where(
            at_source, torch.rand(n, generator=rng), t
        )


@dataclass(frozen=True, repr=False)
class ToData(PairLaw):
    """t = 1 always, as for consistency models; s uniform."""

    name = "to_data"
    only_to_data = True

    def unit(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.rand(n, generator=rng), torch.ones(n)


@dataclass(frozen=True, repr=False)
class Dyadic(PairLaw):
    """t - s = 2^-k with k uniform in 0, ..., levels - 1, and s a multiple of it."""

    levels: int = 7

    name = "dyadic"

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= 20:
            raise UserError(f"pairs dyadic: levels must lie in 1..20, not {self.levels}")

    def unit(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        count = 2 ** torch.randint(0, self.levels, (n,), generator=rng)
        step = (torch.rand(n, generator=rng) * count).floor()
        return step / count, (step + 1) / count
