"""A pre-trained variational autoencoder of two perceptrons, for small grey images.

The encoder is fc1, ReLU, then fc21 for the mean and fc22 for the log-variance; the decoder fc3,
ReLU, fc4, sigmoid. It works on flat images in [0, 1]; sizes are those of the tensors in the file.

References:
    | VAE (Kingma & Welling, 2014), App. C -- https://arxiv.org/abs/1312.6114
    | The names of the layers -- https://github.com/pytorch/examples/blob/main/vae/main.py
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge.autoencoders.pretrained import (
    PretrainedModule,
    PretrainedSpec,
    check_path,
    read_weights,
)
from monge.errors import UserError
from monge.types import Latent, Posterior, State

SIZES = ("pixels", "width", "latent")


@dataclass(frozen=True, repr=False)
class MLPVAESpec(PretrainedSpec):
    """A pre-trained perceptron VAE, for square grey images (1, S, S): 28 x 28 for MNIST's.

    Args:
        file: safetensors with the weight and bias of fc1, fc21, fc22, fc3 and fc4.
    """

    file: str

    name = "mlp_vae"
    positional = "file"

    def __post_init__(self) -> None:
        check_path(self, self.file)

    def read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        file = Path(self.file).expanduser()
        if not file.is_file():
            raise UserError(f"autoencoder mlp_vae: no such file: {file}")
        weights = read_weights(file)
        sizes = []
        for key, axis in (("fc1.weight", 1), ("fc1.weight", 0), ("fc21.weight", 0)):
            if key not in weights or weights[key].ndim != 2:
                raise UserError(f"{file} holds no perceptron VAE: it lacks the matrix {key}")
            sizes.append(weights[key].shape[axis])
        return dict(zip(SIZES, sizes, strict=True)), weights

    def assemble(self, data_shape: tuple[int, ...], architecture: dict[str, Any]) -> MLPVAE:
        if sorted(architecture) != sorted(SIZES):
            raise UserError(f"autoencoder {self} is damaged: it has the sizes {architecture}")
        side = math.isqrt(architecture["pixels"])
        if data_shape != (1, side, side):
            raise UserError(
                f"autoencoder mlp_vae: these weights take grey images (1, {side}, {side}), not "
                f"{data_shape}"
            )
        return MLPVAE(self, data_shape, architecture)


class MLPVAE(PretrainedModule):
    """What `MLPVAESpec.build` returns."""

    def __init__(
        self, spec: MLPVAESpec, data_shape: tuple[int, ...], architecture: dict[str, Any]
    ) -> None:
        pixels, width, latent = (architecture[name] for name in SIZES)
        super().__init__(spec, data_shape, (latent,), architecture)
        self.fc1 = nn.Linear(pixels, width)
        self.fc21 = nn.Linear(width, latent)
        self.fc22 = nn.Linear(width, latent)
        self.fc3 = nn.Linear(latent, width)
        self.fc4 = nn.Linear(width, pixels)

    def encode(self, x: State) -> Posterior:
        h = F.relu(self.fc1((x.flatten(1) + 1) / 2))
        return Posterior(self.fc21(h), self.fc22(h))

    def decode(self, z: Latent) -> State:
        pixels = torch.sigmoid(self.fc4(F.relu(self.fc3(z))))
        return (2 * pixels - 1).unflatten(1, self.data_shape)
