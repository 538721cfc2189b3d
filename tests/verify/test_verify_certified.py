"""The certified bound of the velocity term: by hand, and against the distance that it bounds."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from monge.fields import Predict
from monge.flows import Integrated
from monge.networks.certificate import certificate
from monge.networks.lipschitz import LipschitzSpec
from monge.paths import Linear
from monge.solvers import RK4
from monge.targets.mixture import MixtureSpec
from monge.tensors import stream
from monge.times import Uniform
from monge.verification.certified import Certified, certified, in_words, integral, velocity_part
from monge.verification.curves import FieldError, field_errors
from monge.verification.pipeline import Pipeline
from monge.verification.selftest import pipeline_of


def learned(output: str = "velocity", stop: float = 1.0, cap: float = 1.5) -> Pipeline:
    """A pipeline whose network was fitted for a few steps to a mixture in two dimensions."""
    target = MixtureSpec(dim=2, modes=2, spread=1.0).build()
    spec = LipschitzSpec(cap=cap, width=8, depth=2, heads=1)
    network = spec.build((2,)).double().eval()
    with torch.no_grad():
        for k, p in enumerate(network.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=stream(k, "p"), dtype=torch.float64)
        for layer in (network.embed, network.out, *(inner.linear for inner in network.layers)):
            layer.weight /= torch.linalg.matrix_norm(layer.weight, 2).clamp_min(1.0)
    field = Predict(network, Linear(), output)
    sampler = Integrated(field, RK4(), Uniform(24, stop=stop))
    return dataclasses.replace(pipeline_of(target), field=field, sampler=sampler)


def test_integrals_of_pieces_by_hand() -> None:
    rates = [1.0, 3.0, -2.0, 0.0]  # on quarters
    assert integral(rates, (0.0, 1.0), 0.0, 1.0) == pytest.approx(0.5)
    assert integral(rates, (0.0, 1.0), 0.125, 0.625) == pytest.approx(0.125 + 0.75 - 0.25)


def test_the_part_of_a_piece_of_time_by_hand() -> None:
    """Errors 4 +- 1: sqrt(4 + 3), grown from its start where rates are positive."""
    error = FieldError(0.5, 0.75, 0.0, 0.0, 4.0, 1.0)
    found = velocity_part(error, [2.0] * 4, (0.0, 1.0), 1.0)
    assert found == pytest.approx(0.25 * math.sqrt(7) * math.exp(1.0))
    shrinking = velocity_part(error, [-2.0] * 4, (0.0, 1.0), 1.0)
    assert shrinking == pytest.approx(0.25 * math.sqrt(7) * math.exp(-0.5))
    # The integral from t to 1 is largest inside the piece.
    inside = velocity_part(error, [0.0, 0.0, 0.0, 0.0, -1.0, 4.0, 0.0, 0.0], (0.0, 1.0), 1.0)
    assert inside == pytest.approx(0.25 * math.sqrt(7) * math.exp(0.5))
    assert velocity_part(error, [1e4], (0.0, 1.0), 1.0) == math.inf


@pytest.mark.parametrize(("output", "stop"), [("velocity", 1.0), ("data", 0.8)])
def test_the_bound_is_above_the_distance_of_the_flows(output, stop) -> None:
    """The same noise through the learned and the true flow: at least their W2."""
    pipeline = learned(output, stop)
    assert pipeline.truth is not None
    rng = stream(3)
    z, x0 = pipeline.truth.sample(400, rng), torch.randn(400, 2, generator=rng).double()
    z = z[0] if isinstance(z, tuple) else z
    errors = field_errors(pipeline.field, Linear(), pipeline.truth, z, None, (0.0, stop), bins=8)
    found = certified(pipeline, errors, [0.0, stop / 2, stop], x0, None, ascent=8)
    assert isinstance(found, Certified) and found.bound is not None
    true = Integrated(pipeline.truth.field(Linear()), RK4(), Uniform(48, stop=stop))
    with torch.no_grad():
        gap = pipeline.unguided(x0, 0.0, stop) - true(x0, 0.0, stop)
    distance = float(gap.square().sum(1).mean().sqrt())
    assert 0.1 < distance <= found.bound
    assert found.found <= max(found.norm) + 1e-9 and max(found.norm) <= found.largest
    assert sum(found.bins) == pytest.approx(found.bound)
    if output == "velocity":
        cap = certificate(pipeline.field.net).one_sided
        assert found.growth == pytest.approx(math.exp(cap), rel=1e-7)
    else:  # (L - 1) / (1 - t): (1 - T)^-(L - 1), within what upper sums add
        exact = (1 - stop) ** -(certificate(pipeline.field.net).euclidean - 1)
        assert exact <= found.growth <= 1.01 * exact


def test_a_field_without_a_certificate_says_why() -> None:
    pipeline = pipeline_of(MixtureSpec(dim=2).build())
    x0 = torch.zeros(2, 2, dtype=torch.float64)
    assert "not that of a network" in str(certified(pipeline, [], [0.0], x0, None))
    cheat = learned()
    cheat.field.net.out.register_forward_hook(lambda m, x, y: 100 * y)
    assert "hooks" in str(certified(cheat, [], [0.0], x0, None))
    assert in_words("no certificate", {}) == [] and in_words(None, {}) == []


def test_the_report_in_words_has_the_three_constants() -> None:
    found = certified(learned(), [], [0.0, 1.0], torch.zeros(2, 2, dtype=torch.float64), None)
    assert isinstance(found, Certified) and found.bound is None
    words = "\n".join(in_words(dataclasses.asdict(found), {"amplification": 1.25}))
    assert "bound unknown" in words and "certified 1.5," in words and "flow 1.25" in words
