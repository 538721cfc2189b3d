"""Generators without a folder: they do what a run of the same parts does, and need nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import monge
from monge.autoencoders import standardise
from monge.autoencoders.pca import PCASpec
from monge.components import build
from monge.errors import UserError
from monge.fitting.train import train
from monge.learned import LearnedVelocity
from monge.networks.exact import ExactNetwork
from monge.paths import Linear
from monge.runs.run import Run
from monge.runs.spec import TrainSpec
from monge.sampling.generator import Generator

LAW = "target:gaussian:dim=3"


class Small(nn.Module):
    """A network of nobody's: net(x, t, cond), which moves each coordinate about one too far."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        last = nn.Linear(32, dim)
        nn.init.ones_(last.bias)
        self.layers = nn.Sequential(nn.Linear(dim + 1, 32), nn.SiLU(), last)

    def forward(self, x: Tensor, t: Tensor | float, cond: object = None) -> Tensor:
        time = torch.as_tensor(t, dtype=x.dtype).expand(len(x))[:, None]
        return self.layers(torch.cat([x.flatten(1), time], 1)).reshape(x.shape)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    spec = TrainSpec(data="digits", autoencoder="pca:dim=8", network="mlp:width=32,depth=1",
                     steps=5, batch=32, device="cpu", grid="uniform:n=4")  # fmt: skip
    return train(spec, out=tmp_path_factory.mktemp("generator") / "run")


def test_it_draws_what_a_run_of_its_parts_draws(run: Run) -> None:
    own = Generator(run.autoencoder, run.learned, facts=run.facts)
    for asked in ({}, {"label": "3"}, {"solver": "euler", "steps": 3, "guidance": 2.0}):
        ours, theirs = own.sample(5, seed=2, **asked), run.sample(5, seed=2, **asked)
        assert torch.equal(ours.x, theirs.x) and ours.info == theirs.info
    noise = own.encode(run.data().heldout[:3])
    assert torch.equal(noise.z, run.encode(run.data().heldout[:3]).z)
    assert torch.equal(own.decode(noise).x, run.decode(noise).x)


def test_it_is_measured_and_decomposed_as_a_run_is(run: Run) -> None:
    own, data = Generator(run.autoencoder, run.learned, run.data()), run.data()
    ours, theirs = monge.evaluate(own, 100, data=data), monge.evaluate(run, 100)
    ours, theirs = ours.to_json(own.label_names), theirs.to_json(run.label_names)
    assert theirs.pop("next") and not ours.pop("next")  # commands take a run's folder
    assert ours == theirs
    settings = {"quick": True, "verbose": False}
    ours, theirs = (monge.verify(g, 60, data=data, **settings) for g in (own, run))
    for what in ("lower_bounds", "plug_in", "units"):
        assert ours[what] == theirs[what]
    for a, b in zip(ours["terms"], theirs["terms"], strict=True):
        assert (a["name"], a["value"], a["stderr"]) == (b["name"], b["value"], b["stderr"])


def test_a_network_of_nobodys_needs_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = monge.read("digits")
    pca = PCASpec(dim=8).build(data.shape)
    pca.fit(data.train)
    generator = monge.Generator(standardise(pca, data.train[:]), LearnedVelocity(Small(8)), data)
    samples = generator.sample(4, label="all")
    assert tuple(samples.x.shape) == (4, *data.shape)
    found = monge.evaluate(generator, 60, data=data)
    worst = found.table["Frechet distance (latent)"]
    assert worst.value > 4 > 3 * worst.floor  # eight coordinates, one off: about 8
    report = monge.verify(generator, 60, data=data, quick=True, verbose=False)
    assert report["sum"]["value"] > 0 and report["advice"]["text"]
    assert not list(tmp_path.iterdir())
    samples.save(tmp_path / "out")
    assert (tmp_path / "out" / "grid.png").exists()


def test_an_exact_field_has_no_velocity_error() -> None:
    target = build("target", "gaussian:dim=3").build()
    data = monge.read(LAW)
    identity = build("autoencoder", "identity").build(data.shape)
    exact = LearnedVelocity(ExactNetwork(target, Linear(), "velocity"), grid="uniform:n=40")
    generator = Generator(identity, exact, data)
    report = monge.verify(generator, 200, data=data, quick=True, verbose=False)
    terms = {term["name"]: term["value"] for term in report["terms"]}
    assert report["truth_known"] and terms["velocity"] < 1e-5 < terms["discretisation"] < 0.05
    assert terms["reconstruction"] == 0


@pytest.mark.parametrize("verb", ["evaluate", "verify"])
def test_data_that_do_not_fit_are_refused(run: Run, verb: str) -> None:
    own = Generator(run.autoencoder, run.learned, facts=run.facts)
    with pytest.raises(UserError, match="a generator knows no data"):
        getattr(monge, verb)(own)
    with pytest.raises(UserError, match=r"the data hold a table of shape \(3,\) an example"):
        getattr(monge, verb)(own, data=LAW)
