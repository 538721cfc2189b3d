"""Advice: whom it blames, and that its change, when followed, does what was predicted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from monge.components import build
from monge.fields import Guided
from monge.flows import Integrated
from monge.paths import Linear
from monge.solvers import RK4, Euler
from monge.tensors import stream
from monge.times import Uniform
from monge.types import Cond, State, Time
from monge.verification.advice import Advice, Trials, advise
from monge.verification.budget import Budget, Draws, Known, budget, draw
from monge.verification.pipeline import Pipeline
from monge.verification.selftest import Disturbed, gaussian, overlapping, pipeline_of, term
from monge.verification.terms import Term, as_points


def advised(made: Pipeline, x: Tensor, trials: Trials, cond: Cond = None) -> tuple[Advice, Budget]:
    known = Known(x, cond)
    draws = draw(made, known, cond, len(x), 0)
    found = budget(made, known, draws)
    return advise(made, found, draws, trials), found


def setting(change: str | None, flag: str) -> str:
    assert change is not None
    words = change.split()
    return words[words.index(flag) + 1]


def test_steps_that_are_advised_do_what_was_predicted() -> None:
    target = overlapping(2)
    made = pipeline_of(target, solver=Euler(), steps=8)
    x = target.sample(600, stream(0, "x"))
    advice, found = advised(made, x, Trials())
    assert advice.term == "discretisation" and advice.share > 0.9 and advice.predicted is not None
    solver = build("solver", setting(advice.change, "--solver"))
    steps = int(setting(advice.change, "--steps"))
    followed = pipeline_of(target, solver=solver, steps=steps)
    after = term(advised(followed, x, Trials())[1], "discretisation").value
    assert advice.predicted / 2 < after < 2 * advice.predicted
    assert after < term(found, "discretisation").value / 5


def test_a_later_stop_does_what_was_predicted() -> None:
    target = gaussian(2)
    x = target.sample(600, stream(0, "x"))
    advice, found = advised(pipeline_of(target, stop=0.8, solver=RK4()), x, Trials())
    assert advice.term == "early stopping" and advice.predicted is not None
    stop = build("grid", setting(advice.change, "--grid")).stop
    after = term(advised(pipeline_of(target, stop=stop, solver=RK4()), x, Trials())[1], advice.term)
    assert advice.predicted / 2 < after.value < 2 * advice.predicted
    assert after.value < term(found, advice.term).value / 2


def test_less_guidance_is_half_of_it() -> None:
    def field(x: State, t: Time, cond: Cond = None) -> State:
        assert cond is not None
        return (cond["label"] >= 0).to(x)[:, None].expand_as(x)

    sampler = Integrated(Guided(field, 3.0), RK4(), Uniform(4))
    made = Pipeline(field, Linear(), sampler, "none", lambda x, _: x, lambda z: z)
    label = {"label": torch.zeros(100, dtype=torch.int64)}
    x = 1 + torch.randn(100, 2, generator=stream(0, "x"), dtype=torch.float64)
    advice, found = advised(made, x, Trials(), label)
    assert advice.term == "guidance" and advice.change == "--guidance 2"
    assert advice.predicted == pytest.approx(term(found, "guidance").value / 2)


def curved(n: int, key: str) -> Tensor:
    """Rows of twelve numbers whose principal components fall off like 1 / k."""
    rows = torch.randn(n, 12, generator=stream(0, key), dtype=torch.float64)
    return 10 * rows / torch.arange(1, 13)


def only(name: str, value: float, stderr: float = 0.0, more: tuple[Term, ...] = ()) -> Budget:
    """A budget with one term, and perhaps others."""
    terms = [Term(name, value, stderr, "upper", "", "", 10), *more]
    total = sum(t.value for t in terms)
    return Budget(terms, total, stderr, {}, 0.0, 0.0, 10, False, curved(10, "reference"))


def reconstruction_advice(trials: Trials, now: float) -> Advice:
    x = curved(400, "x")
    made = pipeline_of(gaussian(2))
    z = torch.zeros(len(x), 2).double()
    return advise(made, only("reconstruction", now), Draws(z, None, z, None, x), trials)


def test_principal_components_are_measured_and_keep_their_word() -> None:
    """An autoencoder of 4 numbers with an error of 6; six components have one of about 2.4."""
    train = curved(2000, "train")
    trials = Trials("conv:channels=1", 4, train)
    advice = reconstruction_advice(trials, 6.0)
    assert advice.change == "--autoencoder pca:dim=6" and advice.predicted is not None
    pca = build("autoencoder", "pca:dim=6").build((12,))
    pca.fit(train.float())
    fresh = curved(400, "fresh")
    gap = as_points(pca.decode(pca.encode(fresh.float()).mean)) - fresh
    error = float(gap.square().sum(1).mean().sqrt())
    assert advice.predicted == pytest.approx(error, rel=0.1)


def test_where_they_do_not_help_channels_are_doubled_as_they_scale() -> None:
    advice = reconstruction_advice(Trials("conv:down=2,channels=1", 4, curved(2000, "t")), 0.5)
    assert advice.change == "--autoencoder conv:down=2,channels=2"
    # sqrt(sum 1/k^2 over 9..12 and over 5..12): 0.1943^(1/2) and so on.
    tails = [sum(1 / k**2 for k in range(first, 13)) ** 0.5 for first in (9, 5)]
    assert advice.predicted == pytest.approx(0.5 * tails[0] / tails[1], rel=0.05)
    more = reconstruction_advice(Trials("pca:dim=4", 4, curved(2000, "t")), 4.0)
    assert more.change == "--autoencoder pca:dim=8"


def test_no_more_numbers_than_the_data_have() -> None:
    advice = reconstruction_advice(Trials("conv:channels=1", 10, curved(2000, "t")), 0.5)
    assert advice.change is None and "for longer" in advice.text


def test_more_steps_are_tried_where_the_truth_is_known() -> None:
    target = gaussian(2)
    made = pipeline_of(target, Disturbed(target.field(Linear()), 0.5), solver=RK4())
    x = target.sample(200, stream(0, "x"))
    better = Disturbed(target.field(Linear()), 0.25)
    advice, found = advised(made, x, Trials(longer=lambda: ("--steps 20", better)))
    assert advice.term == "velocity" and advice.change == "--steps 20"
    assert advice.predicted == pytest.approx(term(found, "velocity").value / 2, rel=0.05)
    same, _ = advised(made, x, Trials(longer=lambda: ("--steps 20", made.field)))
    assert same.change is None and "was tried and leaves" in same.text
    none, _ = advised(made, x, Trials(training="its loss rose"))
    assert none.change is None and none.text.endswith("was not tried; its loss rose")


def test_what_cannot_be_told_from_zero_is_not_blamed() -> None:
    made = pipeline_of(gaussian(2))
    z = torch.zeros(10, 2).double()
    draws = Draws(z, None, z, None, z)
    sure = Term("source", 0.5, 0.01, "upper", "", "", 10)
    unsure = advise(made, only("velocity", 0.6, 0.4, (sure,)), draws, Trials())
    assert unsure.term == "source" and unsure.share == pytest.approx(0.5 / 1.1)
    assert "velocity, 0.6 ± 0.4, is too uncertain" in unsure.text
    assert advise(made, only("velocity", 0.6, 0.05, (sure,)), draws, Trials()).term == "velocity"
    assert advise(made, only("velocity", 0.6, 0.4), draws, Trials()).term == "velocity"
    nothing = only("velocity", 0.0)
    assert "nothing to reduce" in advise(made, nothing, draws, Trials()).text
