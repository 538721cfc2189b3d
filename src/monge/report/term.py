"""A term of the budget, as ``verify.json`` has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["upper", "estimate"]
LOOSE = 1.1
"""A pairing this many times worse than the best is called loose."""


@dataclass(frozen=True)
class Term:
    """One term, in data units.

    Attributes:
        name: of the term.
        value, stderr: the distance and its standard error.
        kind: "upper" is at least the W2 between its two laws, up to its standard error; an
            "estimate" may lie on either side.
        coupling: of what with what, or which estimator.
        setting: what was measured, and which setting moves the term.
        n: examples.
        latent: the same distance between latents, in standardised units; None for the data alone.
        extra: further numbers of the term, by name.
    """

    name: str
    value: float
    stderr: float
    kind: Kind
    coupling: str
    setting: str
    n: int
    latent: float | None = None
    extra: dict[str, float | str | None] | None = None

    @property
    def loose(self) -> str | None:
        """Why the pairing is a poor one, where a better one of the same samples was found.

        The best pairing of samples that share their noise still has, on average, at least the
        squared distance of the laws, and at most that of the pairing by noise.
        """
        best = (self.extra or {}).get("best_pairing")
        if not isinstance(best, float) or best > self.value / LOOSE:
            return None
        ratio = self.value / max(best, 1e-300)
        return (
            f"{self.name} is loose, by {ratio:.2g} times at least: pairs by noise are "
            f"{self.value:.3g} apart, the best pairs of the same samples {best:.3g}, so the flow "
            "moves samples within the law"
        )
