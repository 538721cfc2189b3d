"""The sum of the budget is no less than W2 where the field is stiff at the end of the path."""

from __future__ import annotations

import pytest
import torch

from monge.fields import Predict
from monge.flows import Integrated
from monge.networks.exact import ExactNetwork
from monge.paths import Linear
from monge.solvers import RK4
from monge.targets.gaussian import Gaussian
from monge.tensors import stream
from monge.times import Uniform
from monge.verification.budget import Known, budget, draw
from monge.verification.pipeline import Pipeline


@pytest.mark.parametrize("s", [0.005])
def test_the_sum_bounds_the_distance_of_a_narrow_law(s: float) -> None:
    target, path = Gaussian(torch.zeros(1).double(), torch.tensor(s * s).double()), Linear()
    field = Predict(ExactNetwork(target, path, "velocity"), path, "velocity")
    sampler = Integrated(field, RK4(), Uniform(64))
    made = Pipeline(field, path, sampler, "none", lambda x, _: x, lambda z: z, target)
    rng = stream(1, "known")
    known = Known(target.sample(200, rng), train=target.sample(200, rng))
    found = budget(made, known, draw(made, known, None, 200, 0), 0)
    # The sampler's map is linear: it takes N(0, 1) to N(0, slope^2).
    ends = made.latents(sampler, torch.tensor([[-1.0], [1.0]]).double())[:, 0]
    w2 = abs(float(ends[1] - ends[0]) / 2 - s)
    assert w2 > 1e-3 * s
    assert found.sum + 4 * found.sum_stderr >= w2 and found.sum < 3 * w2
    assert not found.violations
