"""Whether a file of weights fits a module, before the module takes any memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from monge.errors import UserError, reason

SPARE = 2**20
"""Numbers that a module may have beyond those in its file: constants that it makes itself."""


def shapes_of(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a safetensors file, without reading them.

    Raises:
        UserError: no such file, or a damaged one.
    """
    try:
        with safe_open(file, "pt") as archive:
            return {name: tuple(archive.get_slice(name).get_shape()) for name in archive.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {file}: {reason(error)}") from None


def require_fit(make: Callable[[], nn.Module], file: Path, settings: str) -> None:
    """Refuse settings that make a module of other tensors than its file of weights holds.

    It is made on no device first, where any size costs nothing, so that a damaged number in the
    settings cannot fill the memory.

    Args:
        make: builds the module from the settings.
        settings: what to call them in an error.

    Raises:
        UserError: the settings cannot be built, or not with these weights.
    """
    held = sum(torch.Size(shape).numel() for shape in shapes_of(file).values())
    try:
        with torch.device("meta"):
            module = make()
    except UserError:
        raise
    except NotImplementedError:  # an operation that has no meaning without numbers
        return
    except (RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError, IndexError) as error:
        raise UserError(f"{settings} cannot be built: {reason(error)}; put the file back") from None
    wanted = sum(t.numel() for t in module.state_dict().values())
    if wanted > held + SPARE:
        raise UserError(
            f"{settings} makes {wanted:,} numbers, but {file} holds {held:,}: they do not belong "
            "together; put the files back"
        )
