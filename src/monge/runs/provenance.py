"""The provenance card in every file of measurements: how to repeat a measured number.

A row of a table has its estimator's settings and seeds. The card has the rest: versions, the
sources and the hash of their content, the run's weights and settings of sampling, the feature
network's file, and the command that gives the same numbers to the bit on the same machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from monge.data.images.store import file_digest
from monge.data.reading import Reading
from monge.runs.folder import monge_version
from monge.runs.run import Run

VERSION = 1


def card(words: Sequence[str] | None, **facts: Any) -> dict[str, Any]:
    """The card of a file of measurements.

    Args:
        words: the command that repeats it, without the number of threads; None for arrays in
            memory, which no command can name.
        facts: of the measurement.
    """
    threads = torch.get_num_threads()
    command = None if words is None else shlex.join([*words, "--threads", str(threads)])
    return {
        "format_version": VERSION,
        "command": command,
        "monge": monge_version(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": threads,
        **facts,
    }


def of_run(run: Run) -> dict[str, Any]:
    """Facts on which a run's samples depend, besides the settings of sampling."""
    files = {
        "weights": f"{run.weights}.safetensors",
        "autoencoder": "autoencoder/autoencoder.safetensors",
    }
    found = {
        what: {"file": name, "sha256": file_digest(run.folder / name)}
        for what, name in files.items()
        if (run.folder / name).exists()
    }
    return {"run": str(run.folder.absolute()), "settings": run.spec.digest(), **found}


def of_examples(x: torch.Tensor) -> str:
    """The first 16 hexadecimal digits of a hash of examples."""
    digest = hashlib.sha256(f"{tuple(x.shape)} {x.dtype}".encode())
    digest.update(x.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings that are not None as words of a command line."""
    words: list[str] = []
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            words += [flag, str(value)]
    return words


def reading_flags(reading: Reading) -> list[str]:
    """Settings of reading that are not defaults, as words of a command line."""
    changed = {
        f.name: getattr(reading, f.name)
        for f in dataclasses.fields(Reading)
        if getattr(reading, f.name) != f.default
    }
    return flags(changed)


def source_word(text: str) -> str:
    """A source's text that is valid in any working directory."""
    for side in ("", "train:", "heldout:"):
        path = Path(text.removeprefix(side))
        if text.startswith(side) and path.exists():
            return f"{side}{path.absolute()}"
    return text


def network_word(text: str) -> str:
    """A feature network's text with absolute paths, valid in any working directory."""
    parts = text.split(":")
    return ":".join(source_word(part) if Path(part).suffix else part for part in parts)
