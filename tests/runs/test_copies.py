"""A memoriser is found through every kind of autoencoder, and honest samples are not accused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import tiny_models
from torch import Tensor

from monge.data.base import Data
from monge.evaluation.copies import where_copies_are
from monge.fitting.train import train
from monge.metrics.copies import copies_in_words, copies_row
from monge.metrics.table import Row
from monge.runs.run import Run
from monge.runs.spec import TrainSpec
from monge.sampling.samples import Samples
from monge.tensors import stream

N_TRAIN, N_HELDOUT, N = 250, 200, 300


def blobs(n: int, channels: int, side: int, key: str) -> Tensor:
    """Images (n, C, S, S) of three bright spots at random places, of random size and colour."""
    rng = stream(0, "blobs", key)
    x = torch.linspace(0, 1, side)
    image = torch.zeros(n, channels, side, side)
    for _ in range(3):
        centre, width = torch.rand(2, n, 1, generator=rng), torch.rand(n, 1, generator=rng)
        colour = torch.rand(n, channels, 1, 1, generator=rng)
        rows, columns = (
            torch.exp(-0.5 * ((x - c) / (0.08 + 0.15 * width)).square()) for c in centre
        )
        image = image + colour * rows[:, None, :, None] * columns[:, None, None, :]
    return 2 * image.clamp(max=1) - 1


def images(channels: int, side: int) -> Data:
    train, heldout = blobs(N_TRAIN, channels, side, "train"), blobs(N_HELDOUT, channels, side, "h")
    return Data("blobs", None, "image", train, heldout)


def numbers() -> Data:
    rng = stream(0, "table")
    mixing = torch.randn(4, 6, generator=rng)
    x = torch.randn(N_TRAIN + N_HELDOUT, 4, generator=rng) @ mixing
    x = x + 0.3 * torch.randn(x.shape, generator=rng)
    return Data("numbers", None, "table", x[:N_TRAIN], x[N_TRAIN:])


def kinds(tmp: Path) -> dict[str, tuple[str, Data]]:
    """Each kind of autoencoder with data that it takes."""
    file = tiny_models.save_mlp_vae(tmp / "vae.safetensors")
    weights = load_file(file)
    weights["fc22.bias"] = weights["fc22.bias"] - 10  # a narrow posterior
    save_file(weights, file)
    return {
        "none": ("identity", images(1, 8)),
        "pca": ("pca:dim=24", images(1, 16)),
        "pca of a table": ("pca:dim=4", numbers()),
        "table": ("identity", numbers()),
        "conv": ("conv:down=2,channels=4,width=16,blocks=1", images(1, 16)),
        "mlp_vae": (f"mlp_vae:{file}", images(1, 28)),
        "taesd": (f"taesd:{tiny_models.save_taesd(tmp / 'taesd')}", images(3, 16)),
        "diffusers": (f"diffusers:{tiny_models.save_diffusers(tmp / 'dc', 'AutoencoderDC')}",
                      images(3, 16)),
    }  # fmt: skip


def run_of(tmp: Path, autoencoder: str, data: Data, **more: object) -> Run:
    spec = TrainSpec(
        data="made",
        autoencoder=autoencoder,
        autoencoder_steps=100,
        network="mlp:width=8,depth=1",
        steps=1,
        batch=16,
        **{"flip": "no" if data.kind == "image" else "auto", **more},  # type: ignore[arg-type]
    )
    return train(spec, data, tmp / "run")


def drawn(run: Run, x: Tensor, key: str) -> Tensor:
    if not len(x):
        return torch.zeros(0, *run.autoencoder.latent_shape)
    posterior = run.autoencoder.encode(x)
    noise = torch.randn(posterior.mean.shape, generator=stream(1, "posterior", key))
    return posterior.sample(noise).detach()


def memoriser(run: Run, data: Data, part: float, noise: float, key: str = "") -> Samples:
    """N samples of a run: a part are training latents, moved by so much of the way to the next.

    The rest are latents of fresh examples of the law.
    """
    rng = stream(2, "memoriser", key)
    rows = torch.randint(0, N_TRAIN, (round(part * N),), generator=rng)
    z = drawn(run, data.train[rows], "copies" + key)
    means = run.autoencoder.encode(data.train[:]).mean.detach().flatten(1)
    reach = torch.cdist(means[rows], means).topk(2, largest=False).values[:, 1]
    step = torch.randn(z.flatten(1).shape, generator=rng) / math.sqrt(means.shape[1])
    z = z + (noise * reach[:, None] * step).reshape(z.shape)
    z = torch.cat([z, drawn(run, fresh(data, N - len(rows), key), "fresh" + key)])
    x = run.autoencoder.decode(z).detach()
    return Samples(x.clamp(-1, 1) if data.kind == "image" else x, z, None, run)


def fresh(data: Data, n: int, key: str) -> Tensor:
    if data.kind == "image":
        channels, side = data.shape[:2]
        return blobs(n, channels, side, "fresh" + key)
    mixing = torch.randn(4, 6, generator=stream(0, "table"))
    rng = stream(3, "fresh", key)
    return torch.randn(n, 4, generator=rng) @ mixing + 0.3 * torch.randn(n, 6, generator=rng)


def looked_for(run: Run, data: Data, samples: Samples) -> list[Row]:
    scale = torch.ones(()) if data.kind == "image" else data.train[:].std(0)
    found = where_copies_are(run, samples, data, scale, 0)
    return [copies_row(found.scaled(scale), {}), *found.latent_rows(samples.z)]


@pytest.fixture(scope="module", params=["none", "pca", "pca of a table", "table", "conv",
                                        "mlp_vae", "taesd", "diffusers"])  # fmt: skip
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Data]:
    tmp = tmp_path_factory.mktemp("copies")
    autoencoder, data = kinds(tmp)[request.param]
    return run_of(tmp, autoencoder, data), data


@pytest.mark.parametrize(
    ("part", "noise"), [(0.1, 0.0), (0.1, 0.1), (0.5, 0.0), (0.5, 0.3), (1.0, 0.1)]
)
def test_a_memoriser_is_estimated_within_its_interval(
    trained: tuple[Run, Data], part: float, noise: float
) -> None:
    rows = looked_for(*trained, memoriser(*trained, part, noise))
    able = [row for row in rows if not math.isnan(row.value)]
    assert able
    for row in able:
        assert row.interval[0] <= part <= row.interval[1], row.name
    assert min(row.interval[1] - row.interval[0] for row in able) < 0.35
    if min(float(row.protocol["detectable share"]) for row in able) < part / 2:
        assert any(row.p_value < 0.05 for row in able)  # type: ignore[operator]
        assert "are copies of a training example" in copies_in_words(rows)
    else:
        assert part == 0.1


@pytest.mark.parametrize("autoencoder", ["identity", "pca:dim=24"])
@pytest.mark.parametrize("flip", ["yes", "no"])
def test_mirrored_copies_count_where_mirror_images_were_trained_on(
    autoencoder: str, flip: str, tmp_path: Path
) -> None:
    data = images(1, 16)
    run = run_of(tmp_path, autoencoder, data, flip=flip)
    honest = memoriser(run, data, 0.0, 0.0)
    z = torch.cat([drawn(run, data.train[:90].flip(-1), "mirrored"), honest.z[90:]])
    x = run.autoencoder.decode(z).detach().clamp(-1, 1)
    for row in looked_for(run, data, replace(honest, x=x, z=z)):
        assert row.interval[0] <= (0.3 if flip == "yes" else 0.0) <= row.interval[1]
        assert row.protocol["mirror images"] == flip


def test_a_posterior_wider_than_the_gaps_between_examples_is_refused(tmp_path: Path) -> None:
    file = tiny_models.save_mlp_vae(tmp_path / "vae.safetensors")
    weights = load_file(file)
    weights["fc22.bias"] = weights["fc22.bias"] - 6  # a deviation of 0.05
    save_file(weights, file)
    data = images(1, 28)
    run = run_of(tmp_path, f"mlp_vae:{file}", data)
    rows = looked_for(run, data, memoriser(run, data, 0.5, 0.0))
    assert all(math.isnan(row.value) and row.interval == (0.0, 1.0) for row in rows)
    assert "cannot be told" in copies_in_words(rows)


def test_honest_samples_are_not_accused(trained: tuple[Run, Data]) -> None:
    accused = 0
    for k in range(3):
        rows = looked_for(*trained, memoriser(*trained, 0.0, 0.0, str(k)))
        for row in rows:
            assert math.isnan(row.value) or row.interval[0] == 0 or row.value < 0.1
        accused += "are copies of a training example;" in copies_in_words(rows)
    assert accused <= 1  # P(more) = 0.007 at 5 %
