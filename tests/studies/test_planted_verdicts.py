"""Every claim of every study, held against rows that are planted: honest, better, and cheating."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from monge.studies import catalogue
from monge.studies.claims import Ceiling, Claim, Equal, Slope
from monge.studies.verdicts import judge

CLAIMS = [
    (name, number)
    for name in catalogue.STUDIES
    for number in range(len(catalogue.find(name).claims))
]


def coordinates(name: str, claim: Claim) -> dict[str, Any]:
    """Values of the axes that the claim is about, the first ones."""
    study = catalogue.find(name)
    found = {axis.name: axis.values[0] for axis in study.axes}
    return found | {column: values[0] for column, values in claim.where.items()}


def planted(name: str, claim: Claim, gain: float) -> list[dict[str, Any]]:
    """Rows with a slope, or a value, better than the claim's by `gain`; worse where negative."""
    at = coordinates(name, claim)
    if not isinstance(claim, Slope):
        right = 1.0 if isinstance(claim, Equal) else 2.0
        of = claim.expected if isinstance(claim, Equal) else claim.ceiling
        return [at | {claim.quantity: right * (1 - gain), of: right}] * 3
    slope = claim.predicted(at) + gain * (1 if claim.towards == "zero" else -1)
    rows = []
    for k in range(6):
        x = 1.0 + k if claim.semilog else 2.0**k
        row = at | {claim.against: x}
        row |= {c: 0.0 for c in (claim.floor, claim.stiffness) if c}
        row[claim.quantity] = math.exp(slope * x) if claim.semilog else x**slope
        rows.append(row)
    return rows


def word(name: str, claim: Claim, gain: float) -> str:
    (verdict,) = judge([claim], planted(name, claim, gain))
    return verdict.word


@pytest.mark.parametrize(("name", "number"), CLAIMS, ids=[f"{n}-{k}" for n, k in CLAIMS])
def test_planted_rows_get_their_verdict(name: str, number: int) -> None:
    claim = catalogue.find(name).claims[number]
    assert word(name, claim, 0.0) == "consistent"
    if isinstance(claim, Slope):
        away = 2 * claim.tolerance + 0.1
        assert word(name, claim, away) == "steeper"
        assert word(name, claim, -away) == "refutes"
    elif isinstance(claim, Ceiling):
        assert word(name, claim, 0.5) == "consistent"
        assert word(name, claim, -2 * claim.slack - 0.01) == "refutes"
    else:
        for gain in (2 * claim.tolerance, -2 * claim.tolerance):
            assert word(name, claim, gain) == "refutes"


@pytest.mark.parametrize(("name", "number"), CLAIMS, ids=[f"{n}-{k}" for n, k in CLAIMS])
def test_noise_decides_nothing(name: str, number: int) -> None:
    """Points that scatter tenfold leave a claim about a slope undecided."""
    claim = catalogue.find(name).claims[number]
    if not isinstance(claim, Slope):
        return
    rows = planted(name, claim, 0.0)
    for row, factor in zip(rows, itertools.cycle((0.3, 3.0)), strict=False):
        row[claim.quantity] *= factor
    (verdict,) = judge([claim], rows)
    assert verdict.word == "undecided", verdict.sentence
