"""Flow matching: the exact field has the minimal loss, for all outputs and places of the error."""

from __future__ import annotations

import itertools
import math
import typing
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monge.components import build
from monge.couplings import Independent, MinibatchOT
from monge.errors import UserError
from monge.networks.exact import ExactNetwork
from monge.objectives.flow_matching import FlowMatching, conditions, evaluate_loss
from monge.paths import Kind, Linear, OrnsteinUhlenbeck, Path, Power, Trigonometric
from monge.targets.gaussian import GaussianSpec
from monge.targets.quadrature import integrate
from monge.tensors import stream
from monge.times import LogitNormalTimes, TimeLaw, UniformTimes

KINDS: tuple[Kind, ...] = typing.get_args(Kind)

PATHS: list[Path] = [
    build("path", text)
    for text in ("linear", "trigonometric", "ou:horizon=3", "linear_beta", "power:kappa=0.75")
]

TARGET = GaussianSpec(dim=3, condition=20.0).build()

N = 20_000


def allowed() -> list[tuple[Path, Kind, Kind]]:
    found = []
    for path, output, place in itertools.product(PATHS, KINDS, KINDS):
        try:
            FlowMatching(path, output, place)
        except UserError:
            continue
        found.append((path, output, place))
    return found


def minimum(objective: FlowMatching) -> float:
    """The loss of the exact network: the variance of the velocity that x_t leaves, weighted.

    In an eigendirection of variance l it is W^2 l / (alpha^2 l + sigma^2).
    """
    lo, hi = objective.domain
    path, law = objective.path, objective.times

    def rate(t: Tensor) -> Tensor:
        alpha, sigma, d_alpha, d_sigma = path.coefficients(t, t)
        wronskian = alpha * d_sigma - sigma * d_alpha
        left = TARGET.eigenvalues / (
            torch.outer(alpha**2, TARGET.eigenvalues) + sigma[:, None] ** 2
        )
        weight = path.error_ratio(objective.place, "velocity", t).square()
        u = (t - lo) / (hi - lo)
        density = torch.ones_like(u)
        if isinstance(law, LogitNormalTimes):
            z = (torch.logit(u) - law.mean) / law.std
            density = (-z.square() / 2).exp() / (math.sqrt(2 * math.pi) * law.std * u * (1 - u))
        return density * weight * wronskian**2 * left.sum(1) / (TARGET.dim * (hi - lo))

    return integrate(rate, lo, hi, rtol=1e-8)


def losses(objective: FlowMatching, network: nn.Module, n: int = N, seed: int = 0) -> Tensor:
    batch = objective.draw({"x1": TARGET.sample(n, stream(seed, "x1"))}, stream(seed, "draw"))
    return objective.loss(network, {**batch, "t": batch["t"].double()}).per_example


@pytest.mark.parametrize(("path", "output", "place"), allowed(), ids=repr)
@pytest.mark.parametrize("times", [UniformTimes(), LogitNormalTimes(-0.5, 0.8)], ids=repr)
def test_exact_network_has_the_minimal_loss(
    path: Path, output: Kind, place: Kind, times: TimeLaw
) -> None:
    objective = FlowMatching(path, output, place, times=times)
    found = losses(objective, ExactNetwork(TARGET, path, output))
    assert found.shape == (N,)
    stderr = float(found.std()) / math.sqrt(N)
    assert abs(float(found.mean()) - minimum(objective)) < 4 * stderr
    assert stderr < 0.05 * float(found.mean())


@pytest.mark.parametrize("path", [Linear(), Trigonometric(), Power(0.75), Power(2.0)], ids=repr)
def test_minimum_is_the_targets(path: Path) -> None:
    objective = FlowMatching(path)
    lo, hi = objective.domain
    whole = TARGET.minimal_loss(path, (lo, hi)) / (hi - lo)
    assert minimum(objective) == pytest.approx(whole / TARGET.dim, rel=1e-6)


def test_golden_minimum() -> None:
    """The linear path to N(m, C) leaves (pi/2) tr C^(1/2), here over 3 coordinates."""
    golden = math.pi / 2 * float(TARGET.eigenvalues.sqrt().sum()) / 3
    found = losses(FlowMatching(), ExactNetwork(TARGET, Linear(), "velocity"))
    assert abs(float(found.mean()) - golden) < 4 * float(found.std()) / math.sqrt(N)


class Shifted(nn.Module):
    """The exact network, off by a constant."""

    def __init__(self, exact: nn.Module, error: float) -> None:
        super().__init__()
        self.exact, self.error = exact, error

    def forward(self, x: Tensor, t: Any, cond: Any = None) -> Tensor:
        return self.exact(x, t, cond) + self.error


@pytest.mark.parametrize(
    ("path", "output", "place"),
    [
        (Linear(), "velocity", "velocity"),
        (Linear(), "velocity", "data"),
        (Trigonometric(), "data", "data"),
        (OrnsteinUhlenbeck(3.0), "noise", "noise"),
        (OrnsteinUhlenbeck(3.0), "data", "noise"),
        (Linear(), "score", "noise"),
    ],
    ids=repr,
)
def test_an_error_adds_its_square_in_its_place(path: Path, output: Kind, place: Kind) -> None:
    """The excess loss is E (ratio error)^2, whatever else the loss contains."""
    objective, exact = FlowMatching(path, output, place), ExactNetwork(TARGET, path, output)
    lo, hi = objective.domain
    excess = losses(objective, Shifted(exact, 0.3)) - losses(objective, exact)

    def rate(t: Tensor) -> Tensor:
        return 0.09 * path.error_ratio(place, output, t).square() / (hi - lo)

    expected = integrate(rate, lo, hi, rtol=1e-8)
    assert abs(float(excess.mean()) - expected) < 4 * float(excess.std()) / math.sqrt(N)
    assert expected > 1e-4


PLACES = {
    ("linear", "velocity"): ("velocity", {"velocity", "data", "noise"}),
    ("linear", "data"): ("data", {"data"}),
    ("linear", "noise"): ("noise", {"noise"}),
    ("linear", "score"): ("noise", {"noise"}),
    ("trigonometric", "velocity"): ("velocity", {"velocity", "data", "noise"}),
    ("ou", "velocity"): ("noise", {"noise"}),
    ("ou", "data"): ("data", {"data", "noise"}),
    ("ou", "noise"): ("noise", {"noise"}),
    ("ou", "score"): ("noise", {"noise"}),
    ("linear_beta", "velocity"): ("noise", {"data", "noise"}),
    ("power", "velocity"): ("noise", {"data", "noise"}),
    ("power:kappa=0.75", "velocity"): ("velocity", {"velocity", "data", "noise"}),
    ("power:kappa=2", "velocity"): ("velocity", {"velocity"}),
}
"""Where the error is measured by default, and where it may be; the rest is refused."""


@pytest.mark.parametrize(("path", "output"), PLACES)
def test_places(path: str, output: Kind) -> None:
    default, places = PLACES[path, output]
    assert FlowMatching(build("path", path), output).place == default
    for place in KINDS:
        if place in places:
            assert FlowMatching(build("path", path), output, place).place == place
            continue
        with pytest.raises(UserError, match=f"use --error {default}") as raised:
            FlowMatching(build("path", path), output, place)
        assert f"output {output} with the error in {place} under the path" in str(raised.value)


def test_other_refusals() -> None:
    with pytest.raises(UserError, match="output score needs a coupling that is Gaussian"):
        FlowMatching(output="score", coupling=MinibatchOT())
    for drop in (-0.1, 1.0, math.nan):
        with pytest.raises(UserError, match="label drop must lie in"):
            FlowMatching(label_drop=drop)


def test_times_at_the_very_ends_have_a_finite_loss() -> None:
    """Draws of exactly 0 do happen, once in 2^24."""
    for path, output, place in allowed():
        objective = FlowMatching(path, output, place)
        lo, hi = objective.domain
        batch = {
            "x1": TARGET.sample(2, stream(0, "x1")),
            "x0": torch.ones(2, 3, dtype=torch.float64),
            "t": torch.tensor([lo, hi]),
        }
        network = ExactNetwork(TARGET, path, output)
        found = objective.loss(network, batch).per_example
        assert found.isfinite().all(), (path, output, place, found)


# Draws


def test_rows_and_micro_batches_share_one_draw() -> None:
    """The loss of a slice is a slice of the loss: micro-batches and ranks cut the same draws."""
    objective = FlowMatching(coupling=MinibatchOT(16))
    network = ExactNetwork(TARGET, Linear(), "velocity")
    batch = objective.draw({"x1": TARGET.sample(32, stream(0, "x1"))}, stream(0, "draw"))
    whole = objective.loss(network, batch).per_example
    parts = [
        objective.loss(network, {k: v[a : a + 8] for k, v in batch.items()}).per_example
        for a in range(0, 32, 8)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_times_are_drawn_on_the_domain_of_the_output(path: Path) -> None:
    for output in KINDS:
        objective = FlowMatching(path, output)
        t = objective.draw({"x1": torch.zeros(4000, 1)}, stream(0, "draw"))["t"]
        lo, hi = path.output_domain(output)
        assert t.dtype == torch.float32
        assert lo - 1e-7 <= float(t.min()) < lo + 0.01 and hi - 0.01 < float(t.max()) <= hi + 1e-7


def test_the_coupling_leaves_the_gradient_of_a_blind_network_alone() -> None:
    """E x1 - E x0 does not depend on how they are paired; nor do the laws of x0, x1 and t."""
    x1 = TARGET.sample(512, stream(0, "x1"))
    drawn = [
        FlowMatching(coupling=coupling).draw({"x1": x1}, stream(0, "draw"))
        for coupling in (Independent(), MinibatchOT(512))
    ]
    gradients = []
    for batch in drawn:
        c = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        blind: Any = lambda x, t, cond, c=c: c.expand_as(x)  # noqa: E731
        loss = FlowMatching().loss(blind, batch)
        loss.per_example.mean().backward()
        gradients.append(c.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
    assert torch.equal(drawn[0]["t"], drawn[1]["t"]) and torch.equal(drawn[1]["x1"], x1)
    straight = [float((b["x1"] - b["x0"]).square().sum(1).mean()) for b in drawn]
    assert straight[1] < 0.9 * straight[0]


def test_conditions_are_dropped_at_their_rate() -> None:
    objective = FlowMatching(label_drop=0.2)
    n = 10_000
    batch = {
        "x1": torch.zeros(n, 2),
        "label": torch.arange(n) % 7,
        "vector": torch.ones(n, 3),
    }
    drawn = objective.draw(batch, stream(0, "draw"))
    dropped = drawn["label"] == -1
    assert abs(float(dropped.double().mean()) - 0.2) < 4 * math.sqrt(0.16 / n)
    assert torch.equal(drawn["label"][~dropped], batch["label"][~dropped])
    # Label and vector are dropped together; NaN is the network's null vector.
    assert torch.equal(drawn["vector"].isnan().all(1), dropped)
    assert torch.equal(drawn["vector"][~dropped], batch["vector"][~dropped])
    assert torch.equal(batch["label"], torch.arange(n) % 7)
    kept = FlowMatching().draw(batch, stream(0, "draw"))
    assert torch.equal(kept["label"], batch["label"])
    assert torch.equal(kept["x0"], drawn["x0"]) and torch.equal(kept["t"], drawn["t"])


def test_pairing_sees_labels_that_are_dropped_later() -> None:
    """Rows are matched within their true class, dropped or not."""
    x1 = torch.randn(64, 2, generator=stream(0, "x1"))
    label = torch.arange(64) % 2
    drawn = [
        FlowMatching(coupling=MinibatchOT(64), label_drop=drop).draw(
            {"x1": x1, "label": label}, stream(0, "draw")
        )["x0"]
        for drop in (0.0, 0.5)
    ]
    assert torch.equal(*drawn)


def test_conditions_of_a_batch() -> None:
    assert conditions({"x1": torch.zeros(1)}) is None
    batch = {"x1": torch.zeros(1), "label": torch.zeros(1), "vector": torch.zeros(1, 2)}
    assert set(conditions(batch) or {}) == {"label", "vector"}


def test_evaluated_loss_is_fixed_and_averaged() -> None:
    objective, network = FlowMatching(), ExactNetwork(TARGET, Linear(), "velocity")
    batch = {"x1": TARGET.sample(200, stream(0, "x1"))}
    once = evaluate_loss(objective, network, batch, seed=3)
    assert torch.equal(once, evaluate_loss(objective, network, batch, seed=3))
    assert not torch.equal(once, evaluate_loss(objective, network, batch, seed=4))
    many = evaluate_loss(objective, network, batch, seed=3, repeats=16)
    assert many.shape == (200,) and float(many.std()) < 0.7 * float(once.std())
    assert not many.requires_grad
