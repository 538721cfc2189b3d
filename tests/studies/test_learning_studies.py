"""The studies that train: their estimators against closed forms, and their verdicts in small."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monge.fields import Predict
from monge.objectives.flow_matching import FlowMatching
from monge.paths import Linear, Power
from monge.studies import approximation, catalogue, flow_maps, sample_size, schedules, tangent_mix
from monge.studies.learning import Best, Examples, Until, exact_ends, excess, nodes, train, walk
from monge.studies.running import run
from monge.studies.verdicts import Verdict, judge
from monge.targets.atoms import Atoms
from monge.targets.gaussian import Gaussian
from monge.targets.noised import noised
from monge.targets.wasserstein import between_quantiles
from monge.tensors import stream
from monge.times import Uniform


def measured(name: str, **axes: tuple[Any, ...]) -> tuple[list[dict[str, Any]], list[Verdict]]:
    study = catalogue.find(name)
    results = run(study, axes)
    assert not results.failures, results.failures[0].error
    return list(results.rows), judge(study.claims, results.rows, study.repeats)


class Shifted(nn.Module):
    """The exact velocity of a law, plus a constant in every coordinate."""

    def __init__(self, law: Any, by: float) -> None:
        super().__init__()
        self.law, self.by = law, by

    def forward(self, x: Tensor, t: Any, cond: Any = None) -> Tensor:
        return (self.law.field(Linear())(x.double(), t) + self.by).to(x.dtype)


def test_the_excess_loss_of_a_shifted_field_is_its_square() -> None:
    law = sample_size.law_of(3)
    field = Predict(Shifted(law, 0.2), Linear())
    z = law.sample(256, stream(0, "z"))
    assert excess(field, law, z, (0.0, 0.98), 0) == pytest.approx(3 * 0.2**2, rel=1e-4)


def test_a_shifted_field_ends_where_a_shifted_walk_does() -> None:
    """On N(0, 1) the exact field is zero at t = 1/2 and its flow is the identity at t = 1."""
    law = Gaussian(torch.zeros(1), torch.tensor(1.0))
    z, weights = nodes(41, 1, 0)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights @ z[:, 0].square()) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(exact_ends(law, z), z)
    (end,) = walk(Predict(Shifted(law, 0.0), Linear()), Uniform(30), z, [1.0])
    torch.testing.assert_close(end, z, atol=1e-5, rtol=0)


def test_training_times_end_where_they_are_told_to() -> None:
    law = sample_size.law_of(1)
    examples = Examples(law, FlowMatching(times=Until(0.3)), 0, 64)
    assert float(examples.draw(0)["t"].max()) <= 0.3 < 4 * float(examples.draw(0)["t"].max())
    assert torch.equal(examples.draw(5)["x1"], examples.draw(5)["x1"])


def test_the_best_look_is_kept_not_the_last() -> None:
    errors = iter([3.0, 1.0, 2.0])
    best = Best(lambda _: next(errors))
    networks = [nn.Linear(1, 1) for _ in range(3)]
    for step, network in enumerate(networks):
        best(network, step)
    assert best.step == 1 and best.network is not None
    assert torch.equal(best.network.weight, networks[1].weight)


def test_a_short_training_learns() -> None:
    law = Gaussian(torch.full((2,), 2.0), torch.tensor(1.0))
    objective, seen = FlowMatching(), []
    network = sample_size.build("network", "mlp:width=16,depth=1,embed=16").build((2,))
    before = network(torch.zeros(1, 2), 0.5)
    found = train(
        network, Examples(law, objective, 0), 40, lr=1e-2, every=20,
        look=lambda _, step: seen.append(step),
    )  # fmt: skip
    assert seen == [20, 40] and not found.training
    assert float((found(torch.zeros(1, 2), 0.5) - before).detach().norm()) > 1  # towards the mean


def test_the_kernel_of_the_sample_size_is_a_kernel_density() -> None:
    """The walk ends at W2 between the law and a kernel density of bandwidth delta / T."""
    rows, found = measured("sample-size", dim=(1,), network=("kernel",), n=(64, 256, 1024))
    row = next(r for r in rows if r["n"] == 64 and r["seed"] == 0)
    law = sample_size.law_of(1)
    samples = law.sample(1024, stream(0, "sample-size", 1))[:64]
    width = row["delta"] / (1 - row["delta"])
    density = noised(Atoms(samples), 1.0, width)
    assert row["tuned"] == pytest.approx(between_quantiles(density, law), rel=0.03)
    assert row["stopped"] == pytest.approx(64 ** (-1 / 6) / 8)
    words = {v.claim.name[:8]: v.word for v in found}
    assert len(found) == 2 and "refutes" not in words.values()


def test_stopping_by_the_rule_costs_what_the_exact_flow_loses() -> None:
    """W2 of the exact flow, stopped by the rule: delta (E|x_1|^2)^{1/2} to first order."""
    law, delta = sample_size.law_of(1), sample_size.rule(4096, 1)
    assert delta == 1 / 32
    z, weights = nodes(100, 1, 0)
    exact = Predict(Shifted(law, 0.0), Linear())
    fresh = law.sample(64, stream(0, "fresh"))
    row = sample_size._measured(exact, law, fresh, z, weights, law.quantile(z), delta, 0)
    assert row["by_rule"] == pytest.approx(delta * math.sqrt(law.second_moment), rel=0.1)
    assert row["excess"] < 1e-9 and row["tuned"] < row["by_rule"] / 10
    assert row["delta"] == pytest.approx(0.02)


def test_schedules_end_alike_where_the_noise_is_alike() -> None:
    for kappa in (0.5, 0.75, 2.0):
        t = torch.tensor(schedules.stop_at(kappa, 0.15), dtype=torch.float64)
        alpha, sigma = Power(kappa).scales(t)
        assert float(sigma / alpha) == pytest.approx(0.15)
    assert [schedules.exponent(k, 2) for k in (0.5, 0.75, 1.0, 2.0)] == pytest.approx(
        [-0.5, -0.43333333, -0.4, -0.35]
    )
    rows, found = measured(
        "schedules", dim=(1,), network=("exact",), kappa=(0.5,), seed=(0,), n=(64,)
    )
    assert Counter(v.word for v in found) == {"consistent": 1} and len(rows) == 6
    rows, _ = measured(
        "schedules", dim=(1,), network=("kernel",), kappa=(0.5, 2.0), seed=(0,), n=(64, 256)
    )
    assert rows[0]["w2"] == pytest.approx(rows[2]["w2"], rel=1e-3)
    assert rows[1]["w2"] == pytest.approx(rows[3]["w2"], rel=1e-3)


@pytest.mark.parametrize("network", schedules.NETWORKS)
def test_a_field_of_a_schedule_is_trained(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "STEPS", 10)
    rows, _ = measured("schedules", dim=(2,), network=(network,), kappa=(0.5,), seed=(0,), n=(64,))
    assert 0 < rows[0]["floor"] < 5 and 0 < rows[0]["w2"] < 5


def test_targets_of_the_approximation() -> None:
    sine = approximation.regression("sine")
    drawn = sine.draw({"x1": torch.tensor([[0.5, -0.5, 0.0, 1 / 6]])}, stream(0, "x"))
    torch.testing.assert_close(drawn["y"], torch.tensor([[1.0, -1.0, 0.0, 0.5]]))
    velocity = approximation.regression("velocity")
    drawn = velocity.draw({"x1": torch.tensor([[0.75, 0.0]] * 3)}, stream(0, "x"))
    x, t = drawn["x"].double(), drawn["t"].double()[:, None]
    scale = (1 - t) ** 2 + t**2 / 4
    share = torch.sigmoid(2 * x[:, :1] * t * 0.75 / scale)  # of the mode on the right
    mode = 0.75 * torch.cat([2 * share - 1, torch.zeros_like(share)], 1)
    by_hand = mode + (t / 4 - (1 - t)) / scale * (x - t * mode)
    torch.testing.assert_close(drawn["y"].double(), by_hand, atol=1e-5, rtol=0)


def test_the_cap_holds_in_the_approximation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximation, "STEPS", 20)
    rows, found = measured(
        "approximation", function=("sine",), network=("capped",), seed=(0,), width=(8,)
    )
    words = {v.claim.name: v.word for v in found if "constant" in v.claim.name}
    assert set(words.values()) == {"consistent"} and len(words) == 2
    assert rows[0]["slope_found"] <= rows[0]["certified"] <= 5


def test_a_planted_map_attains_the_eulerian_bound() -> None:
    rows, found = measured("flow-maps", law=("gaussian",), rule=("planted",), seed=(0,))
    assert Counter(v.word for v in found) == {"consistent": 3}
    z = nodes(512, 2, 0)[0]
    ends = flow_maps.exact_map(flow_maps.law_of("gaussian"))(z, z[:, 0] * 0, z[:, 0] * 0 + 1)
    second = float(ends.square().sum(1).mean())
    assert rows[0]["eulerian"] == pytest.approx((10 / rows[0]["steps"]) ** 2 * second)


def test_the_lagrangian_residual_of_the_exact_map_vanishes() -> None:
    law = flow_maps.law_of("gaussian")
    z, weights = nodes(64, 2, 0)
    residuals = flow_maps.along_the_edges(flow_maps.exact_map(law), law, z, weights)
    assert max(residuals) < 1e-20


def test_a_wrong_end_that_the_triangle_hides_is_seen_along_its_edge() -> None:
    """A bump of the map near t = 1: the average over the triangle is a fifth of what it costs."""
    law = flow_maps.law_of("gaussian")
    exact, eps, width = flow_maps.exact_map(law), 0.2, 0.05
    z, weights = nodes(256, 2, 0)

    def bump(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return exact(x, s, t) * (1 + (eps * (t - s) * (-(1 - t) / width).exp())[:, None])

    zero, one = z.new_zeros(len(z)), z.new_ones(len(z))
    squared = float(weights @ (bump(z, zero, one) - exact(z, zero, one)).square().sum(1))
    eulerian, lagrangian = flow_maps.along_the_edges(bump, law, z, weights)
    assert eulerian == pytest.approx(squared, rel=1e-6)
    assert lagrangian > squared
    # The same residual averaged over 0 <= s <= t <= 1, whose density is 2: the cheat.
    t = (torch.arange(200).double() + 0.5) / 200
    inside = eps**2 * (-2 * (1 - t) / width).exp() * t
    assert 2 * float(inside.mean()) * squared / eps**2 < squared / 5


def test_a_map_of_each_rule_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, found = measured(
        "flow-maps", law=("gaussian",), rule=tuple(flow_maps.RULES), seed=(0,), steps=(10,)
    )
    assert len(rows) == 4 and all(0 < row["error"] < 3 for row in rows)
    bounds = [v.word for v in found if "squared error" in v.claim.name]
    assert bounds == ["consistent"] * 8


def test_the_noise_of_the_meanflow_target_is_closed() -> None:
    assert tangent_mix.closed(1.0, 1.0)[0] == pytest.approx(math.pi / 2, rel=1e-5)
    _, found = measured("tangent-mix", law=tuple(tangent_mix.LAWS), seed=(0,))
    assert Counter(v.word for v in found) == {"consistent": 12}


def test_a_map_with_a_mixed_tangent_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tangent_mix, "STEPS", 10)
    rows, _ = measured("tangent-mix", law=("gaussian",), seed=(0,), beta=(0.5,))
    assert 0 < rows[0]["error"] < 3
