"""Checks that a file of weights fits a module, before the module takes any memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from monge.errors import UserError, reason

SPARE = 2**20
"""Numbers that a module may have besides those in its file: constants that it computes."""


def shapes_of(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a safetensors file; the tensors are not read.

    Raises:
        UserError: no such file, or a damaged file.
    """
    try:
        with safe_open(file, "pt") as archive:
            return {name: tuple(archive.get_slice(name).get_shape()) for name in archive.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {file}: {reason(error)}") from None


def require_fit(make: Callable[[], nn.Module], file: Path, settings: str) -> None:
    """Refuse settings whose module has other tensors than its file of weights.

    The module is built on the meta device, without memory, so a damaged number in the settings
    cannot exhaust the memory.

    Args:
        make: builds the module from the settings.
        settings: the name of the settings in an error.

    Raises:
        UserError: the module cannot be built, or does not fit the weights.
    """
    held = sum(torch.Size(shape).numel() for shape in shapes_of(file).values())
    try:
        with torch.device("meta"):
            module = make()
    except UserError:
        raise
    except NotImplementedError:  # an operation that the meta device lacks
        return
    except (RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError, IndexError) as error:
        raise UserError(f"{settings} cannot be built: {reason(error)}; put the file back") from None
    wanted = sum(t.numel() for t in module.state_dict().values())
    if wanted > held + SPARE:
        raise UserError(
            f"{settings} makes {wanted:,} numbers, but {file} holds {held:,}: they do not belong "
            "together; put the files back"
        )
