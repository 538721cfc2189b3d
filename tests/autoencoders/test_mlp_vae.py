"""The perceptron VAE: its formula, its real weights on MNIST, and files that are not one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_models
from monge.autoencoders import load, reconstruct, save
from monge.components import build
from monge.errors import UserError
from monge.tensors import stream


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tiny_models.save_mlp_vae(tmp_path / "vae.safetensors")


def images(n: int = 5) -> torch.Tensor:
    return torch.tanh(torch.randn(n, 1, 28, 28, generator=stream(0, "images")))


def test_it_is_the_printed_formula_on_unit_range(file):
    t = {key: tensor.double().numpy() for key, tensor in load_file(file).items()}
    x = images()
    pixels = (x.double().numpy().reshape(5, 784) + 1) / 2
    h = np.maximum(pixels @ t["fc1.weight"].T + t["fc1.bias"], 0)
    mean = h @ t["fc21.weight"].T + t["fc21.bias"]
    logvar = h @ t["fc22.weight"].T + t["fc22.bias"]
    h = np.maximum(mean @ t["fc3.weight"].T + t["fc3.bias"], 0)
    decoded = 2 / (1 + np.exp(-(h @ t["fc4.weight"].T + t["fc4.bias"]))) - 1
    autoencoder = build("autoencoder", f"mlp_vae:{file}").build((1, 28, 28))
    posterior = autoencoder.encode(x)
    assert autoencoder.latent_shape == (4,)
    np.testing.assert_allclose(posterior.mean, mean, atol=1e-5)
    np.testing.assert_allclose(posterior.logvar, logvar, atol=1e-5)
    found = autoencoder.decode(posterior.mean)
    np.testing.assert_allclose(found.flatten(1), decoded, atol=1e-5)


def test_real_weights_reconstruct_mnist(shared_data):
    """20.6 dB over the test set, with the latent mean."""
    with np.load(shared_data / "mnist.npz") as arrays:
        x = torch.from_numpy(arrays["x_test"][:, None]).float() / 127.5 - 1
    file = shared_data / "weights" / "vae_mnist.safetensors"
    autoencoder = build("autoencoder", f"mlp_vae:{file}").build((1, 28, 28))
    assert autoencoder.latent_shape == (20,)
    error = (reconstruct(autoencoder, x) - x).square().mean()
    assert float(10 * torch.log10(4 / error)) == pytest.approx(20.62, abs=0.05)


def test_a_saved_one_needs_no_file(file, tmp_path):
    autoencoder = build("autoencoder", f"mlp_vae:{file}").build((1, 28, 28))
    save(autoencoder, tmp_path / "run")
    file.unlink()
    back = load(tmp_path / "run").train()
    assert torch.equal(reconstruct(back, images()), reconstruct(autoencoder, images()))
    assert not any(p.requires_grad for p in back.parameters()) and not back.training


def test_sizes_are_those_of_the_file(tmp_path):
    file = tiny_models.save_mlp_vae(tmp_path / "a.safetensors", pixels=16, width=6, latent=2)
    autoencoder = build("autoencoder", f"mlp_vae:{file}").build((1, 4, 4))
    assert autoencoder.latent_shape == (2,)
    assert reconstruct(autoencoder, images()[:, :, :4, :4]).shape == (5, 1, 4, 4)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 28, 28), (784,), (1, 14, 56)])
def test_other_data_are_refused(file, shape):
    with pytest.raises(UserError, match=r"take grey images \(1, 28, 28\), not \("):
        build("autoencoder", f"mlp_vae:{file}").build(shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("fc4.bias"), "lacks fc4.bias"),
        (lambda t: t.pop("fc1.weight"), "lacks the matrix fc1.weight"),
        (lambda t: t.update({"fc5.bias": torch.zeros(2)}), "has the unexpected fc5.bias"),
        (lambda t: t.update({"fc3.bias": torch.zeros(2)}), r"fc3.bias \(2,\), not \(10,\)"),
    ],
)
def test_files_of_something_else_are_refused(file, change, message):
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(UserError, match=message):
        build("autoencoder", f"mlp_vae:{file}").build((1, 28, 28))


def test_missing_and_damaged_files_are_named(file, tmp_path):
    with pytest.raises(UserError, match=r"no such file: .*nowhere"):
        build("autoencoder", f"mlp_vae:{tmp_path}/nowhere").build((1, 28, 28))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"cannot read .*vae.safetensors"):
        build("autoencoder", f"mlp_vae:{file}").build((1, 28, 28))
