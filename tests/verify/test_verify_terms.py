"""Each term and bound against a number worked out by hand: what laws alone would let pass."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from monge.fields import Guided
from monge.flows import Integrated
from monge.paths import Linear
from monge.solvers import RK4, Euler
from monge.targets.gaussian import Gaussian
from monge.tensors import stream
from monge.times import Uniform
from monge.types import Cond, State, Time
from monge.verification import lower_bounds as lower
from monge.verification.budget import Budget, Known, budget, draw
from monge.verification.curves import FieldError, growth_bound
from monge.verification.pipeline import Pipeline
from monge.verification.selftest import gaussian, measured, pipeline_of, term
from monge.verification.terms import Term, root_mean_square

STANDARD = Gaussian(torch.zeros(2).double(), torch.tensor(1.0).double())


def samples(n: int, dim: int, *key: int) -> Tensor:
    return torch.randn(n, dim, generator=stream(0, *key), dtype=torch.float64)


def test_a_root_mean_square_and_its_error() -> None:
    """Of lengths 3 and 4: the root of 12.5; squares 9 and 16 deviate by 7 / sqrt 2."""
    value, stderr = root_mean_square(torch.tensor([[3.0, 0.0], [0.0, 4.0]]).double())
    assert value == pytest.approx(math.sqrt(12.5))
    assert stderr == pytest.approx(7 / math.sqrt(2) / math.sqrt(2) / (2 * math.sqrt(12.5)))


def test_the_sum_has_every_term() -> None:
    """A pipeline in which all terms but the source's and guidance's are there."""

    def wrong(x: State, t: Time, cond: Cond = None) -> State:
        return target.field(Linear())(x, t, cond) + 0.3

    target = gaussian(2)
    made = pipeline_of(
        target, wrong, solver=Euler(), steps=4, stop=0.8, final="divide", decode=lambda z: z + 0.2
    )
    found = measured(made, target, 200)
    names = [t.name for t in found.terms if t.value > 0.01]
    assert names == ["discretisation", "velocity", "early stopping", "reconstruction"]
    assert found.sum == pytest.approx(sum(term(found, name).value for name in names))
    assert found.sum_stderr == pytest.approx(sum(term(found, name).stderr for name in names))


def test_the_reference_is_finer_than_the_sampler() -> None:
    """Euler with n steps takes x' = x from x0 to (1 + 1/n)^n x0, not to e x0."""
    grows = pipeline_of(STANDARD, lambda x, t, cond=None: x, solver=Euler(), steps=4)
    known = Known(samples(500, 2, 1))
    found = budget(grows, known, draws := draw(grows, known, None, 500, 0))
    size = float(draws.x0.square().sum(1).mean().sqrt())
    assert term(found, "discretisation").value == pytest.approx(
        (math.e - (1 + 1 / 4) ** 4) * size, rel=1e-6
    )


def test_guidance_is_measured_against_none() -> None:
    """v = 1 with the label and 0 without it: guidance 3 adds 2 to each of two coordinates."""

    def field(x: State, t: Time, cond: Cond = None) -> State:
        assert cond is not None
        return (cond["label"] >= 0).to(x)[:, None].expand_as(x)

    sampler = Integrated(Guided(field, 3.0), RK4(), Uniform(4))
    guided = Pipeline(field, Linear(), sampler, "none", lambda x, _: x, lambda z: z)
    label = {"label": torch.zeros(60, dtype=torch.int64)}
    known = Known(samples(60, 2, 1), label, samples(60, 2, 2), label)
    found = budget(guided, known, draw(guided, known, label, 60, 0))
    assert term(found, "guidance").value == pytest.approx(2 * math.sqrt(2))


def test_reconstruction_is_of_held_out_data() -> None:
    """An autoencoder that has learned the training data by heart."""
    heldout, train = samples(60, 2, 1), samples(60, 2, 2)

    def encode(x: Tensor, _: int) -> Tensor:
        return torch.where((x[:, None] == train).all(2).any(1)[:, None], x, x + 3)

    found = pipeline_of(STANDARD, encode=encode)
    known = Known(heldout, train=train)
    result = budget(found, known, draw(found, known, None, 60, 0))
    assert term(result, "reconstruction").value == pytest.approx(3 * math.sqrt(2))


def test_early_stopping_is_at_the_samplers_end() -> None:
    """Of atoms at zero x_T is sigma_T times noise: sqrt(2) (1 - T) in the plane, exactly."""
    atoms = Gaussian(torch.zeros(2).double(), torch.tensor(0.0).double())
    stopped = pipeline_of(atoms, steps=10, stop=0.8)
    early = term(measured(stopped, atoms, 4000), "early stopping")
    assert early.value == pytest.approx(math.sqrt(2) * 0.2, rel=0.03)
    assert early.extra is not None
    assert early.extra["exact_latent"] == pytest.approx(math.sqrt(2) * 0.2)


def test_an_estimated_velocity_term_is_a_shift_or_nothing() -> None:
    """Without a known law: a field whose samples are right, and one that is off by (1.5, 2).

    In eight dimensions the plug-in distance of right samples is above one, all of it floor.
    """
    exact = Gaussian(torch.zeros(8).double(), torch.tensor(1.0).double()).field(Linear())
    off = torch.tensor([1.5, 2.0, 0, 0, 0, 0, 0, 0]).double()
    known = Known(samples(400, 8, 1), train=samples(400, 8, 2))
    found = {}
    for name, shift in (("right", 0 * off), ("wrong", off)):

        def field(x: State, t: Time, cond: Cond = None, shift: Tensor = shift) -> State:
            return exact(x - t * shift, t, cond) + shift

        sampler = Integrated(field, RK4(), Uniform(16))
        made = Pipeline(field, Linear(), sampler, "none", lambda x, _: x, lambda z: z)
        found[name] = term(budget(made, known, draw(made, known, None, 400, 0)), "velocity")
    right, wrong = found["right"], found["wrong"]
    assert right.kind == "estimate" and right.value <= 3 * right.stderr < 1.5
    assert right.extra is not None and float(right.extra["plug_in"] or 0) > 1
    assert abs(wrong.value - 2.5) < 3 * wrong.stderr < 0.75


def test_a_flow_that_turns_a_round_law_has_a_loose_velocity_term() -> None:
    """By one radian: pairs by noise are 2 sin(1/2) |x| apart, and the law is what it was."""
    exact = STANDARD.field(Linear())
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()

    def field(x: State, t: Time, cond: Cond = None) -> State:
        return exact(x, t, cond) + x @ turn

    found = term(measured(pipeline_of(STANDARD, field), STANDARD, 1000), "velocity")
    assert found.value == pytest.approx(2 * math.sin(0.5) * math.sqrt(2), rel=0.05)
    assert found.extra is not None and 0 < float(found.extra["best_pairing"] or 0) < 0.3
    assert found.loose is not None and "moves samples within the law" in found.loose
    shifted = pipeline_of(STANDARD, lambda x, t, cond=None: exact(x, t, cond) + 1)
    tight = term(measured(shifted, STANDARD, 300), "velocity")
    assert tight.loose is None and tight.extra is not None
    assert tight.extra["best_pairing"] == pytest.approx(tight.value)


def test_lower_bounds_of_one_law_with_itself_are_often_zero() -> None:
    """Each square is corrected for what sampling alone adds, so about half of them fall below."""
    found = [lower.bounds(samples(200, 4, 1, k), samples(200, 4, 2, k)) for k in range(12)]
    for name in ("Gelbrich", "max-sliced"):
        values = [bounds[name][0] for bounds in found]
        assert 3 <= sum(value == 0 for value in values) <= 9
        assert max(values) < 0.45
    # Nor does any of them accuse a pipeline without error.
    assert not [why for bounds in found for why in against(0.0, 0.0, **bounds).violations]


def test_the_error_of_a_lower_bound_is_its_spread_over_fresh_examples() -> None:
    """Of laws a shift of 3 apart: both bounds reach it."""
    pairs = [(samples(200, 4, 1, k) + 1.5, samples(200, 4, 2, k)) for k in range(60)]
    found = [lower.bounds(*pair) for pair in pairs]
    for name in ("Gelbrich", "max-sliced"):
        values, errors = np.array([bounds[name] for bounds in found]).T
        assert abs(values.mean() - 3) < 4 * values.std() / math.sqrt(60)
        assert 0.75 < np.sqrt(np.square(errors).mean()) / values.std() < 1.4, name


@pytest.mark.parametrize("n", [40, 200])
def test_lower_bounds_stay_below_the_distance_of_few_examples_with_many_numbers(n: int) -> None:
    """Fewer examples than principal axes, and more: a shift by 100 / sqrt(300) in each number."""
    shift = 100 / math.sqrt(300)
    found = lower.bounds(samples(n, 300, 1, n) + shift, samples(n, 300, 2, n))
    for value, stderr in found.values():
        assert value <= 100 + 3 * stderr
    assert all(math.isfinite(stderr) for _, stderr in found.values())


def test_a_violation_is_told_at_three_errors_of_both_squares() -> None:
    def of(lower: float, stderr: float, sum_stderr: float) -> list[str]:
        return against(1.0, sum_stderr, Gelbrich=(lower, stderr)).violations

    assert not of(1.9, 0.3, 0.1) and not of(1.7, 0.1, 0.3) and not of(1.0, 0.0, 0.0)
    assert of(2.4, 0.3, 0.1) and of(2.1, 0.1, 0.3) and of(1.01, 0.0, 0.0)


def against(sum: float, sum_stderr: float, **bounds: tuple[float, float]) -> Budget:
    """A budget of one term with lower bounds."""
    one = Term("velocity", sum, sum_stderr, "upper", "", "", 10)
    return Budget([one], sum, sum_stderr, bounds, 0.0, 0.0, 10, True, samples(10, 2, 1))


def test_the_growth_bound_of_a_constant_error_and_rate() -> None:
    """int_0^1 exp(L (1 - t)) eps dt = eps (exp(L) - 1) / L."""
    bins = [FieldError(k / 50, (k + 1) / 50, 0.0, 0.0, 0.3**2, 0.0) for k in range(50)]
    found = growth_bound(bins, [0.0, 0.5, 1.0], [2.0, 2.0, 2.0])
    assert found == pytest.approx(0.3 * (math.exp(2) - 1) / 2, rel=1e-3)
