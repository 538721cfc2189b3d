"""Tiny pre-trained models with random weights, in the files that monge reads."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from monge.tensors import stream

KL = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
    "latent_channels": 3,
    "sample_size": 8,
    "scaling_factor": 0.7,
    "shift_factor": 0.3,
}
TINY = {
    "encoder_block_out_channels": (8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8),
    "num_encoder_blocks": (1, 1, 2),
    "num_decoder_blocks": (2, 1, 1),
    "latent_channels": 5,
    "scaling_factor": 1.6,
    "shift_factor": -0.2,
}
DC = {
    "encoder_block_out_channels": (8, 16),
    "decoder_block_out_channels": (8, 16),
    "encoder_layers_per_block": (1, 1),
    "decoder_layers_per_block": (1, 1),
    "encoder_qkv_multiscales": ((), ()),
    "decoder_qkv_multiscales": ((), ()),
    "latent_channels": 4,
    "scaling_factor": 0.4,
}
DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 1,
    "out_channels": 2,
    "num_layers": 1,
    "sample_size": 8,
    "num_embeds_ada_norm": 10,
}
CONFIGS = {"AutoencoderKL": KL, "AutoencoderTiny": TINY, "AutoencoderDC": DC}
"""The autoencoders."""


def save_diffusers(folder: Path, kind: str, **changes: Any) -> Path:
    """A random model of diffusers, saved in its own way into a folder."""
    import diffusers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        getattr(diffusers, kind)(**{**CONFIGS.get(kind, DIT), **changes}).save_pretrained(folder)
    return folder


def taesd_tensors(pooled: bool = True, latent: int = 5, width: int = 8) -> dict[str, Any]:
    """The encoder's and the decoder's tensors of a tiny autoencoder with 2 stages of 1, 2 blocks.

    The encoder is conv, block, down, block, block, conv; the decoder clamp, conv, relu, block,
    block, up, conv, block, conv. The block deepest in each has a pool.
    """
    rng = stream(0, "taesd")

    def kernel(outputs: int, inputs: int, side: int = 3) -> Tensor:
        bound = (inputs * side * side) ** -0.5
        return bound * torch.randn(outputs, inputs, side, side, generator=rng)

    def conv(k: int, outputs: int, inputs: int) -> dict[str, Tensor]:
        return {
            f"{k}.weight": kernel(outputs, inputs),
            f"{k}.bias": kernel(outputs, 1, 1).flatten(),
        }

    def block(k: int, pool: bool = False) -> dict[str, Tensor]:
        tensors = {}
        for j in (0, 2, 4):
            tensors |= conv(k, width, width)
            tensors[f"{k}.conv.{j}.weight"] = tensors.pop(f"{k}.weight")
            tensors[f"{k}.conv.{j}.bias"] = tensors.pop(f"{k}.bias")
        if pool and pooled:
            tensors[f"{k}.pool.0.weight"] = kernel(4 * width, width, 1)
            tensors[f"{k}.pool.1.weight"] = 1 + kernel(4 * width, 1, 1).flatten() / 4
            tensors[f"{k}.pool.1.bias"] = kernel(4 * width, 1, 1).flatten() / 4
            tensors[f"{k}.pool.3.weight"] = kernel(width, 4 * width, 1)
        return tensors

    encoder = {
        **conv(0, width, 3), **block(1), "2.weight": kernel(width, width),
        **block(3), **block(4, pool=True), **conv(5, latent, width),
    }  # fmt: skip
    decoder = {
        **conv(1, width, latent), **block(3, pool=True), **block(4),
        "6.weight": kernel(width, width), **block(7), **conv(8, 3, width),
    }  # fmt: skip
    return {"encoder": encoder, "decoder": decoder}


def save_taesd(folder: Path, tensors: dict[str, Any] | None = None, model: str = "tiny") -> Path:
    """The two files of a tiny autoencoder."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, found in (tensors or taesd_tensors()).items():
        save_file(found, folder / f"{model}_{part}.safetensors")
    return folder


def save_mlp_vae(file: Path, pixels: int = 784, width: int = 10, latent: int = 4) -> Path:
    """A random perceptron VAE."""
    rng = stream(0, "mlp_vae")
    sizes = {
        "fc1": (width, pixels), "fc21": (latent, width), "fc22": (latent, width),
        "fc3": (width, latent), "fc4": (pixels, width),
    }  # fmt: skip
    tensors = {}
    for name, (outputs, inputs) in sizes.items():
        tensors[f"{name}.weight"] = torch.randn(outputs, inputs, generator=rng) / inputs**0.5
        tensors[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=rng)
    save_file(tensors, file)
    return file


@functools.cache
def texts() -> dict[str, list[str]]:
    """Components that need files, by name, with files that last as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    known = {"mlp_vae": [f"mlp_vae:{save_mlp_vae(folder / 'vae.safetensors')}"]}
    if find_spec("diffusers"):
        known["diffusers"] = [
            f"diffusers:{save_diffusers(folder / kind, kind)}" for kind in CONFIGS
        ]
        known["taesd"] = [
            f"taesd:{save_taesd(folder / 'pooled')}",
            f"taesd:{save_taesd(folder / 'plain', taesd_tensors(pooled=False, latent=4))}",
        ]
    return known
