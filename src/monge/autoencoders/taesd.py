"""Tiny pre-trained image autoencoders, from the files of the TAESD project.

The files hold two stacks of layers, numbered. Diffusers' `AutoencoderTiny` is the same network
under other names, but for the "pool" branch that some blocks of newer models have:
x + pool(x) takes the place of x, with pool = conv 1x1, GroupNorm(4), ReLU, conv 1x1.
Everything that varies between models, widths, stages and pools, is read off the tensors.

References:
    | TAESD, TAEF2 (Bohan) -- https://github.com/madebyollin/taesd
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from monge.autoencoders.from_diffusers import (
    DiffusersAutoencoder,
    architecture_of,
    make_model,
)
from monge.autoencoders.pretrained import PretrainedSpec, check_path, read_weights, some
from monge.errors import UserError

SHIFTS = {"encoder": 0, "decoder": 1}
"""How far the numbers of the layers are ahead of diffusers': the decoder's clamp is layer 0."""

GROUPS = 4
"""Of the normalisation in a pool, which the tensors do not tell."""


@dataclass(frozen=True, repr=False)
class TaesdSpec(PretrainedSpec):
    """A tiny autoencoder from its two files: ``*encoder.safetensors``, ``*decoder.safetensors``.

    Args:
        folder: where the two files are.
        model: what their names begin with, as in ``taef2``, where the folder holds several.
    """

    folder: str
    model: str = ""

    name = "taesd"
    positional = "folder"

    def __post_init__(self) -> None:
        check_path(self, self.folder)

    def read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        sides = {part: self._read_side(part) for part in SHIFTS}
        weights = {
            f"model.{part}.layers.{number - SHIFTS[part]}.{rest}": tensor
            for part, tensors in sides.items()
            for (number, rest), tensor in tensors.items()
        }
        return self._architecture(sides), weights

    def assemble(
        self, data_shape: tuple[int, ...], architecture: dict[str, Any]
    ) -> DiffusersAutoencoder:
        model = make_model(architecture)
        for name, hidden in architecture.get("pools", {}).items():
            try:
                block = PooledBlock(model.get_submodule(name), hidden)
            except (AttributeError, TypeError, ValueError) as error:
                raise UserError(f"autoencoder {self}: no pool fits {name}: {error}") from error
            model.set_submodule(name, block)
        return DiffusersAutoencoder(self, data_shape, model, architecture)

    def origin(self, key: str) -> str:
        match = re.fullmatch(r"model\.(encoder|decoder)\.layers\.(-?\d+)\.(.+)", key)
        assert match is not None  # the model has layers, and nothing else has weights
        part, number, rest = match.groups()
        return f"{part}'s {int(number) + SHIFTS[part]}.{rest}"

    def _read_side(self, part: str) -> dict[tuple[int, str], Tensor]:
        """The tensors of one file by (number of the layer, rest of the name)."""
        folder = Path(self.folder).expanduser()
        if not folder.is_dir():
            raise UserError(f"autoencoder taesd: no such folder: {folder}")
        pattern = f"{self.model}_{part}" if self.model else f"*{part}"
        files = sorted(f for f in folder.glob("*.safetensors") if fnmatchcase(f.stem, pattern))
        if len(files) != 1:
            every = some([file.name for file in files]) or "none"
            raise UserError(
                f"autoencoder taesd needs one {pattern}.safetensors in {folder}; there is {every}"
                + (": choose, as in taesd:FOLDER,model=taef2" if files else "")
            )
        tensors = {}
        for key, tensor in read_weights(files[0]).items():
            number, _, rest = key.partition(".")
            if not number.isdecimal() or not rest:
                raise UserError(f"{files[0]} is no {part} of TAESD's: it has the unexpected {key}")
            tensors[int(number), rest] = tensor
        if not tensors:
            raise UserError(f"{files[0]} is empty")
        return tensors

    def _architecture(self, sides: dict[str, dict[tuple[int, str], Tensor]]) -> dict[str, Any]:
        """The network whose tensors these are, where they are whole."""
        encoder, decoder = sides["encoder"], sides["decoder"]
        last = max(number for number, _ in encoder)
        enter, leave = self._size(encoder, "encoder", 0), self._size(encoder, "encoder", last)
        start = self._size(decoder, "decoder", 1)
        down, up = stages(encoder), stages(decoder)
        if not down or len(down) != len(up):
            raise UserError(
                f"autoencoder {self}: the encoder has {len(down)} stages, the decoder {len(up)}"
            )
        config = {
            "in_channels": enter[1],
            "out_channels": enter[1],
            "latent_channels": leave[0],
            "encoder_block_out_channels": [enter[0]] * len(down),
            "decoder_block_out_channels": [start[0]] * len(up),
            "num_encoder_blocks": down,
            "num_decoder_blocks": up,
        }
        pools = {
            f"{part}.layers.{number - SHIFTS[part]}": tensor.shape[0]
            for part, tensors in sides.items()
            for (number, rest), tensor in sorted(tensors.items(), key=lambda item: item[0])
            if rest == "pool.0.weight"
        }
        return {**architecture_of("AutoencoderTiny", config), "pools": pools}

    def _size(
        self, tensors: dict[tuple[int, str], Tensor], part: str, number: int
    ) -> tuple[int, ...]:
        """The shape of the kernel of a convolution between stages."""
        kernel = tensors.get((number, "weight"))
        if kernel is None or kernel.ndim != 4:
            raise UserError(f"the file of autoencoder {self} lacks {part}'s {number}.weight")
        return tuple(kernel.shape)


def stages(tensors: dict[tuple[int, str], Tensor]) -> list[int]:
    """How many blocks follow each other, between the layers that change the resolution."""
    blocks = sorted({number for number, rest in tensors if rest.startswith("conv.")})
    runs: list[int] = []
    for number in blocks:
        if runs and number - 1 in blocks:
            runs[-1] += 1
        else:
            runs.append(1)
    return runs


class PooledBlock(nn.Module):
    """A block of `AutoencoderTiny` with a pool before it.

    Args:
        block: diffusers' own.
        hidden: channels inside the pool, a multiple of 4.
    """

    def __init__(self, block: nn.Module, hidden: int) -> None:
        super().__init__()
        self.conv: nn.Module = block.conv  # type: ignore[assignment]
        self.skip: nn.Module = block.skip  # type: ignore[assignment]
        self.fuse: nn.Module = block.fuse  # type: ignore[assignment]
        width = block.conv[0].in_channels  # type: ignore[index,union-attr]
        self.pool = nn.Sequential(
            nn.Conv2d(width, hidden, 1, bias=False),
            nn.GroupNorm(GROUPS, hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, width, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pool(x)
        return self.fuse(self.conv(x) + self.skip(x))
