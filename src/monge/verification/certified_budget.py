r"""The budget with a proved velocity term, on laws that are known; and the autoencoder's constants.

Every term is an upper bound. The velocity's is the certified one, :math:`\int \exp(\int L)
\varepsilon_t \, dt` in latent units, times the certified constant of the decoder. The others are
those of the budget: distances of a coupling, three standard errors included, and the error of the
fine solution beside the sampler's. A bound of three standard errors holds with a probability of
about 99.8 % for each term, if means of this many squares are normal.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from monge.autoencoders.constants import certified_constants
from monge.errors import UserError
from monge.verification.certified import SURE

PLAIN = 1e-6
"""A decoder whose constant is this near to 1 is only a change of units."""


def constants_of(autoencoder: nn.Module, scale: Tensor | float) -> dict[str, Any] | str:
    """The certified constants of encoder and decoder in the units of the budget, or why none."""
    try:
        return asdict(certified_constants(autoencoder, scale))
    except UserError as error:
        return str(error)


def certified_budget(report: dict[str, Any]) -> dict[str, Any] | None:
    """The terms as proved bounds; None unless the law is known and field and decoder certified.

    Args:
        report: what `examine` returns, with the constants of the autoencoder.

    Returns:
        ``terms`` with name, bound, what it is by, and how many times the measured value it is
        (None where that is 0); ``sum``; ``measured``, the sum of the budget; ``at_least``, the
        largest lower bound of the distance that its own three standard errors leave above 0, and
        ``loose``, the sum over it; both None without one.
    """
    field, constants = report["certified"], report["autoencoder_constants"]
    known = report["truth_known"] and isinstance(field, dict) and isinstance(constants, dict)
    if not known or field["bound"] is None:
        return None
    terms = [_proved(term, field["bound"], constants["decoder"]) for term in report["terms"]]
    total = sum(term["bound"] for term in terms)
    below = [b["value"] - SURE * b["stderr"] for b in report["lower_bounds"].values()]
    least = max(below, default=0.0)
    return {
        "terms": terms,
        "sum": total,
        "measured": report["sum"]["value"],
        "at_least": least if least > 0 else None,
        "loose": total / least if least > 0 else None,
    }


def _proved(term: dict[str, Any], velocity: float, decoder: float) -> dict[str, Any]:
    if term["name"] == "velocity":
        bound = velocity * decoder
        by = f"certified field, {velocity:.4g} in latents; decoder at most {decoder:.4g}"
    else:
        fine = (term["extra"] or {}).get("reference_error") or 0.0
        bound = term["value"] + SURE * term["stderr"] + decoder * fine
        by = term["coupling"]
    measured = term["value"]
    loose = bound / measured if measured > 0 else None
    return {"name": term["name"], "bound": bound, "by": by, "loose": loose}


def in_words(report: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    lines = []
    constants, seen = report.get("autoencoder_constants"), report["lipschitz"]
    plain = not isinstance(constants, dict) or abs(constants["decoder"] - 1) <= PLAIN
    if isinstance(constants, dict) and not plain and seen["decoder"] is not None:
        lines.append(
            f"Lipschitz constant of the decoder: certified {constants['decoder']:.4g}, largest "
            f"Jacobian norm seen {seen['decoder']:.4g}; of the encoder: certified "
            f"{constants['encoder']:.4g}, seen {seen['encoder']:.4g}"
        )
    found = report.get("certified_budget")
    if found is None:
        return lines
    velocity = next(t for t in found["terms"] if t["name"] == "velocity")
    lines.append(
        f"certified budget: at most {found['sum']:.4g}, the velocity term {velocity['bound']:.4g}"
        + ("" if velocity["loose"] is None else f" ({velocity['loose']:.3g} times the measured)")
        + ", each term with three standard errors"
        + ("" if found["loose"] is None else f"; at most {found['loose']:.3g} times the distance")
    )
    return lines
