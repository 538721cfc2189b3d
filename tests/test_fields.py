"""Fields: every output under every path is the exact velocity; guidance; pieces; scores."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from monge.components import build
from monge.couplings import Independent, MinibatchOT
from monge.errors import UserError
from monge.fields import (
    Counted,
    Guided,
    Piecewise,
    Predict,
    null_like,
    posterior_mean,
    restrict,
    score_of,
    take,
    with_label,
)
from monge.networks.exact import ExactNetwork
from monge.paths import Kind, Linear, Path, Power
from monge.targets.mixture import GaussianMixture, MixtureSpec

PATHS: list[Path] = [
    build("path", text)
    for text in (
        "linear",
        "trigonometric",
        "ou",
        "linear_beta",
        "power:kappa=0.5",
        "power:kappa=0.75",
        "power:kappa=2",
    )
]

paths = pytest.mark.parametrize("path", PATHS, ids=repr)
outputs = pytest.mark.parametrize("output", ["velocity", "data", "noise", "score"])

TARGET = MixtureSpec(dim=3, modes=4, spread=1.0, covariance="full", seed=2).build()

X = 1.5 * torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / (1 + b.abs().max()))


@outputs
@paths
def test_every_output_is_the_exact_velocity(path: Path, output: Kind) -> None:
    """Over the whole domain, its ends included, at float64 accuracy."""
    predicted = Predict(ExactNetwork(TARGET, path, output), path, output)
    exact = TARGET.at(path)
    lo, hi = predicted.domain
    assert (lo, hi) == path.output_domain(output)
    for t in (lo, lo + 1e-6, 0.1, 0.5, 0.9, hi - 1e-6, hi):
        assert relative(predicted(X, t), exact.velocity(X, t)) < 1e-11, t
    times = torch.linspace(lo, hi, len(X), dtype=torch.float64)
    assert relative(predicted(X, times), exact.velocity(X, times)) < 1e-11


@outputs
@paths
def test_outside_the_domain_is_refused(path: Path, output: Kind) -> None:
    predicted = Predict(ExactNetwork(TARGET, path, output), path, output)
    for bad in (predicted.domain[0] - 0.01, predicted.domain[1] + 0.01):
        with pytest.raises(UserError, match="lies outside the domain") as raised:
            predicted(X, bad)
        assert repr(predicted) in str(raised.value)


def test_the_domain_of_the_network_counts() -> None:
    """The velocity towards atoms is infinite at t = 1: the exact network says so."""
    atoms = GaussianMixture(torch.randn(5, 3), torch.tensor(0.0))
    predicted = Predict(ExactNetwork(atoms, Linear(), "velocity"), Linear())
    assert predicted.domain == (0.0, 0.999)
    assert predicted(X, 0.999).isfinite().all()


@outputs
@paths
def test_score_and_posterior_mean_of_every_output(path: Path, output: Kind) -> None:
    predicted = Predict(ExactNetwork(TARGET, path, output), path, output)
    score = score_of(predicted, path, Independent())
    mean = posterior_mean(predicted, path)
    exact = TARGET.at(path)
    lo, hi = predicted.domain
    for t in (lo, 0.3, 0.7, 0.99):
        # Under kappa = 2 sigma is 1e-4 here, and the score of a datum is (alpha D - x)/sigma^2.
        assert relative(score(X, t), exact.score(X, t)) < 1e-7
        assert relative(mean(X, t), exact.posterior_mean(X, t)) < 1e-8
    if hi == 1.0 and output != "score":
        with pytest.raises(UserError, match=r"outside the domain .* of the score"):
            score(X, 1.0)
        assert relative(mean(X, 1.0), X) < 1e-12


def test_no_score_without_a_gaussian_coupling() -> None:
    with pytest.raises(UserError, match=r"no score for the coupling ot: .*--coupling independent"):
        score_of(TARGET.field(Linear()), Linear(), MinibatchOT())


def test_golden_velocity_of_a_mixture() -> None:
    """1/2 N(-1, 1/4) + 1/2 N(1, 1/4) under the linear path, by quadrature of E[x1|x]."""
    line = GaussianMixture(torch.tensor([[-1.0], [1.0]]), torch.tensor(0.25))
    field = Predict(ExactNetwork(line, Linear(), "data"), Linear(), "data")
    x = torch.tensor([[0.5]], dtype=torch.float64)
    golden = {0.0: -0.5, 0.25: -0.31838868496269124, 0.5: 0.46245883242855834}
    for t, v in golden.items():
        assert float(field(x, t)) == pytest.approx(v, abs=1e-12)


# Guidance


LABEL = {"label": torch.tensor([0, 1, 2, 3, 0, -1])}

FIELD = TARGET.field(Linear())


def test_scale_one_is_no_guidance_and_costs_nothing() -> None:
    counted = Counted(FIELD)
    guided = Guided(counted, 1.0, (0.2, 0.7))
    assert guided.breakpoints == ()
    assert torch.equal(guided(X, 0.5, LABEL), FIELD(X, 0.5, LABEL))
    assert counted.counts == {"calls": 1, "rows": 6}
    assert torch.equal(guided(X, 0.5), FIELD(X, 0.5))


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 7.5])
def test_guidance_extrapolates_from_no_condition(scale: float) -> None:
    counted = Counted(FIELD)
    v, null = FIELD(X, 0.4, LABEL), FIELD(X, 0.4)
    found = Guided(counted, scale)(X, 0.4, LABEL)
    assert relative(found, null + scale * (v - null)) < 1e-14
    assert counted.counts == {"calls": 1, "rows": 12}
    # A row without a label is not guided.
    assert relative(found[5:], v[5:]) < 1e-14


def test_guidance_in_an_interval() -> None:
    guided = Guided(FIELD, 3.0, (0.25, 0.5))
    always = Guided(FIELD, 3.0)
    assert guided.breakpoints == (0.25, 0.5) and guided.domain == FIELD.domain
    for t in (0.25, 0.3, 0.49):
        assert torch.equal(guided(X, t, LABEL), always(X, t, LABEL))
    for t in (0.0, 0.2, 0.5, 0.9):
        assert relative(guided(X, t, LABEL), FIELD(X, t, LABEL)) < 1e-14
    times = torch.tensor([0.1, 0.25, 0.3, 0.5, 0.6, 0.4], dtype=torch.float64)
    expected = [FIELD, always, always, FIELD, FIELD, always]
    rows = [
        f(X[i : i + 1], float(times[i]), take(LABEL, torch.tensor([i])))
        for i, f in enumerate(expected)
    ]
    assert relative(guided(X, times, LABEL), torch.cat(rows)) < 1e-12


def test_pieces_of_guidance_reach_their_ends() -> None:
    guided = Guided(FIELD, 3.0, (0.25, 0.5))
    always = Guided(FIELD, 3.0)
    assert torch.equal(restrict(guided, 0.25, 0.5)(X, 0.5, LABEL), always(X, 0.5, LABEL))
    assert torch.equal(restrict(guided, 0.5, 0.8)(X, 0.5, LABEL), FIELD(X, 0.5, LABEL))
    assert torch.equal(restrict(guided, 0.0, 0.25)(X, 0.25, LABEL), FIELD(X, 0.25, LABEL))


def test_guidance_up_to_the_end_includes_it() -> None:
    guided = Guided(FIELD, 3.0, (0.5, 1.0))
    assert guided.breakpoints == (0.5,)
    assert torch.equal(guided(X, 1.0, LABEL), Guided(FIELD, 3.0)(X, 1.0, LABEL))


def test_guidance_by_vectors() -> None:
    """The empty vector is NaN, which a network recognises; zero is a vector like any other."""
    seen = []

    def field(x: Tensor, t: Any, cond: Any = None) -> Tensor:
        seen.append(cond["vector"])
        return x + cond["vector"].nan_to_num(0.0).sum(1, keepdim=True)

    vector = torch.ones(6, 2, dtype=torch.float64)
    found = Guided(field, 2.0)(X, 0.5, {"vector": vector})
    assert torch.equal(seen[0][:6], vector) and bool(seen[0][6:].isnan().all())
    torch.testing.assert_close(found, X + 4)
    assert null_like("label", torch.tensor([3, 1])).tolist() == [-1, -1]


def test_guidance_needs_a_condition() -> None:
    with pytest.raises(UserError, match="guidance needs a condition"):
        Guided(FIELD, 2.0)(X, 0.5)
    for interval in ((0.5, 0.5), (-0.1, 0.5), (0.5, 1.1)):
        with pytest.raises(UserError, match="guidance interval must satisfy"):
            Guided(FIELD, 2.0, interval)


# Pieces


def piece(value: float) -> Any:
    return lambda x, t, cond=None: torch.full_like(x, value)


def test_pieces_hold_on_their_intervals() -> None:
    field = Piecewise((piece(1), piece(2), piece(3)), (0.0, 0.3, 0.6, 1.0))
    assert field.domain == (0.0, 1.0) and field.breakpoints == (0.3, 0.6)
    for t, value in ((0.0, 1), (0.29, 1), (0.3, 2), (0.6, 3), (1.0, 3)):
        assert field(X, t).unique().tolist() == [value]
    times = torch.tensor([0.0, 0.3, 0.6, 1.0, 0.29, 0.59])
    assert field(X, times)[:, 0].tolist() == [1, 2, 3, 3, 1, 2]
    assert restrict(field, 0.0, 0.3)(X, 0.3).unique().tolist() == [1]


def test_pieces_have_breakpoints_of_their_own() -> None:
    field = Piecewise((Guided(FIELD, 2.0, (0.1, 0.9)), FIELD), (0.0, 0.5, 1.0))
    assert field.breakpoints == (0.1, 0.5)


def test_pieces_take_their_conditions() -> None:
    field = Piecewise((FIELD, TARGET.field(Power(0.75))), (0.0, 0.5, 1.0))
    times = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    alone = [field(X[i : i + 1], float(times[i]), take(LABEL, torch.tensor([i]))) for i in range(6)]
    assert relative(field(X, times, LABEL), torch.cat(alone)) < 1e-13


@pytest.mark.parametrize("knots", [(0.0, 1.0), (0.0, 0.5, 0.5), (0.0, 0.6, 0.5)])
def test_pieces_need_increasing_knots(knots: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="2 fields need 3 increasing knots"):
        Piecewise((piece(1), piece(2)), knots)


def test_pieces_refuse_times_outside() -> None:
    with pytest.raises(UserError, match=r"outside the domain \[0.2, 0.8\]"):
        Piecewise((piece(1),), (0.2, 0.8))(X, 0.9)


# Small things


def test_counting_sees_through_pieces() -> None:
    counted = Counted(Guided(FIELD, 2.0, (0.2, 0.7)))
    assert counted.breakpoints == (0.2, 0.7) and counted.domain == (0.0, 1.0)
    restrict(counted, 0.2, 0.7)(X, 0.3, LABEL)
    counted(X[:2], 0.1, take(LABEL, torch.arange(2)))
    assert counted.counts == {"calls": 2, "rows": 8}


def test_labels_for_all_examples() -> None:
    assert with_label(3, 4)["label"].tolist() == [3, 3, 3, 3]
    given = with_label(torch.tensor([1, 2], dtype=torch.int32), 2)["label"]
    assert given.dtype == torch.int64
    assert take(None, torch.arange(2)) is None and take(LABEL, None) is LABEL


def test_a_predicting_field_names_its_parts() -> None:
    field = Predict(ExactNetwork(TARGET, Linear(), "data"), Linear(), "data")
    assert repr(field) == "Predict(exact, linear, data)"
    assert math.isclose(field.domain[1], 0.999)
