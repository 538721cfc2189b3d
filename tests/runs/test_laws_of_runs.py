"""Laws of what a run draws, fits and measures."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from monge.data.base import distance_scale
from monge.evaluation.baselines import _moments
from monge.evaluation.step_curve import step_curve
from monge.fitting.distil import distil
from monge.flows import Composed
from monge.latents.batches import LatentBatches
from monge.learned import Draw
from monge.learned.flow_map import renoised
from monge.metrics.evaluate import evaluate
from monge.objectives.flow_matching import FlowMatching
from monge.paths import Linear
from monge.runs.run import Run
from monge.sampling.facts import DataFacts
from monge.sampling.labels import asked_labels
from monge.tensors import stream
from monge.times import Uniform
from monge.types import Cond, Posterior, State, Time


@pytest.mark.parametrize("sides", [1, 2])
def test_each_latent_has_the_condition_of_its_example(sides: int) -> None:
    label = torch.arange(30)
    z = label.repeat(sides).float()[:, None]
    cond = {"label": label, "vector": 2.0 * label[:, None]}
    batches = LatentBatches(Posterior(z), cond, FlowMatching(path=Linear()), 7, seed=0)
    seen: set[int] = set()
    for step in range(9 * sides):
        batch = batches.draw(step)
        assert torch.equal(batch["x1"][:, 0], batch["label"].float())
        assert torch.equal(batch["vector"], 2 * batch["x1"])
        seen |= set(batch["label"].tolist())
    assert seen == set(range(30))


def test_table_columns_are_measured_by_their_deviation() -> None:
    x = torch.randn(4000, 2, generator=stream(0, "x")) * torch.tensor([0.01, 100.0])
    x = torch.cat([x, torch.ones(4000, 1)], 1)
    found = distance_scale("table", x)
    torch.testing.assert_close(found[:2], x[:, :2].std(0))
    assert found[2] == 1 and distance_scale("image", x) == 1


def test_distances_of_a_table_do_not_depend_on_its_units() -> None:
    def law(n: int, key: str) -> Tensor:
        return torch.randn(n, 2, generator=stream(0, key)).double()

    tables = []
    for units in (torch.tensor([1.0, 1.0]), torch.tensor([1000.0, 1.0])):
        train, real, samples = (law(60, k) * units for k in ("train", "real", "samples"))
        scale = distance_scale("table", train)
        sets = ((samples + 0.5 * units) / scale, train / scale, real / scale)
        tables.append(evaluate(*sets, max_n=40).table)
    for name in ("energy distance", "W2² exact", "C2ST AUC", "memorised fraction"):
        first, second = (table[name].value for table in tables)
        assert second == pytest.approx(first, rel=1e-6, abs=1e-9), name


def test_the_covariance_of_sampled_latents_is_the_total_one() -> None:
    rng = stream(0, "total")
    mean = (
        torch.randn(500, 2, generator=rng).double() @ torch.tensor([[1.0, 0.6], [0, 0.5]]).double()
    )
    logvar = torch.tensor([-1.0, 0.5]).double().expand(500, 2)
    parts = [Posterior(m, v) for m, v in zip(mean.split(130), logvar.split(130), strict=True)]
    centre, covariance = _moments(parts)
    torch.testing.assert_close(centre, mean.mean(0))
    torch.testing.assert_close(covariance, mean.T.cov() + logvar[0].exp().diag())
    rows = torch.randint(0, 500, (100_000,), generator=rng)
    noise = torch.randn(100_000, 2, generator=rng).double()
    drawn = Posterior(mean, logvar).rows(rows).sample(noise)
    torch.testing.assert_close(drawn.T.cov(), covariance, rtol=0.03, atol=0.02)


def test_labels_are_drawn_as_often_as_they_are_in_the_data() -> None:
    from scipy.stats import chisquare

    facts = DataFacts("table", (2,), ("a", "b", "c"), (900, 90, 10))
    label = asked_labels(None, facts, 10_000, seed=0)
    assert label is not None
    counts = torch.bincount(label, minlength=3).numpy()
    assert chisquare(counts, [9000, 900, 100]).pvalue > 1e-3
    assert chisquare(counts, [10_000 / 3] * 3).pvalue < 1e-12


def test_each_jump_of_a_consistency_model_has_noise_of_its_own() -> None:
    """A map to a constant: the states at inner knots are that constant and fresh noise."""
    seen: list[Tensor] = []

    def constant(x: State, s: Time, t: Time, cond: Cond = None) -> State:
        seen.append(x)
        return torch.full_like(x, 2.0)

    flow = Composed(constant, Uniform(4))
    n = 4000
    x0 = torch.randn(n, 1, generator=stream(0, "x0"))
    renoised(flow, Linear(), x0, Draw(0, 0, n, (1,)))
    assert len(seen) == 4
    inner = torch.cat([x0, *seen[1:]], 1)
    for column, t in zip(inner.T[1:], (0.25, 0.5, 0.75), strict=True):
        assert float(column.mean()) == pytest.approx(2 * t, abs=5 * (1 - t) / math.sqrt(n))
        assert float(column.std()) == pytest.approx(1 - t, rel=5 / math.sqrt(2 * n))
    between = torch.corrcoef(inner.T) - torch.eye(4)
    assert float(between.abs().max()) < 5 / math.sqrt(n)


def test_a_run_trained_with_guidance_samples_with_it(table_run: Run) -> None:
    import dataclasses

    spec = dataclasses.replace(table_run.spec, guidance=2.0)
    run = table_run
    guided = Run.of(run.folder, spec, run.facts, run.autoencoder, run.network, run.device)
    own, asked = guided.sample(20, seed=3), table_run.sample(20, seed=3, guidance=2)
    plain = guided.sample(20, seed=3, guidance=1)
    assert torch.equal(own.x, asked.x) and not torch.equal(own.x, plain.x)
    assert torch.equal(plain.x, table_run.sample(20, seed=3).x)
    assert own.info["guidance"] == 2 and plain.info["guidance"] == 1
    assert own.info["evaluations_per_sample"] == 2 * plain.info["evaluations_per_sample"]
    x, label = own.x[:5], own.label
    assert label is not None
    density = guided.log_density(x, label[:5]).value
    assert torch.equal(density, table_run.log_density(x, label[:5], guidance=2).value)
    assert not torch.equal(density, table_run.log_density(x, label[:5]).value)


def test_a_guided_teacher_is_compared_at_equal_evaluations(table_run: Run, tmp_path: Path) -> None:
    run = distil(table_run.folder, tmp_path / "run", guidance="2", steps=2, batch=16)
    points = step_curve(run, [1, 2, 4], 40)["points"]
    assert [p["evaluations"] for p in points if p["who"] == "map"] == [1, 2, 4]
    # Guidance evaluates the teacher twice in each stage, so one jump has no equal.
    assert [p["evaluations"] for p in points if p["who"] == "teacher"] == [2, 4]
    teacher, rows = run.teacher, []
    assert teacher is not None
    handle = teacher.network.register_forward_hook(lambda _, inputs, out: rows.append(len(out)))
    for solver, steps in (("euler", 2), ("heun", 1), ("rk4", 1)):
        rows.clear()
        found = teacher.sample(20, solver=solver, steps=steps, guidance=2.0)
        assert sum(rows) / 20 == found.info["evaluations_per_sample"]
    handle.remove()
