"""Class-conditional transformers of the diffusers library, from a folder of `save_pretrained`.

`DiTTransformer2DModel` takes states, times up to 1000 and classes, and says the noise, as DiT
does, or a velocity where it was trained so, as SiT. The channels of a learned variance follow
those of the mean, and are dropped.

References:
    | DiT (Peebles & Xie, 2023), Sec. 3 -- https://arxiv.org/abs/2212.09748
    | SiT (Ma et al., 2024) -- https://arxiv.org/abs/2401.08740
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monge.autoencoders.from_diffusers import brief, model_class
from monge.autoencoders.pretrained import some
from monge.errors import UserError
from monge.paths import Kind
from monge.system.files import read_json

CLASS = "DiTTransformer2DModel"
"""The class that can be loaded."""

LEVELS = 1000
"""Noise levels of DDPM, from 0 to 999; the time of flow matching runs from 0 to 1000."""


class DiffusersTransformer(nn.Module):
    """A foreign callable ``f(x, t, label)``, see `verify.foreign`.

    Args:
        model: of the class `CLASS`, on states (B, C, S, S).
        output: what it was trained to say. For noise, t is `LEVELS` times the continuous time of
            DDPM's schedule: level k has the noise of the time (k + 1) / `LEVELS`.
    """

    def __init__(self, model: nn.Module, output: Kind) -> None:
        super().__init__()
        config: Any = model.config
        channels, said = config.in_channels, config.out_channels or config.in_channels
        if said not in (channels, 2 * channels):
            raise UserError(
                f"the transformer takes {channels} channels and says {said}: it should say as "
                "many, or twice as many where it learned the variance"
            )
        self.model: Any = model
        self.output = output
        self.shape = (channels, config.sample_size, config.sample_size)
        self.classes = config.num_embeds_ada_norm

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise UserError(
                f"the transformer takes states of shape {self.shape}, not {tuple(x.shape[1:])}: "
                "name the data, or the --autoencoder, that it was trained on"
            )
        if label is None:
            label = torch.full((len(x),), -1, device=x.device)
        if int(label.max()) >= self.classes:
            raise UserError(
                f"the transformer knows {self.classes} classes, but the data has the label "
                f"{int(label.max())}: name the data that it was trained on"
            )
        label = torch.where(label < 0, self.classes, label)  # the last row means no class
        if self.output == "noise":
            t = (t - 1).clamp(min=0)
        return self.model(x, t, label, return_dict=False)[0][:, : self.shape[0]]


def load_transformer(folder: str | Path, output: Kind) -> DiffusersTransformer:
    """The transformer in a folder, or in the ``transformer`` folder of a pipeline.

    Raises:
        UserError: no such folder, another class, or weights that do not fit.
    """
    folder = Path(folder).expanduser()
    homes = (folder, folder / "transformer")
    home = next((home for home in homes if (home / "config.json").is_file()), None)
    if home is None:
        raise UserError(
            f"{folder} holds no config.json nor transformer/config.json: it should be a folder "
            "that diffusers' save_pretrained has written"
        )
    config = read_json(home / "config.json")
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind != CLASS:
        what = f"is of the class {kind}" if kind else "names no class"
        raise UserError(f"{home / 'config.json'} {what}; monge verify loads {CLASS}")
    options = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    try:
        with torch.random.fork_rng(devices=[]):
            model, info = model_class(CLASS).from_pretrained(home, **options)
    except UserError:
        raise
    except Exception as error:  # diffusers raises of every kind for damaged files
        raise UserError(f"diffusers cannot load {CLASS} from {home}: {brief(error)}") from error
    for what, key in (("lack", "missing_keys"), ("hold the unexpected", "unexpected_keys")):
        if info[key]:
            names = some(sorted(info[key]))
            raise UserError(
                f"the weights in {home} do not fit their config.json: they {what} {names}"
            )
    return DiffusersTransformer(model.float().eval().requires_grad_(False), output)
