"""What pre-trained autoencoders share: weights that come from files, and are never trained.

Once saved with a run, such an autoencoder is rebuilt from its recorded architecture, so the run
needs neither the files it came from nor a network.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from monge.autoencoders.base import AutoencoderModule, AutoencoderSpec
from monge.errors import UserError


class PretrainedModule(AutoencoderModule):
    """Base of autoencoders whose weights are given; always in evaluation mode.

    Args:
        spec: the component that built it.
        data_shape, latent_shape: of one example, of one latent.
        architecture: what rebuilds it without the files it came from, as JSON.
    """

    def __init__(
        self,
        spec: PretrainedSpec,
        data_shape: tuple[int, ...],
        latent_shape: tuple[int, ...],
        architecture: dict[str, Any],
    ) -> None:
        super().__init__(spec, data_shape, latent_shape)
        self._architecture = architecture

    @property
    def architecture(self) -> dict[str, Any]:
        return self._architecture

    def train(self, mode: bool = True) -> PretrainedModule:
        return super().train(False)


class PretrainedSpec(AutoencoderSpec, abc.ABC):
    """Base of the settings that say where weights are."""

    @abc.abstractmethod
    def read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The architecture, as JSON, and the weights, by the names that the module gives them.

        Raises:
            UserError: files that are missing, damaged, or of another kind.
        """

    @abc.abstractmethod
    def assemble(
        self, data_shape: tuple[int, ...], architecture: dict[str, Any]
    ) -> PretrainedModule:
        """The autoencoder of an architecture for data of a shape, with weights of any kind.

        Raises:
            UserError: a shape that the architecture does not take.
        """

    def origin(self, key: str) -> str:
        """What the files call a tensor of the module's state."""
        return key

    @final
    def build(
        self,
        data_shape: tuple[int, ...],
        latent_shape: tuple[int, ...] | None = None,
        rng: torch.Generator | None = None,
    ) -> PretrainedModule:
        architecture, weights = self.read()
        autoencoder = self.rebuild(data_shape, latent_shape or (), architecture)
        self._check(autoencoder, weights)
        autoencoder.load_state_dict(weights)
        return autoencoder

    def _check(self, autoencoder: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Refuses weights that are not exactly the module's, by their names in the files."""
        expected = {key: tuple(t.shape) for key, t in autoencoder.state_dict().items()}
        found = {key: tuple(t.shape) for key, t in weights.items()}
        problems = {
            "lacks": [self.origin(k) for k in expected if k not in found],
            "has the unexpected": [self.origin(k) for k in found if k not in expected],
            "has other shapes than this model:": [
                f"{self.origin(k)} {found[k]}, not {shape}"
                for k, shape in expected.items()
                if found.get(k, shape) != shape
            ],
        }
        told = [f"{what} {some(names)}" for what, names in problems.items() if names]
        if told:
            raise UserError(f"the file of autoencoder {self} {'; it '.join(told)}")

    @final
    def rebuild(
        self,
        data_shape: tuple[int, ...],
        latent_shape: tuple[int, ...],
        architecture: dict[str, Any] | None,
    ) -> PretrainedModule:
        if architecture is None:
            raise UserError(f"autoencoder {self} is damaged: its architecture is not recorded")
        # The initial weights are replaced: drawing them should leave no trace.
        with torch.random.fork_rng(devices=[]):
            autoencoder = self.assemble(data_shape, architecture)
        return autoencoder.requires_grad_(False).eval()


def check_path(spec: PretrainedSpec, path: str) -> None:
    """Refuses a path that the text of a component cannot hold."""
    if not path:
        raise UserError(f"autoencoder {spec.name} needs a {spec.positional}")
    if "," in path:
        raise UserError(
            f"autoencoder {spec.name}: a comma ends a setting, so {path!r} cannot be written as "
            "one: rename the folder, or link to it"
        )


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, floating-point ones in float32.

    Raises:
        UserError: a missing or damaged file.
    """
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {file}: {error}") from None
    return {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}


def some(names: list[str], most: int = 4) -> str:
    """The first few of a list of names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
