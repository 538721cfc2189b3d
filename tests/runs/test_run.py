"""A trained run: samples that depend on (seed, i) alone, loading, travelling, Python's doors."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import monge
from monge.errors import UserError
from monge.fitting.train import train
from monge.runs.run import Run
from monge.runs.spec import TrainSpec, to_yaml
from monge.sampling import model as model_module


def test_sample_i_depends_on_seed_and_i_alone(
    digits_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = digits_run.sample(300, label="4", seed=3)
    assert torch.equal(digits_run.sample(7, label="4", seed=3).x, many.x[:7]) or torch.allclose(
        digits_run.sample(7, label="4", seed=3).x, many.x[:7], atol=1e-5
    )
    monkeypatch.setattr(model_module, "CHUNK", 64)
    torch.testing.assert_close(digits_run.sample(300, label="4", seed=3).x, many.x)
    assert not torch.allclose(digits_run.sample(7, label="4", seed=4).x, many.x[:7])


def test_labels_by_name_index_several_and_frequency(digits_run: Run) -> None:
    label = digits_run.sample(4, label=["7", 2]).label
    assert label is not None and label.tolist() == [7, 7, 2, 2]
    drawn = digits_run.sample(2000, steps=1).label
    assert drawn is not None
    counts = torch.bincount(drawn, minlength=10)
    assert counts.min() > 130  # each class is about a tenth


def test_evaluations_are_counted_with_guidance_and_adaptive_steps(digits_run: Run) -> None:
    assert digits_run.sample(3, steps=5).info["evaluations_per_sample"] == 10
    guided = digits_run.sample(3, steps=5, guidance=2.0, solver="euler")
    assert guided.info["evaluations_per_sample"] == 10 and guided.info["guidance"] == 2
    assert digits_run.sample(3, solver="dopri5").info["evaluations_per_sample"] > 7


def test_stopping_early_ends_with_the_posterior_mean(digits_run: Run) -> None:
    early = digits_run.sample(3, grid="uniform:n=4,stop=0.9")
    assert early.info["final"] == "posterior_mean" and early.info["domain"] == [0.0, 0.9]
    raw = digits_run.sample(3, grid="uniform:n=4,stop=0.9", final="none")
    divided = digits_run.sample(3, grid="uniform:n=4,stop=0.9", final="divide")
    torch.testing.assert_close(divided.z, raw.z / 0.9)


def test_notebooks_show_images(digits_run: Run) -> None:
    assert Image.open(io.BytesIO(digits_run.sample(4)._repr_png_())).size[0] > 16
    assert "data:image/png;base64," in digits_run._repr_html_()


def test_save_pretrained_and_load_give_the_same_samples(digits_run: Run, tmp_path: Path) -> None:
    folder = digits_run.save_pretrained(tmp_path / "copy")
    again = monge.load(folder)
    assert torch.equal(again.sample(5, label="1").x, digits_run.sample(5, label="1").x)
    assert not (folder / "state").exists()
    with pytest.raises(UserError, match="is not empty"):
        digits_run.save_pretrained(folder)


def test_a_changed_autoencoder_is_refused(digits_run: Run, tmp_path: Path) -> None:
    folder = digits_run.save_pretrained(tmp_path / "copy")
    file = folder / "autoencoder" / "autoencoder.safetensors"
    tensors = load_file(file)
    name = next(k for k in tensors if k.endswith("decoder.leave.bias"))
    save_file({**tensors, name: tensors[name] + 0.1}, file)
    with pytest.raises(UserError, match=r"decoder has changed .* was .* is now"):
        monge.load(folder)


def test_files_of_a_newer_format_or_another_network_are_refused(
    digits_run: Run, tmp_path: Path
) -> None:
    folder = digits_run.save_pretrained(tmp_path / "copy")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("format_version: 2", "format_version: 99"))
    with pytest.raises(UserError, match="format version 99"):
        monge.load(folder)
    other = dataclasses.replace(digits_run.spec, network="transformer:width=64,depth=1,heads=2")
    (folder / "config.yaml").write_text(to_yaml(other))
    with pytest.raises(UserError, match="does not fit the network"):
        monge.load(folder)


def test_train_on_arrays_and_datasets(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    labels = np.array(["cat", "dog"])[rng.integers(0, 2, 60)]
    settings = {"autoencoder": "pca:dim=8", "network": "mlp:width=16,depth=1", "steps": 4}
    run = monge.train(images, labels, out=tmp_path / "a", batch=16, verbose=False, **settings)
    assert run.label_names == ["cat", "dog"]
    assert run.sample(3, label="dog").x.shape == (3, 3, 8, 8)
    with pytest.raises(UserError, match="arrays in memory"):
        run.data()

    class Rows(torch.utils.data.Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return 50

        def __getitem__(self, index: int) -> torch.Tensor:
            if index >= 50:
                raise IndexError
            return torch.full((3,), float(index))

    run = monge.train(
        Rows(), out=tmp_path / "b", batch=16, steps=4, network="mlp:width=8,depth=1", verbose=False
    )
    assert run.sample(2).x.shape == (2, 3)
    with pytest.raises(UserError, match="did you mean 'steps'"):
        monge.train("digits", stepz=3)


def test_the_exact_law_in_the_networks_seat(tmp_path: Path) -> None:
    spec = TrainSpec(data="target:gaussian:dim=3,seed=1", network="exact", grid="uniform:n=40")
    run = train(spec, out=tmp_path / "exact")
    target = run.data().target
    assert target is not None
    n = 2_000
    x = run.sample(n).x.double()
    scale = target.covariance.diagonal().sqrt()
    assert ((x.mean(0) - target.mean) / scale).abs().max() < 4 / n**0.5
    spread = float(scale.max()) ** 2
    torch.testing.assert_close(x.T.cov(), target.covariance, atol=4.5 * spread / n**0.5, rtol=0)


@pytest.mark.parametrize("output", ["velocity", "data", "noise", "score"])
@pytest.mark.parametrize("path", ["linear", "ou:horizon=3", "power:kappa=0.75"])
def test_every_output_trains_and_samples_under_every_kind_of_path(
    path: str, output: str, tmp_path: Path
) -> None:
    spec = TrainSpec(
        data="target:gaussian:dim=2",
        network="mlp:width=16,depth=1",
        path=path,
        output=output,  # type: ignore[arg-type]
        steps=5,
        batch=16,
    )
    run = train(spec, out=tmp_path / "run")
    assert run.sample(8).x.isfinite().all()


def test_log_density_is_of_data_where_the_autoencoder_is_affine(
    table_run: Run, digits_run: Run, tmp_path: Path
) -> None:
    """Standardised or not, it integrates to one: held against the exact law and a grid."""
    spec = TrainSpec(data="target:mixture:dim=2,modes=3,seed=0", network="exact")
    exact = train(spec, out=tmp_path / "exact")
    target = exact.data().target
    assert target is not None
    x = target.sample(300, torch.Generator().manual_seed(0)).float()
    found = exact.log_density(x, solver="rk4", steps=40)
    truth = target.at(exact.path).log_density(x.double(), 1.0).float()
    assert found.space == "data" and (found.value - truth).abs().max() < 2e-3

    side = torch.linspace(-8, 8, 65)
    grid = torch.cartesian_prod(side, side)
    mass = table_run.log_density(grid).value.exp().sum() * 0.25**2
    assert mass == pytest.approx(1.0, abs=0.02)
    assert digits_run.log_density(digits_run.data().heldout[:3], probes=2).space == "latent"
