"""The studies at reduced size: what each one finds."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from monge.studies import catalogue, solver_cost
from monge.studies.claims import about
from monge.studies.running import run
from monge.studies.study import Cell
from monge.studies.verdicts import Verdict, judge


def verdicts(name: str, **axes: tuple[Any, ...]) -> list[Verdict]:
    study = catalogue.find(name)
    results = run(study, axes)
    assert not results.failures, results.failures[0].error
    return judge(study.claims, results.rows, study.repeats)


def words(found: list[Verdict], claim: str) -> Counter[str]:
    own = [v for v in found if claim in v.claim.name]
    assert own, f"no verdict on {claim!r}"
    return Counter(v.word for v in own)


@pytest.mark.parametrize("law", ["published", "shared"])
def test_orders(law: str) -> None:
    found = verdicts(
        "discretisation", law=(law,), path=("linear",), dim=(12,), seed=(0,),
        solver=("euler", "heun", "rk3", "rk4"), steps=(16, 32, 64, 128),
    )  # fmt: skip
    for verdict, order in zip(found, (1, 2, 3, 4), strict=True):
        assert verdict.line is not None and verdict.line.fit is not None
        assert verdict.line.fit.slope == pytest.approx(order, abs=0.15)
        assert verdict.word != "refutes", verdict.sentence


def test_divergences_of_the_discrete_map() -> None:
    found = verdicts(
        "discretisation", law=("published",), path=("linear",), dim=(1,), seed=(0,),
        solver=("heun",), steps=(64, 128, 256),
    )  # fmt: skip
    slopes = {v.claim.name: v.line.fit.slope for v in found if v.line and v.line.fit}
    assert slopes["total variation is at most of order h^p"] == pytest.approx(2, abs=0.15)
    assert slopes["KL is of order h^{2p}"] == pytest.approx(4, abs=0.3)
    assert not any(v.word == "refutes" for v in found)


def test_an_exponential_integrator_falls_short_of_its_order_at_the_data() -> None:
    found = verdicts(
        "discretisation", law=("shared",), path=("ou:horizon=2.0",), dim=(12,), seed=(0,),
        solver=("heun", "exp2"), steps=(32, 64, 128),
    )  # fmt: skip
    assert words(found, "Runge-Kutta") == {"consistent": 1}
    (exponential,) = (v for v in found if "exponential" in v.claim.name)
    assert exponential.line is not None and exponential.line.fit is not None
    assert 1.4 < exponential.line.fit.slope < 1.9  # h^2 log(1/h)


@pytest.mark.slow
def test_the_square_root_of_the_score_error_is_attained_by_an_oscillating_one_only() -> None:
    found = verdicts(
        "score-error", law=("normal",), form=("phi", "oscillating"),
        delta=(1.6e-4, 6.4e-4, 2.56e-3),
    )  # fmt: skip
    root = {v.group["form"]: v.word for v in found if "sqrt(delta)" in v.claim.name}
    assert root == {"phi": "steeper", "oscillating": "consistent"}
    assert words(found, "linear in delta") == {"consistent": 1}
    assert words(found, "score and divergence") == {"consistent": 2}
    assert words(found, "KL") == {"consistent": 1}
    assert words(found, "W2") == {"consistent": 1}


def test_early_stopping() -> None:
    smooth = verdicts(
        "early-stopping", law=("gaussian",), delta=tuple(0.1 / 2**k for k in range(1, 6))
    )
    atoms = verdicts(
        "early-stopping", law=("atoms",), mode=("last",), delta=(0.2, 0.17, 0.14, 0.12)
    )
    found = [*smooth, *atoms]
    assert Counter(v.word for v in found) == {"consistent": len(found)}
    assert {v.claim.name for v in found} == {
        c.name for c in catalogue.find("early-stopping").claims
    }


@pytest.mark.slow
def test_the_dimension() -> None:
    closed = verdicts(
        "dimension", law=("flat", "decaying"), dim=(16, 64, 256, 1024), seed=(0,),
        steps=(16, 32, 64, 128, 256),
    )  # fmt: skip
    flat = [v for v in closed if v.group.get("law") == "flat" and "sqrt(d)" in v.claim.name]
    assert {v.word for v in flat} == {"consistent"}  # the bound is attained
    decaying = [v for v in closed if "trace" in v.claim.name and v.group["grid"] == "geometric"]
    assert {v.word for v in decaying} == {"consistent"}
    found = verdicts(
        "dimension", law=("product",), grid=("uniform",), dim=(2, 8, 32, 128), seed=(0,),
        steps=(64, 128),
    )  # fmt: skip
    assert words(found, "d^2") == {"steeper": 2} and words(found, "d^{3/4}") == {"steeper": 1}
    assert words(found, "like sqrt(d)") == {"consistent": 1}


def test_the_coupling() -> None:
    found = verdicts("coupling", dim=(8,), seed=(0, 1, 2), batch=(16, 32, 64, 128))
    assert words(found, "n^{-2/d}")["refutes"] == 0
    assert words(found, "independent") == {"consistent": 1}


def test_the_cost_of_solvers() -> None:
    found = verdicts(
        "solver-cost", law=("gaussian",), solver=("euler", "heun", "dopri5"),
        grid=("uniform", "geometric"), steps=(16, 20, 32, 64),
    )  # fmt: skip
    assert words(found, "order of the solver") == {"consistent": 2}
    rows = run(catalogue.find("solver-cost"), {"law": ("gaussian",), "steps": (16, 32)}).rows
    assert {r["evaluations"] for r in rows if (r["solver"], r["grid"]) == ("heun", "uniform")} == {
        32,
        64,
    }
    assert len({r["evaluations"] for r in rows if r["solver"] == "dopri5"}) == 2
    assert min(r["of_best"] for r in rows) == 1


def test_steps_of_a_chain() -> None:
    found = verdicts("jko", law=("gaussian-8", "mixture"), gamma=(0.5,), step=tuple(range(1, 41)),
                     error=(0.0, 0.03, 0.1, 0.3))  # fmt: skip
    assert Counter(v.word for v in found) == {"consistent": len(found)}
    assert {v.claim.name for v in found} == {c.name for c in catalogue.find("jko").claims}
    rate = next(v for v in found if v.claim.name.startswith("log KL falls"))
    assert rate.line is not None and rate.line.fit is not None
    assert rate.line.fit.slope == pytest.approx(-2 * math.log(1.5), abs=0.005)


def test_the_autoencoder() -> None:
    samples = (0, 256, 512, 1024, 2048, 4096)
    axes = {"dim": (16,), "seed": (0, 1, 2, 3), "shift": (0.0, 0.1, 0.3, 1.0)}
    found = verdicts("autoencoder", samples=samples, **axes)
    assert Counter(v.word for v in found) == {"consistent": len(found)}
    assert {v.claim.name for v in found} == {c.name for c in catalogue.find("autoencoder").claims}


@pytest.mark.parametrize("name", catalogue.STUDIES)
def test_every_study_is_in_order(name: str) -> None:
    study = catalogue.find(name)
    assert study.name == name and study.question.endswith("?") and study.reading
    columns = {axis.name for axis in study.axes}
    for axis in study.axes:
        assert axis.values and axis.quick and axis.meaning
        assert set(axis.quick) <= set(axis.values), axis.name
    for claim in study.claims:
        assert claim.source and set(claim.by) <= columns
        assert not about(claim, {})


def test_atoms_are_reached_exactly_and_no_cost_is_divided_by() -> None:
    axes = {"law": "atoms", "solver": ("heun",), "grid": ("uniform",), "steps": (4, 20)}
    coarse, default = solver_cost.cell(Cell("solver-cost", axes, ("law",)))
    assert default["w2"] < solver_cost.FLOOR and default["of_best"] == 1
    assert coarse["of_best"] >= 1 and default["twice_best"] == 2 * solver_cost.FLOOR
