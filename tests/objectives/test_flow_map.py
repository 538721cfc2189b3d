"""Flow-map objectives: zero at exact maps, positive off them, and their gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from monge.components import FAMILIES, build
from monge.errors import UserError
from monge.flows import Integrated
from monge.networks.mlp import MLP, MLPSpec
from monge.objectives.base import Batch
from monge.objectives.flow_map import FlowMapMatching
from monge.objectives.flow_matching import FlowMatching
from monge.objectives.rules import base
from monge.objectives.rules.base import Derivative, Rule
from monge.objectives.rules.consistency import Consistency
from monge.objectives.rules.lagrangian import FlowMapRule, Lagrangian, SelfLagrangian
from monge.objectives.rules.semigroup import Progressive, SelfSemigroup
from monge.paths import Linear, Path
from monge.solvers import RK4
from monge.targets.base import Target
from monge.targets.gaussian import Gaussian, GaussianSpec
from monge.targets.mixture import MixtureSpec
from monge.tensors import expand, stream
from monge.types import Cond, FlowMap, State, Time, VelocityField

RULES: list[Rule] = [
    rule
    for name in FAMILIES["objective"]
    if (rule := build("objective", name)).learns == "flow map"
]

EXACT = [
    rule
    for name in ("lagrangian", "eulerian", "self-lagrangian", "self-eulerian")
    for stop in ("none", "convex", "full")
    for rule in [build("objective", f"{name}:stop={stop},clip=0,derivative=jvp")]
]
EXACT += [
    build("objective", text)
    for text in (
        "self-semigroup:clip=0",
        "self-semigroup:cut=uniform,stop=none,clip=0",
        "shortcut:clip=0",
        "continuous-consistency:clip=0",
    )
]
"""Rules whose residual vanishes at the exact map, whatever was drawn."""

PATHS: list[Path] = [build("path", text) for text in ("linear", "trigonometric", "power:kappa=2")]

STOPS = ("none", "convex", "full")

LAWS: list[Target] = [
    GaussianSpec(dim=3, condition=10.0).build(),
    MixtureSpec(dim=1, modes=3, seed=1).build(),
]


class ExactMean(nn.Module):
    """The mean velocity of an exact map, in a network's seat; with `off`, a wrong one."""

    def __init__(self, flow: FlowMap, velocity: VelocityField, off: float = 0.0) -> None:
        super().__init__()
        self.flow, self.velocity, self.off = flow, velocity, off

    def forward(self, x: State, t: Tensor, cond: Cond = None, s: Tensor | None = None) -> State:
        start = t if s is None else s
        gap = t - start
        if bool((gap == 0).all()):
            return self.velocity(x, t, cond)
        end = self.flow(x, start, t, cond)
        return (end - x) / expand(gap, x) + self.off * expand(gap, x) * x


def objective(
    rule: Rule, target: Target, path: Path, teacher: VelocityField | None = None
) -> FlowMapMatching:
    if rule.teacher and teacher is None:
        teacher = target.field(path)
    return FlowMapMatching(rule, FlowMatching(path=path), teacher=teacher)


def drawn(made: FlowMapMatching, target: Target, n: int, seed: int = 0) -> Batch:
    batch = made.draw({"x1": target.sample(n, stream(seed, "x1"))}, stream(seed, "draw"))
    return {k: x.double() if x.is_floating_point() else x for k, x in batch.items()}


def off_diagonal(made: FlowMapMatching, network: nn.Module, batch: Batch) -> Tensor:
    """The loss of the rows with s != t."""
    return made.loss(network, batch).per_example[batch["s"] != batch["t"]]


@pytest.mark.parametrize("target", LAWS, ids=repr)
@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("rule", EXACT, ids=repr)
def test_zero_at_the_exact_map_and_positive_off_it(rule: Rule, path: Path, target: Target) -> None:
    made = objective(rule, target, path)
    batch = drawn(made, target, 64)
    # Away from the ends, where the quantiles of far tails lose digits.
    batch |= {k: batch[k].clamp(0.02, 0.98) for k in ("s", "t")}
    flow, velocity = target.flow_map(path), target.field(path)
    assert off_diagonal(made, ExactMean(flow, velocity), batch).max() < 1e-10
    assert off_diagonal(made, ExactMean(flow, velocity, off=0.3), batch).mean() > 1e-4


@pytest.mark.parametrize("rule", [EXACT[0], EXACT[-4]], ids=repr)
def test_zero_at_an_integrated_map(rule: Rule) -> None:
    """A mixture in two dimensions, whose map has no closed form."""
    target, path = MixtureSpec(dim=2, modes=3, seed=0).build(), PATHS[0]
    made = objective(rule, target, path)
    velocity = target.field(path)
    flow = Integrated(velocity, RK4(), per_span=50)
    batch = drawn(made, target, 32)
    assert off_diagonal(made, ExactMean(flow, velocity), batch).max() < 1e-10
    assert off_diagonal(made, ExactMean(flow, velocity, off=0.3), batch).mean() > 1e-4


@pytest.mark.parametrize(
    ("coarse", "fine", "order"),
    [
        (Progressive(first=1 / 4, clip=0), Progressive(first=1 / 8, clip=0), 2),
        (Consistency(step=1 / 16, clip=0), Consistency(step=1 / 32, clip=0), 3),
    ],
    ids=repr,
)
def test_teacher_steps_vanish_at_their_order(coarse: Rule, fine: Rule, order: int) -> None:
    """Heun steps: the mean velocity over a span h errs by h^2; over a fixed one, by h^3."""
    target, path = LAWS[0], PATHS[0]
    network = ExactMean(target.flow_map(path), target.field(path))
    found = []
    for rule in (coarse, fine):
        made = objective(rule, target, path)
        batch = drawn(made, target, 2000)
        if isinstance(rule, Progressive):  # spans of the full first length
            batch = {**batch, "t": (batch["s"] + rule.first).clamp(max=1.0)}
            batch = {k: x[batch["t"] - batch["s"] == rule.first] for k, x in batch.items()}
        else:
            far = batch["s"] < 0.5
            batch = {k: x[far] for k, x in batch.items()}
        found.append(off_diagonal(made, network, batch).mean().sqrt())
    assert math.log2(found[0] / found[1]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(
    "text",
    ["meanflow", "improved-meanflow", "continuous-consistency-training", "flow-map-matching"],
)
def test_conditional_rules_leave_no_mean_residual_at_the_exact_map(text: str) -> None:
    """Their residual is the path's velocity less its mean: no function of x_s, s, t sees it."""
    target, path = LAWS[0], PATHS[0]
    rule = build("objective", f"{text}:weight=none,clip=0")
    made = objective(rule, target, path)
    batch = drawn(made, target, 40_000)
    batch = {k: x[batch["s"] != batch["t"]] for k, x in batch.items()}

    def correlations(off: float) -> Tensor:
        at = made._rows(ExactMean(target.flow_map(path), target.field(path), off), batch)
        with torch.no_grad():
            residual = rule.residuals(at)[0]
        tests = [torch.ones_like(at.x), at.x, at.gap * at.x, at.x * expand(at.s, at.x)]
        products = torch.stack([(residual * f).sum(1) for f in tests])
        return products.mean(1).abs() / (products.std(1) / math.sqrt(len(at.x)))

    assert correlations(0.0).max() < 4
    assert correlations(0.3).max() > 8


def test_flow_map_matching_has_the_minimal_loss_at_the_exact_map() -> None:
    """(pi / 2) tr S^(1/2) per dimension; its second term vanishes."""
    variances = torch.tensor([0.25, 1.0, 2.25], dtype=torch.float64)
    target, path = Gaussian(torch.zeros(3).double(), variances.diag()), PATHS[0]
    made = objective(FlowMapRule(clip=0), target, path)
    batch = drawn(made, target, 60_000)
    found = off_diagonal(made, ExactMean(target.flow_map(path), target.field(path)), batch)
    # s is uniform here, as the two times of a uniform square are.
    expected = math.pi / 2 * float(variances.sqrt().mean())
    error = float(found.std()) / math.sqrt(len(found))
    assert float(found.mean()) == pytest.approx(expected, abs=4 * error)


def test_the_second_term_of_flow_map_matching_is_the_way_back() -> None:
    """A map back that is off by c: its rate of time, so the first term, does not change."""
    target, path, c = LAWS[0], PATHS[0], 0.5
    exact = ExactMean(target.flow_map(path), target.field(path))

    class Shifted(nn.Module):
        def forward(self, x: State, t: Tensor, cond: Cond = None, s: Tensor | None = None) -> State:
            assert s is not None
            u = exact(x, t, cond, s)
            return u + c / expand(t - s, x) if bool((t < s).all()) else u

    made = objective(FlowMapRule(clip=0, derivative="jvp"), target, path)
    batch = drawn(made, target, 500)
    batch = {k: x[batch["t"] - batch["s"] > 0.1] for k, x in batch.items()}
    more = off_diagonal(made, Shifted(), batch) - off_diagonal(made, exact, batch)
    torch.testing.assert_close(more, torch.full_like(more, c**2))


@pytest.mark.parametrize("name", ["lagrangian", "eulerian"])
def test_zero_at_the_exact_map_of_a_guided_teacher(name: str) -> None:
    """Labelled N(m, I), unlabelled N(0, I): guided by w, the flow to N(w m, I)."""
    path, shift = Linear(), torch.tensor([2.0, -1.0], dtype=torch.float64)
    still = Gaussian(torch.zeros(2).double(), torch.eye(2).double())
    flow, velocity = still.flow_map(path), still.field(path)

    def teacher(x: State, t: Time, cond: Cond = None) -> State:
        assert cond is not None and isinstance(t, Tensor)
        mean = (cond["label"] >= 0).double()[:, None] * shift
        return mean + velocity(x - expand(t, x) * mean, t)

    class Map(nn.Module):
        def __init__(self, off: float) -> None:
            super().__init__()
            self.off = off

        def forward(self, x: State, t: Tensor, cond: Cond = None, s: Tensor | None = None) -> State:
            assert cond is not None and s is not None
            mean = (cond["guidance"][:, None] + self.off) * shift
            start, end = expand(s, x), expand(t, x)
            moved = flow(x - start * mean, s, t) + end * mean
            return (moved - x) / (end - start)

    matching = FlowMatching(path=path, label_drop=0.0)
    rule = build("objective", f"{name}:clip=0,derivative=jvp")
    made = FlowMapMatching(rule, matching, teacher=teacher, guidance=(1.0, 3.0))
    given = {"x1": torch.randn(64, 2, generator=stream(0, "x1")), "label": torch.zeros(64).long()}
    batch = made.draw(given, stream(0, "draw"))
    batch = {k: x.double() if x.is_floating_point() else x for k, x in batch.items()}
    assert batch["guidance"].min() < 1.5 and batch["guidance"].max() > 2.5
    assert off_diagonal(made, Map(0.0), batch).max() < 1e-10
    assert off_diagonal(made, Map(0.1), batch).mean() > 1e-3


@pytest.mark.parametrize("name", ["lagrangian", "eulerian", "consistency", "progressive"])
def test_maps_of_both_directions_are_taught_alike(name: str) -> None:
    """What remains at the exact map is a step's error, whatever the order of the times."""
    target, path = LAWS[0], PATHS[0]
    rule = build("objective", f"{name}:clip=0" + ",step=0.01" * (name == "consistency"))
    law = build("pairs", "triangle:both=true")
    made = FlowMapMatching(rule, FlowMatching(path=path), law, target.field(path))
    batch = drawn(made, target, 400)
    batch |= {k: batch[k].clamp(0.02, 0.98) for k in ("s", "t")}
    network = ExactMean(target.flow_map(path), target.field(path))
    for rows in (batch["s"] < batch["t"], batch["s"] > batch["t"]):
        part = {k: x[rows] for k, x in batch.items()}
        assert off_diagonal(made, network, part).mean() < 1e-5


def test_progressive_jumps_are_the_teachers_on_short_spans_and_its_own_on_long_ones() -> None:
    target, path = LAWS[0], PATHS[0]
    made = objective(Progressive(first=1 / 4, clip=0), target, path)
    batch = drawn(made, target, 400)
    batch |= {"s": batch["s"] * 0 + 0.1}
    network = ExactMean(target.flow_map(path), target.field(path))
    for t, least, most in ((0.3, 1e-8, 1e-2), (0.5, 0.0, 1e-10)):
        found = off_diagonal(made, network, {**batch, "t": batch["t"] * 0 + t})
        assert least <= found.mean() <= most


def test_diagonal_loss_of_the_exact_map_is_irreducible() -> None:
    variances = torch.tensor([0.25, 1.0, 2.25], dtype=torch.float64)
    target, path = Gaussian(torch.ones(3).double(), variances.diag()), PATHS[0]
    made = objective(SelfLagrangian(), target, path)
    batch = drawn(made, target, 60_000)
    found = made.loss(ExactMean(target.flow_map(path), target.field(path)), batch)
    on = batch["s"] == batch["t"]
    assert float(on.double().mean()) == pytest.approx(0.75, abs=1e-4)
    values = found.per_example[on]
    error = float(values.std()) / math.sqrt(len(values))
    assert float(values.mean()) == pytest.approx(math.pi / 2 * 3 / 3, abs=4 * error)


def small(two_times: bool = True, off: float = 0.3) -> nn.Module:
    """A random network in float64 whose every output depends on all of its inputs."""
    spec = MLPSpec(width=16, depth=2, two_times=two_times, time_scale=5.0)
    network = spec.build((3,)).double()
    rng = stream(1, "weights")
    with torch.no_grad():
        for p in network.parameters():
            p.add_(off * torch.randn(p.shape, generator=rng, dtype=torch.float64))
    return network


@pytest.mark.parametrize("derivative", ["jvp", "difference"])
@pytest.mark.parametrize("text", ["lagrangian", "eulerian", "self-lagrangian", "self-eulerian"])
def test_gradient_of_the_whole_residual_is_that_of_finite_differences(
    text: str, derivative: Derivative
) -> None:
    target, path = LAWS[0], PATHS[1]
    rule = build("objective", f"{text}:stop=none,clip=0,derivative={derivative}")
    made = objective(rule, target, path)
    batch, network = drawn(made, target, 16), small()
    made.loss(network, batch).per_example.mean().backward()
    rng, h = stream(2, "direction"), 1e-5
    names = [n for n, p in network.named_parameters() if p.grad is not None]
    direction = {
        n: torch.randn(p.shape, generator=rng, dtype=torch.float64)
        for n, p in network.named_parameters()
        if n in names
    }

    def moved(by: float) -> Tensor:
        other = copy.deepcopy(network)
        with torch.no_grad():
            for n, p in other.named_parameters():
                if n in direction:
                    p.add_(by * direction[n])
            return made.loss(other, batch).per_example.mean()

    expected = (moved(h) - moved(-h)) / (2 * h)
    found = sum((p.grad * direction[n]).sum() for n, p in network.named_parameters() if n in names)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_stopped_rules_are_regressions_on_a_fixed_target(rule: Rule) -> None:
    """The gradient of |u - sg(target)|^2 is that of 2 (u - target) u."""
    if rule.stop != "full":
        pytest.skip("differentiates more than u")
    made = objective(rule, LAWS[0], PATHS[0])
    batch, network = drawn(made, LAWS[0], 32), small()
    batch = {k: x[batch["s"] != batch["t"]] for k, x in batch.items()}
    at = made._rows(network, batch)
    (residual,) = rule.residuals(at)
    parameters = [p for n, p in network.named_parameters() if "pair_weight" not in n]
    found = torch.autograd.grad(residual.square().sum(), parameters)
    u = at.mean(at.x, at.s, at.t)
    expected = torch.autograd.grad(2 * (residual.detach() * u).sum(), parameters)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        *(f"{name}:stop={stop}," for name in ("lagrangian", "eulerian") for stop in STOPS),
        "meanflow:",
        "improved-meanflow:",
    ],
)
def test_differences_are_of_second_order(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradient by central differences tend to those by jvp as the step squared."""
    target, path, network = LAWS[0], PATHS[0], small()

    def found(derivative: Derivative, step: float) -> tuple[Tensor, Tensor]:
        monkeypatch.setattr(base, "STEP", step)
        made = objective(
            build("objective", f"{text}derivative={derivative},clip=0,weight=none"), target, path
        )
        batch = drawn(made, target, 64)
        batch |= {k: batch[k].clamp(0.05, 0.95) for k in ("s", "t")}
        loss = made.loss(network, batch).per_example
        grads = torch.autograd.grad(loss.mean(), list(network.parameters()), allow_unused=True)
        return loss.detach(), torch.cat([g.flatten() for g in grads if g is not None])

    exact = found("jvp", 0.0)
    gaps = [
        [
            float((a - b).norm() / b.norm())
            for a, b in zip(found("difference", h), exact, strict=True)
        ]
        for h in (2e-3, 1e-3)
    ]
    for coarse, fine in zip(*gaps, strict=True):
        assert math.log2(coarse / fine) == pytest.approx(2, abs=0.05)
        assert fine < 1e-3


def test_differences_at_the_ends_stay_inside_and_are_of_first_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target, path, network = LAWS[0], PATHS[0], small()

    def found(derivative: Derivative, step: float) -> Tensor:
        monkeypatch.setattr(base, "STEP", step)
        made = objective(Lagrangian(derivative=derivative, clip=0), target, path)
        batch = drawn(made, target, 64)
        batch |= {"t": torch.ones_like(batch["t"])}
        return made.loss(network, batch).per_example.detach()

    exact = found("jvp", 0.0)
    coarse, fine = (float((found("difference", h) - exact).norm()) for h in (2e-3, 1e-3))
    assert math.log2(coarse / fine) == pytest.approx(1, abs=0.1)


def test_differences_refuse_bf16() -> None:
    made = objective(Lagrangian(derivative="difference"), LAWS[0], PATHS[0])
    batch = {k: x.float() for k, x in drawn(made, LAWS[0], 8).items()}
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(UserError, match="central differences cancel digits"),
    ):
        made.loss(small().float(), batch)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_every_rule_draws_and_trains(rule: Rule) -> None:
    """A finite loss of the right shape, and a gradient, in float32, whatever the micro-batch."""
    target, path = LAWS[0], PATHS[0]
    made = objective(rule, target, path)
    batch = {k: x.float() for k, x in drawn(made, target, 40).items()}
    network = small().float()
    loss = made.loss(network, batch)
    assert loss.per_example.shape == (40,) and bool(loss.per_example.isfinite().all())
    loss.per_example.mean().backward()
    size = sum(float(p.grad.norm()) for p in network.parameters() if p.grad is not None)
    assert math.isfinite(size) and size > 0
    halves = [{k: x[i : i + 20] for k, x in batch.items()} for i in (0, 20)]
    parts = torch.cat([made.loss(network, half).per_example for half in halves])
    torch.testing.assert_close(parts, loss.per_example, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [3, 16, 33])
def test_the_diagonal_is_spread_over_the_rows(size: int) -> None:
    """A quarter of the rows is off it: exactly, or, where that is no number, on average."""
    made = objective(SelfSemigroup(), LAWS[0], PATHS[0])
    x1 = LAWS[0].sample(size, stream(0, "x1"))
    counts = []
    for step in range(100):
        batch = made.draw({"x1": x1}, stream(0, "draw", step), step)
        off = batch["s"] != batch["t"]
        counts.append(int(off.sum()))
        assert bool((off.nonzero().squeeze(1).diff() == 4).all())
    assert {*counts} <= {size // 4, -(-size // 4)}
    # 100 draws of one bit: three standard deviations.
    assert abs(sum(counts) / 100 - size / 4) <= 3 * 0.5 / 10 * (size % 4 != 0)


def test_spans_grow() -> None:
    """Progressive spans double; annealed ones grow steadily."""
    assert [Progressive(round=10).span(k) for k in (0, 9, 10, 39, 40, 99)] == [
        1 / 16,
        1 / 16,
        1 / 8,
        1 / 2,
        1.0,
        1.0,
    ]
    assert [SelfLagrangian(anneal=4).span(k) for k in (0, 1, 3, 9)] == [0.25, 0.5, 1.0, 1.0]
    made = objective(Progressive(), LAWS[0], PATHS[0])
    batch = made.draw({"x1": LAWS[0].sample(500, stream(0, "x1"))}, stream(0, "draw"), 0)
    assert float((batch["t"] - batch["s"]).max()) <= 1 / 16 + 1e-6
    # By itself the whole span has the last third of the steps, whatever their number.
    for steps in (30, 1500):
        planned = Progressive().planned(steps)
        spans = [planned.span(k) for k in range(steps)]
        assert spans[0] == 1 / 16 and spans.count(1.0) == steps - 4 * planned.round
        assert spans.count(1.0) == pytest.approx(steps / 3, abs=2)
    assert Progressive(round=7).planned(1500) == Progressive(round=7)
    assert Progressive().planned(None).round == 500


def test_residuals_are_clipped_and_counted() -> None:
    made = objective(Lagrangian(clip=4.0), LAWS[0], PATHS[0])
    free = objective(Lagrangian(clip=0.0), LAWS[0], PATHS[0])
    batch, network = drawn(made, LAWS[0], 64), small()
    whole, cut = free.loss(network, batch).per_example, made.loss(network, batch)
    over = whole > 16
    assert 0 < int(over.sum()) < 64
    assert torch.equal(cut.parts["clipped"], over.double())
    torch.testing.assert_close(cut.per_example[over], 4 * whole[over].sqrt())
    torch.testing.assert_close(cut.per_example[~over], whole[~over])


@pytest.mark.parametrize("bad", [1e30, math.inf, math.nan])
def test_spikes_of_a_target_are_bounded_counted_and_harmless(bad: float) -> None:
    """One row's tangent is wild: its gradient is bounded, the other rows' is untouched."""
    target, path = LAWS[0], PATHS[0]
    rule = Lagrangian(stop="full")
    honest = target.field(path)

    def wild(x: State, t: Tensor, cond: Cond = None) -> State:
        v = honest(x, t, cond)
        return torch.cat([torch.full_like(v[:1], bad), v[1:]])

    network = small()
    batch = drawn(objective(rule, target, path), target, 32)
    losses = []
    for teacher in (honest, wild):
        made = objective(rule, target, path, teacher)
        found = made.loss(network, batch)
        found.per_example.mean().backward()
        assert all(
            bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None
        )
        network.zero_grad()
        losses.append(found)
    assert bool(losses[1].parts["clipped"][0]) and not bool(losses[0].parts["clipped"][0])
    assert torch.equal(losses[0].per_example[1:], losses[1].per_example[1:])
    assert bool(losses[1].per_example.isfinite().all())


def test_an_untrained_network_has_a_finite_gradient() -> None:
    """Its residuals vanish, where a root has no derivative."""
    made = objective(SelfSemigroup(), LAWS[0], PATHS[0])
    network = MLPSpec(width=8, depth=1, two_times=True).build((3,)).double()
    made.loss(network, drawn(made, LAWS[0], 16)).per_example.mean().backward()
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(bool(g.isfinite().all()) for g in grads)


def test_learned_weights_balance_errors() -> None:
    """e^-w r + w is least at w = log r, where each pair of times counts alike."""
    target, path = LAWS[0], PATHS[0]
    rule = build("objective", "self-lagrangian:weight=learned")
    made = objective(rule, target, path)
    network, batch = small(), drawn(made, target, 64)
    plain = objective(SelfLagrangian(), target, path).loss(network, batch).per_example
    w = network.log_variance(batch["s"], batch["t"])
    torch.testing.assert_close(made.loss(network, batch).per_example, (-w).exp() * plain + w)
    with pytest.raises(UserError, match="two_times=true"):
        small(two_times=False).log_variance(batch["s"], batch["t"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: objective(SelfLagrangian(), LAWS[0], PATHS[0], LAWS[0].field(PATHS[0])),
            "no teacher",
        ),
        (lambda: FlowMapMatching(Lagrangian(), FlowMatching()), "needs a teacher: monge distil"),
        (lambda: objective(SelfLagrangian(diagonal=0.0), LAWS[0], PATHS[0]), "diagonal must be"),
        (lambda: build("objective", "lagrangian:diagonal=1"), r"lie in \[0, 1\)"),
        (lambda: build("objective", "meanflow:stop=half"), "unknown value 'half'"),
        (lambda: build("objective", "continuous-consistency:stop=none"), "stop=full"),
        (
            lambda: FlowMapMatching(
                Lagrangian(), FlowMatching(), build("pairs", "to_data"), LAWS[0].field(PATHS[0])
            ),
            "compares jumps to different times",
        ),
        (lambda: build("objective", "consistency:stop=convex"), "stop=full alone"),
        (lambda: build("objective", "self-semigroup:stop=convex"), "stop=full or none alone"),
        (lambda: build("objective", "consistency:step=0"), r"step must lie in \(0, 1\]"),
        (lambda: build("objective", "self-lagrange"), "self-lagrangian"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_a_network_derived_from_ours_may_compute_what_duals_do_not_know() -> None:
    """It is differentiated by torch instead."""

    class Bounded(MLP):
        def forward(self, x: Tensor, t: Time, cond: Cond = None, s: Time | None = None) -> Tensor:
            return torch.tanh(super().forward(x, t, cond, s))

    network = Bounded(MLPSpec(width=8, depth=1, two_times=True), (2,), None, 0)
    network.reset(stream(0, "weights"))
    made = FlowMapMatching(SelfLagrangian(), FlowMatching(path=Linear()))
    batch = made.draw({"x1": torch.randn(32, 2, generator=stream(0, "x1"))}, stream(0, "draw"))
    made.loss(network, batch).per_example.mean().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in network.parameters())
    assert network.out.weight.grad is not None and bool(network.out.weight.grad.any())
