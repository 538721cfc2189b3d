r"""Bounds of Lipschitz constants, and how they were derived.

A function :math:`f(x) = \alpha x + R(x)` has the two parts :math:`\alpha`, signed, and
:math:`\beta \ge \mathrm{Lip}(R)`. Its constant is at most :math:`|\alpha| + \beta`, and the
one-sided constant, the largest L with
:math:`\langle f(x) - f(y), x - y \rangle \le L |x - y|^2`, at most :math:`\alpha + \beta`.

Every computed constant is multiplied by 1 + 1e-9 (`SAFETY`), far above rounding in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

from monge.networks.capped import SAFETY


@dataclass(frozen=True)
class Step:
    """One factor of a bound.

    Attributes:
        name: of the module.
        rule: the formula, with its numbers.
        euclidean, token_max: the constants in the two norms.
    """

    name: str
    rule: str
    euclidean: float
    token_max: float


@dataclass(frozen=True)
class Parts:
    r"""f = alpha x + R: :math:`\alpha`, and bounds of Lip(R) in the two norms, for a condition.

    Attributes:
        condition: "all", a label's number, or "no label".
    """

    condition: str
    alpha: float
    euclidean: float
    token_max: float
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Certificate:
    """Bounds of a network's Lipschitz constant in the state, largest over the conditions.

    Attributes:
        t: the time; None for a bound at all times.
        parts: for each condition.
    """

    t: float | None
    parts: tuple[Parts, ...]

    @property
    def euclidean(self) -> float:
        """|f(x) - f(y)| <= euclidean |x - y|, over all numbers of the state."""
        return max(up(abs(p.alpha) + p.euclidean) for p in self.parts)

    @property
    def token_max(self) -> float:
        """The same in the largest norm of a token."""
        return max(up(abs(p.alpha) + p.token_max) for p in self.parts)

    @property
    def one_sided(self) -> float:
        """<f(x) - f(y), x - y> <= one_sided |x - y|^2; it may be negative."""
        return max(p.alpha + p.euclidean + slack(p.alpha, p.euclidean) for p in self.parts)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The derivation, for the condition with the largest Euclidean bound."""
        return max(self.parts, key=lambda p: abs(p.alpha) + p.euclidean).steps

    def affine(self, a: float, b: float) -> Certificate:
        """Of a x + b f(x), as a velocity is made of what a network outputs."""
        parts = []
        for p in self.parts:
            alpha, rounding = a + b * p.alpha, slack(a, b * p.alpha)
            rest = [up(abs(b) * beta) + rounding for beta in (p.euclidean, p.token_max)]
            both = [abs(alpha) + beta for beta in rest]
            last = Step("field", f"{a:.6g} x + {b:.6g} f", both[0], both[1])
            steps = (*p.steps, last)
            parts.append(Parts(p.condition, alpha, rest[0], rest[1], steps))
        return Certificate(self.t, tuple(parts))


def up(x: float) -> float:
    """A non-negative number times the safety factor."""
    return x * (1 + SAFETY)


def slack(*terms: float) -> float:
    return SAFETY * sum(abs(term) for term in terms)
