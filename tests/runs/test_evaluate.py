"""Rows that only a run can have: exact divergences from a known target, and latents."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from monge.evaluation.baselines import gaussian_latents
from monge.evaluation.evaluate import evaluate_run
from monge.evaluation.known_target import log_density, target_rows
from monge.evaluation.latent_rows import latent_rows
from monge.fitting.train import train
from monge.metrics.table import Table
from monge.runs.run import Run
from monge.runs.spec import TrainSpec
from monge.targets.gaussian import Gaussian

EXACT = TrainSpec(data="target:gaussian:dim=3", network="exact", solver="rk4", grid="uniform:n=20")


def rows_of(run: Run, n: int = 200) -> Table:
    data = run.data()
    return Table(target_rows(run, data, run.sample(n), seed=0))


@pytest.fixture(scope="module")
def exact_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(EXACT, out=tmp_path_factory.mktemp("exact") / "run")


def test_the_exact_field_has_no_divergence(exact_run: Run) -> None:
    rows = rows_of(exact_run)
    assert [row.name for row in rows] == ["KL(target | run)", "KL(run | target)", "total variation"]
    for row in rows:
        assert abs(row.value) < 1e-3 and row.floor == 0.0 and row.n == 200
    assert rows["KL(target | run)"].protocol["mean change of log-density at twice the steps"] < 1e-3


def test_against_a_moved_target_divergences_are_those_of_a_shift(exact_run: Run) -> None:
    data = exact_run.data()
    first = data.target
    assert isinstance(first, Gaussian)
    moved = Gaussian(first.mean + torch.tensor([1.0, 0.0, 0.0]), first.covariance)
    heldout = moved.sample(400, torch.Generator().manual_seed(0)).float()
    changed = replace(data, target=moved, heldout=heldout)
    rows = Table(target_rows(exact_run, changed, exact_run.sample(400)))
    truth = float(0.5 * torch.linalg.inv(first.covariance)[0, 0])  # both directions
    for name in ("KL(target | run)", "KL(run | target)"):
        stderr = rows[name].protocol["stderr"]
        assert isinstance(stderr, float) and stderr < 0.2 * truth + 0.05
        assert abs(rows[name].value - truth) < 3.5 * stderr
    tv = torch.special.erf(torch.tensor((2 * truth) ** 0.5 / 8**0.5))  # 2 Phi(delta / 2) - 1
    row = rows["total variation"]
    assert abs(row.value - float(tv)) < 3.5 * float(row.protocol["stderr"])


def test_a_run_with_labels_is_the_mixture_of_its_laws(table_run: Run) -> None:
    x = table_run.data().heldout[:20]
    counts = torch.tensor(table_run.facts.label_counts, dtype=torch.float64)
    total = sum(
        (share * table_run.log_density(x, torch.full((20,), k)).value.double().exp())
        for k, share in enumerate(counts / counts.sum())
    )
    torch.testing.assert_close(log_density(table_run, x).exp(), total, rtol=1e-5, atol=1e-12)
    rows = rows_of(table_run, 60)
    assert rows["KL(target | run)"].value > 0.1  # after 30 steps
    assert 0.05 < rows["total variation"].value < 1
    assert rows["total variation"].protocol["labels"] == "mixture over 3"
    assert 0 < rows["KL(target | run)"].baselines["gaussian without labels"] < 3


def test_no_rows_without_a_density(digits_run: Run, exact_run: Run) -> None:
    assert target_rows(digits_run, digits_run.data(), digits_run.sample(4)) == []
    through = exact_run.sample(4, final="divide")
    assert target_rows(exact_run, exact_run.data(), through) == []


def test_latents_of_samples_and_of_data(digits_run: Run, table_run: Run) -> None:
    data = digits_run.data()
    gaussian = gaussian_latents(digits_run, data, 359, 0)
    at_n, limit = latent_rows(digits_run, digits_run.sample(359), data, gaussian, 0)
    assert (at_n.name, limit.name) == (
        "Frechet distance (latent)",
        "Frechet distance (latent), n → ∞",
    )
    assert at_n.group == "In the latent space" and at_n.unit == "latent units²" and at_n.n == 359
    # The Gaussian has the data's moments, so all that it is away from them is the floor.
    analytic = at_n.protocol["analytic floor at n"]
    assert at_n.floor == pytest.approx(float(analytic), rel=0.35)
    assert at_n.baselines["gaussian without labels"] == pytest.approx(at_n.floor, rel=0.5)
    assert at_n.value > 2 * at_n.floor  # after 20 steps
    assert limit.floor < 0.5 * at_n.floor
    # In the bare autoencoder's units: samples at the mean are as far as the data are wide.
    still = digits_run.sample(359)
    still.z = torch.zeros_like(still.z)
    width = 16 * float(digits_run.autoencoder.std.square().sum())
    found = latent_rows(digits_run, still, data, gaussian, 0)[0]
    assert found.value == pytest.approx(width, rel=0.15)
    assert latent_rows(table_run, table_run.sample(30), table_run.data(), gaussian, 0) == []


def test_an_evaluation_has_them_and_its_log_density_is_of_the_same_law(table_run: Run) -> None:
    table = evaluate_run(table_run, 40).table
    names = [row.name for row in table]
    assert names[-3:] == ["KL(target | run)", "KL(run | target)", "total variation"]
    assert "Frechet distance (latent)" not in names
