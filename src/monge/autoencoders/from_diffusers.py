r"""Pre-trained image autoencoders of the diffusers library, from a local folder or the hub.

A model's own scale and shift are kept, as pipelines apply them:

.. math:: z = (z_\text{raw} - \text{shift}) \cdot \text{scale},

so that its log-variances grow by 2 log scale. `AutoencoderKL` says a Gaussian of the latent;
`AutoencoderTiny` and `AutoencoderDC` say a point.

References:
    | Latent Diffusion (Rombach et al., 2022), Sec. 3.1 -- https://arxiv.org/abs/2112.10752
    | DC-AE (Chen et al., 2024) -- https://arxiv.org/abs/2410.10733
"""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monge.autoencoders.pretrained import PretrainedModule, PretrainedSpec, check_path, some
from monge.errors import UserError, missing_extra
from monge.system.files import read_json
from monge.system.hub_access import unreachable
from monge.types import Latent, Posterior, State

CLASSES = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")
"""The classes that can be loaded."""

PIXELS = 2**19
"""Most pixels that a model sees at once: its widest layer then takes about 256 MB."""


@dataclass(frozen=True, repr=False)
class DiffusersSpec(PretrainedSpec):
    """A pre-trained autoencoder of diffusers: AutoencoderKL, AutoencoderTiny or AutoencoderDC.

    Args:
        model: a folder that `save_pretrained` has written, of an autoencoder or of a pipeline
            with one in ``vae/``, or the name of such on the Hugging Face hub.
        subfolder: where in it the autoencoder is; by default at its top, else in ``vae``.
    """

    model: str
    subfolder: str | None = None

    name = "diffusers"
    positional = "model"

    def __post_init__(self) -> None:
        check_path(self, self.model)

    def read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        where, subfolder, file = self._find()
        config = read_json(file)
        kind = config.get("_class_name") if isinstance(config, dict) else None
        if kind not in CLASSES:
            what = f"is of the class {kind}" if kind else "names no class"
            raise UserError(f"{file} {what}; autoencoder diffusers loads {', '.join(CLASSES)}")
        cls = model_class(kind)
        options = {"subfolder": subfolder, "use_safetensors": True, "output_loading_info": True}
        try:
            with torch.random.fork_rng(devices=[]):
                model, info = cls.from_pretrained(where, **options)
        except Exception as error:  # diffusers raises of every kind for damaged files
            raise UserError(f"diffusers cannot load {kind} from {where}: {brief(error)}") from error
        for what, key in (("lack", "missing_keys"), ("hold the unexpected", "unexpected_keys")):
            if info[key]:
                names = some(sorted(info[key]))
                raise UserError(f"the weights beside {file} do not fit it: they {what} {names}")
        weights = {f"model.{key}": t for key, t in model.float().state_dict().items()}
        return architecture_of(kind, dict(model.config)), weights

    def assemble(
        self, data_shape: tuple[int, ...], architecture: dict[str, Any]
    ) -> DiffusersAutoencoder:
        return DiffusersAutoencoder(self, data_shape, make_model(architecture), architecture)

    def _find(self) -> tuple[str, str | None, Path]:
        """The folder or hub name, the subfolder in it, and the configuration file."""
        folder = Path(self.model).expanduser()
        options = (self.subfolder,) if self.subfolder else (None, "vae")
        if not folder.is_dir():
            return self.model, *find_on_hub(self.model, options)
        for option in options:
            file = folder / (option or "") / "config.json"
            if file.is_file():
                return str(folder), option, file
        names = " nor ".join(str(Path(option or "") / "config.json") for option in options)
        raise UserError(
            f"{folder} holds no {names}: it should be a folder that diffusers' save_pretrained has "
            "written. (A folder of monge's own is given without the word diffusers:.)"
        )


class DiffusersAutoencoder(PretrainedModule):
    """What `DiffusersSpec.build` returns; grey images pass through a colour model.

    A grey image is repeated over the channels at encoding, and channels are averaged at decoding.

    Args:
        model: one of `CLASSES`.
        architecture: with its "class" and "config".

    Raises:
        UserError: data of a shape that the model cannot take.
    """

    def __init__(
        self,
        spec: PretrainedSpec,
        data_shape: tuple[int, ...],
        model: nn.Module,
        architecture: dict[str, Any],
    ) -> None:
        config = architecture["config"]
        super().__init__(spec, data_shape, latent_shape(spec, data_shape, config), architecture)
        self.model: Any = model
        self.scale = float(config.get("scaling_factor") or 1.0)
        self.shift = float(config.get("shift_factor") or 0.0)
        self.colours = config["in_channels"]
        self.chunk = max(1, PIXELS // math.prod(data_shape[1:]))

    def encode(self, x: State) -> Posterior:
        parts = [self._encode(rows) for rows in x.split(self.chunk)]
        logvars = [p.logvar for p in parts if p.logvar is not None]
        mean = torch.cat([p.mean for p in parts])
        return Posterior(mean, torch.cat(logvars) if logvars else None)

    def decode(self, z: Latent) -> State:
        return torch.cat([self._decode(rows) for rows in z.split(self.chunk)])

    def _encode(self, x: State) -> Posterior:
        said = self.model.encode(x.expand(-1, self.colours, -1, -1))
        if hasattr(said, "latent_dist"):
            law = said.latent_dist
            logvar = law.logvar + 2 * math.log(self.scale)
            return Posterior((law.mean - self.shift) * self.scale, logvar)
        latent = said.latents if hasattr(said, "latents") else said.latent
        return Posterior((latent - self.shift) * self.scale)

    def _decode(self, z: Latent) -> State:
        x = self.model.decode(z / self.scale + self.shift).sample
        return x if x.shape[1] == self.data_shape[0] else x.mean(1, keepdim=True)


def latent_shape(
    spec: PretrainedSpec, data_shape: tuple[int, ...], config: dict[str, Any]
) -> tuple[int, ...]:
    """The shape of the latent of data of a shape.

    Raises:
        UserError: no images, other channels, or sides that are not multiples of the model's.
    """
    colours = config["in_channels"]
    if len(data_shape) != 3 or data_shape[0] not in (1, colours):
        raise UserError(
            f"autoencoder {spec.name} takes images of {colours} channels, or grey ones, not data "
            f"of shape {data_shape}"
        )
    stages = config.get("encoder_block_out_channels") or config["block_out_channels"]
    factor = 2 ** (len(stages) - 1)
    _, height, width = data_shape
    if height % factor or width % factor:
        fitting = max(1, round(min(height, width) / factor)) * factor
        raise UserError(
            f"autoencoder {spec.name}: this model takes images whose sides are multiples of "
            f"{factor}, not {height} x {width}: resize them, e.g. with --image-size {fitting}"
        )
    return (config["latent_channels"], height // factor, width // factor)


def architecture_of(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """What `make_model` makes a model of, as JSON: its class and the arguments of that."""
    known = inspect.signature(model_class(kind).__init__).parameters
    config = {key: value for key, value in config.items() if key in known}
    scale = config.get("scaling_factor")
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise UserError(f"{kind}: scaling_factor must be positive, not {scale}")
    if config.get("out_channels", config["in_channels"]) != config["in_channels"]:
        raise UserError(f"{kind}: it decodes to other channels than it encodes")
    return {"class": kind, "config": json.loads(json.dumps(config))}


def make_model(architecture: dict[str, Any]) -> Any:
    """A model of diffusers with initial weights.

    Raises:
        UserError: an architecture that is not one of `CLASSES`.
    """
    kind = architecture.get("class")
    if kind not in CLASSES:
        raise UserError(f"an autoencoder of the class {kind}: known are {', '.join(CLASSES)}")
    try:
        return model_class(kind)(**architecture["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"this diffusers cannot make that {kind}: {brief(error)}") from error


def model_class(kind: str) -> Any:
    """A class of diffusers, which is imported here, not before.

    Raises:
        UserError: diffusers is missing, too old for the class, or cannot be imported.
    """
    try:
        import diffusers

        return getattr(diffusers, kind)
    except ModuleNotFoundError as error:
        if error.name == "diffusers":
            raise missing_extra("diffusers", "autoencoders", "a pre-trained autoencoder") from None
        raise UserError(f"diffusers cannot be imported: {error}") from error
    except AttributeError:
        raise UserError(f"the installed diffusers has no {kind}: upgrade diffusers") from None
    except (ImportError, RuntimeError) as error:
        if "torchvision" not in str(error):
            raise UserError(f"diffusers cannot be imported: {brief(error)}") from error
        raise UserError(
            "diffusers cannot be imported because the installed torchvision does not fit torch: "
            "uninstall torchvision, which monge does not need, or install the one for this torch"
        ) from error


def find_on_hub(name: str, subfolders: tuple[str | None, ...]) -> tuple[str | None, Path]:
    """The subfolder of a hub model that has a configuration, and that file; cached ones first.

    Raises:
        UserError: no such model, or the hub cannot be reached and the cache has none.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    reason: Exception | str | None = None
    for cached in (True, False):
        if not cached and (reason := unreachable()):
            break
        for subfolder in subfolders:
            try:
                file = hf_hub_download(
                    name, "config.json", subfolder=subfolder, local_files_only=cached
                )
                return subfolder, Path(file)
            except LocalEntryNotFoundError as error:
                reason = error
                if not cached:
                    break  # no connection: asking for another file takes as long again
            except EntryNotFoundError as error:
                reason = error
            except Exception as error:  # of the hub's library: names, rights, connections
                reason = error
                break
    raise UserError(
        f"autoencoder diffusers: {name!r} is no folder here, and cannot be had from the Hugging "
        f"Face hub: {reason if isinstance(reason, str) else brief(reason)}"
    ) from None


def brief(error: Exception | None) -> str:
    """The first line of an error's message, or what kind it is."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
