"""Tiny autoencoders from raw files: against the network written out, on real weights and not."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import tiny_models
from monge.autoencoders import load, reconstruct, save, standardise
from monge.components import build
from monge.errors import UserError
from monge.tensors import stream

pytest.importorskip("diffusers")


def images(*shape: int) -> Tensor:
    return torch.tanh(torch.randn(*shape, generator=stream(0, "images")))


# The network, written out from its files: an independent reading of the same numbers


def block(t: dict[str, Tensor], k: int, x: Tensor) -> Tensor:
    if f"{k}.pool.0.weight" in t:
        pool = F.conv2d(x, t[f"{k}.pool.0.weight"])
        pool = F.group_norm(pool, 4, t[f"{k}.pool.1.weight"], t[f"{k}.pool.1.bias"]).relu()
        x = x + F.conv2d(pool, t[f"{k}.pool.3.weight"])
    h = x
    for j in (0, 2, 4):
        h = F.conv2d(h.relu() if j else h, t[f"{k}.conv.{j}.weight"], t[f"{k}.conv.{j}.bias"], 1, 1)
    return (h + x).relu()


def written_out(t: dict[str, Tensor], x: Tensor, decoder: bool) -> Tensor:
    """The encoder on pixels in [0, 1], or the decoder, layer by layer."""
    t = {key: tensor.float() for key, tensor in t.items()}
    if decoder:
        x = 3 * torch.tanh(x / 3)
    for k in range(max(int(key.split(".")[0]) for key in t) + 1):
        if f"{k}.conv.0.weight" in t:
            x = block(t, k, x)
        elif f"{k}.weight" in t:
            between = f"{k}.bias" not in t
            x = F.interpolate(x, scale_factor=2) if between and decoder else x
            stride = 2 if between and not decoder else 1
            x = F.conv2d(x, t[f"{k}.weight"], t.get(f"{k}.bias"), stride, 1)
            x = x.relu() if decoder and k == 1 else x
    return x


@torch.no_grad()
def check_against_written_out(folder: Path, model: str, shape: tuple[int, ...]) -> None:
    autoencoder = build("autoencoder", f"taesd:{folder},model={model}").build(shape)
    encoder, decoder = (
        load_file(folder / f"{model}_{part}.safetensors") for part in ("encoder", "decoder")
    )
    x = images(2, *shape)
    posterior = autoencoder.encode(x)
    z = written_out(encoder, (x + 1) / 2, decoder=False)
    assert posterior.logvar is None
    assert posterior.mean.shape[1:] == autoencoder.latent_shape
    torch.testing.assert_close(posterior.mean, z, rtol=1e-4, atol=1e-4)
    expected = 2 * written_out(decoder, z, decoder=True) - 1
    torch.testing.assert_close(autoencoder.decode(z), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "plain"])
def test_tiny_files_give_the_network_written_out(tmp_path, pooled):
    tiny_models.save_taesd(tmp_path, tiny_models.taesd_tensors(pooled, latent=4))
    check_against_written_out(tmp_path, "tiny", (3, 4, 8))


def test_real_files_give_the_network_written_out(shared_data):
    check_against_written_out(shared_data / "weights", "taef2", (3, 16, 24))


# Real weights on real images


def clamped_psnr(folder: Path, x: Tensor) -> float:
    """PSNR in dB of the mean squared error over all images, decoded pixels clamped to [-1, 1]."""
    autoencoder = build("autoencoder", f"taesd:{folder}").build(tuple(x.shape[1:]))
    error = (reconstruct(autoencoder, x).clamp(-1, 1) - x).square().mean()
    return float(10 * torch.log10(4 / error))


def test_real_weights_reconstruct_a_photograph(shared_data):
    """32.6 dB on scikit-learn's flower, its sides cut to multiples of 8."""
    from sklearn.datasets import load_sample_image

    pixels = torch.from_numpy(load_sample_image("flower.jpg")[:424].copy())
    x = pixels.permute(2, 0, 1)[None].float() / 127.5 - 1
    assert clamped_psnr(shared_data / "weights", x) == pytest.approx(32.55, abs=0.05)


def test_real_weights_reconstruct_small_images(shared_data):
    """23.6 dB on the first 256 test images of CIFAR-10 (JPEG Q75): far below its own size."""
    from PIL import Image
    from pyarrow import parquet

    file = shared_data / "cifar10" / "test-00000-of-00001.parquet"
    rows = parquet.read_table(file, columns=["img"]).slice(0, 256).to_pylist()
    pixels = [np.asarray(Image.open(io.BytesIO(row["img"]["bytes"]))) for row in rows]
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert clamped_psnr(shared_data / "weights", x) == pytest.approx(23.63, abs=0.05)


# Files


@pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "plain"])
@torch.no_grad()
def test_a_saved_one_needs_no_files(tmp_path, pooled):
    source = tiny_models.save_taesd(tmp_path / "source", tiny_models.taesd_tensors(pooled))
    x = images(6, 1, 4, 8)
    wrapped = standardise(build("autoencoder", f"taesd:{source}").build((1, 4, 8)), x)
    save(wrapped, tmp_path / "run")
    shutil.rmtree(source)
    back = load(tmp_path / "run").train()
    assert torch.equal(reconstruct(back, x), reconstruct(wrapped, x))
    assert not any(p.requires_grad for p in back.parameters())
    assert not any(module.training for module in back.autoencoder.modules())


def test_one_of_several_models_is_chosen(tmp_path):
    for model, latent in (("taesd", 4), ("taesdxl", 6)):
        tiny_models.save_taesd(tmp_path, tiny_models.taesd_tensors(latent=latent), model)
    for model, latent in (("taesd", 4), ("taesdxl", 6)):
        spec = build("autoencoder", f"taesd:{tmp_path},model={model}")
        assert spec.build((3, 4, 4)).latent_shape == (latent, 2, 2)
    with pytest.raises(UserError, match=r"taesd_encoder.*, taesdxl_encoder.*: choose, as in"):
        build("autoencoder", f"taesd:{tmp_path}").build((3, 4, 4))
    with pytest.raises(UserError, match=r"needs one taef2_encoder.safetensors in .*; there is no"):
        build("autoencoder", f"taesd:{tmp_path},model=taef2").build((3, 4, 4))


@pytest.mark.parametrize(
    ("part", "key"),
    [
        (part, key)
        for part, tensors in tiny_models.taesd_tensors().items()
        for key in tensors
        if ".conv.2." not in key and ".conv.4." not in key
    ],
)
def test_each_missing_tensor_is_refused(tmp_path, part, key):
    """It is named, except where a pool without it looks like another network."""
    tensors = tiny_models.taesd_tensors()
    del tensors[part][key]
    tiny_models.save_taesd(tmp_path, tensors)
    named = "unexpected .*pool" if key.endswith("pool.0.weight") else rf"{part}'s {key}"
    with pytest.raises(UserError, match=named):
        build("autoencoder", f"taesd:{tmp_path}").build((3, 4, 4))


@pytest.mark.parametrize(
    ("part", "extra", "message"),
    [
        ("encoder", {"3.skip.weight": torch.zeros(8, 8, 1, 1)}, "unexpected encoder's 3.skip.w"),
        ("decoder", {"0.weight": torch.zeros(8)}, "unexpected decoder's 0.weight"),
        ("decoder", {"6.bias": torch.zeros(8)}, "unexpected decoder's 6.bias"),
        ("encoder", {"layers.0.weight": torch.zeros(8)}, "unexpected layers.0.weight"),
        ("encoder", {"1.conv.0.bias": torch.zeros(9)}, r"encoder's 1.conv.0.bias \(9,\), not"),
        ("decoder", {"3.pool.0.weight": torch.zeros(6, 8, 1, 1)}, "no pool fits"),
    ],
)
def test_unexpected_tensors_are_refused(tmp_path, part, extra, message):
    tensors = tiny_models.taesd_tensors()
    tensors[part] |= extra
    tiny_models.save_taesd(tmp_path, tensors)
    with pytest.raises(UserError, match=message):
        build("autoencoder", f"taesd:{tmp_path}").build((3, 4, 4))


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no such folder: .*nowhere"):
        build("autoencoder", f"taesd:{tmp_path}/nowhere").build((3, 4, 4))
    with pytest.raises(UserError, match=r"needs one \*encoder.safetensors in .*; there is none"):
        build("autoencoder", f"taesd:{tmp_path}").build((3, 4, 4))
    tiny_models.save_taesd(tmp_path)
    with pytest.raises(UserError, match=r"multiples of 2, not 4 x 5"):
        build("autoencoder", f"taesd:{tmp_path}").build((3, 4, 5))
    file = tmp_path / "tiny_decoder.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match=r"cannot read .*tiny_decoder"):
        build("autoencoder", f"taesd:{tmp_path}").build((3, 4, 4))
