"""The two doors for Python users: `train` and `load`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa

from monge.components import read_value
from monge.data import sources, tables
from monge.errors import UserError, nearest
from monge.progress import quiet
from monge.runs.distil import OBJECTIVE
from monge.runs.distil import distil as distil_run
from monge.runs.run import Run
from monge.runs.spec import TrainSpec
from monge.runs.train import train as train_run


def train(
    data: Any = "digits",
    labels: Any = None,
    *,
    out: str | Path | None = None,
    verbose: bool = True,
    **settings: Any,
) -> Run:
    """Train a run, or continue the one in its folder, and return it.

    Args:
        data: a source as on the command line ("digits", "target:mixture:dim=2", "photos.npz"),
            an array or tensor of images (N, H, W), (N, H, W, C), (N, C, H, W) or of table rows
            (N, D), a table (pyarrow, or a DataFrame that Arrow can read), or a
            `torch.utils.data.Dataset` of tensors or (tensor, label) pairs.
        labels: (N,) for arrays.
        out: the run folder.
        settings: fields of `TrainSpec`: steps, minutes, network, path, lr, ...

    Raises:
        UserError: an unknown setting, with the nearest one, or data that is none.
    """
    known = [f.name for f in dataclasses.fields(TrainSpec) if f.name != "data"]
    for key in settings:
        if key not in known:
            raise UserError(f"train has no setting {key!r}: {nearest(key, known)}")
    hints = get_type_hints(TrainSpec)
    for key, value in settings.items():
        if isinstance(value, str):
            settings[key] = read_value(value, hints[key], key)
    if labels is not None and not hasattr(data, "__array__"):
        raise UserError("labels go with an array: a named source or a Dataset brings its own")
    if isinstance(data, (str, Path)):
        loaded = sources.load(str(data), TrainSpec(**settings))
    elif hasattr(data, "__arrow_c_stream__"):
        loaded = tables.from_table(pa.table(data), TrainSpec(**settings))
    elif hasattr(data, "__array__"):
        loaded = sources.from_arrays(data, labels)
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        loaded = sources.from_dataset(data)
    else:
        raise UserError(
            f"cannot read a {type(data).__name__} as data: give a name, array or Dataset"
        )
    # Arrays have no name to load them by; their content names the run instead.
    text = loaded.text or f"{loaded.name}-{loaded.fingerprint}"
    spec = TrainSpec(data=text, **settings)
    say = print if verbose else quiet
    return train_run(spec, loaded, None if out is None else Path(out), say=say)


def distil(
    run: Run | str | Path,
    objective: str = OBJECTIVE,
    *,
    out: str | Path | None = None,
    verbose: bool = True,
    **settings: Any,
) -> Run:
    """Distil a trained run into a flow map of few steps, or go on, and return it.

    Args:
        objective: lagrangian, eulerian, progressive, consistency, ... or reflow.
        settings: guidance ("2" or a range, "1..3"), and fields of `TrainSpec`: steps, minutes, lr,
            batch, pairs, ...; those of the teacher unless given.

    Raises:
        UserError: no trained run, or settings that do not fit.
    """
    folder = run.folder if isinstance(run, Run) else Path(run)
    say = print if verbose else quiet
    return distil_run(
        folder, None if out is None else Path(out), say=say, objective=objective, **settings
    )


def load(folder: str | Path, device: str = "auto") -> Run:
    """The run in a folder, or on the Hugging Face hub, ready to sample."""
    return Run.from_pretrained(folder, device)
