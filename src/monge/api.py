"""The doors for Python users: train, distil, load, evaluate and verify."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Unpack, get_type_hints

import pyarrow as pa

from monge.components import read_value
from monge.data import sources, tables
from monge.errors import UserError, nearest
from monge.metrics.evaluate import Evaluation
from monge.options import DistilOptions, SamplingOptions, TrainOptions
from monge.progress import quiet
from monge.runs.distil import OBJECTIVE
from monge.runs.distil import distil as distil_run
from monge.runs.evaluate import evaluate_run
from monge.runs.run import Run
from monge.runs.spec import TrainSpec
from monge.runs.train import train as train_run
from monge.runs.verify import verify_run


def train(
    data: Any = "digits",
    labels: Any = None,
    *,
    out: str | Path | None = None,
    verbose: bool = True,
    **settings: Unpack[TrainOptions],
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
    _check_names("train", settings, but=("data",))
    hints = get_type_hints(TrainSpec)
    values: dict[str, Any] = {
        key: read_value(value, hints[key], key) if isinstance(value, str) else value
        for key, value in settings.items()
    }
    if labels is not None and not hasattr(data, "__array__"):
        raise UserError("labels go with an array: a named source or a Dataset brings its own")
    if isinstance(data, (str, Path)):
        loaded = sources.load(str(data), TrainSpec(**values))
    elif hasattr(data, "__arrow_c_stream__"):
        loaded = tables.from_table(pa.table(data), TrainSpec(**values))
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
    spec = TrainSpec(data=text, **values)
    say = print if verbose else quiet
    return train_run(spec, loaded, None if out is None else Path(out), say=say)


def distil(
    run: Run | str | Path,
    objective: str = OBJECTIVE,
    *,
    out: str | Path | None = None,
    verbose: bool = True,
    **settings: Unpack[DistilOptions],
) -> Run:
    """Distil a trained run into a flow map of few steps, or go on, and return it.

    Args:
        objective: lagrangian, eulerian, progressive, consistency, ... or reflow.
        settings: guidance ("2" or a range, "1..3"), and fields of `TrainSpec`: steps, minutes, lr,
            batch, pairs, ...; those of the teacher unless given.

    Raises:
        UserError: no trained run, an unknown setting, or settings that do not fit.
    """
    _check_names("distil", settings, but=("objective",))
    folder = run.folder if isinstance(run, Run) else Path(run)
    say = print if verbose else quiet
    return distil_run(
        folder, None if out is None else Path(out), say=say, objective=objective, **settings
    )


def load(folder: str | Path, device: str = "auto") -> Run:
    """The run in a folder, or on the Hugging Face hub, ready to sample."""
    return Run.from_pretrained(folder, device)


def evaluate(
    run: Run | str | Path,
    n: int = 1000,
    *,
    seed: int = 0,
    features: str | None = None,
    device: str = "auto",
    **sampling: Unpack[SamplingOptions],
) -> Evaluation:
    """Measure n samples of a run against held-out data, and renew its report.

    Args:
        run: a run, its folder, or its name on the Hugging Face hub.
        features: a feature network to measure in, too, as `monge evaluate --features` takes it.
        device: where a run that is given by its folder computes.
        sampling: steps, solver, grid, guidance, final; the run's own unless given.

    Raises:
        UserError: no trained run, too few samples, or settings that do not fit the run.
    """
    return evaluate_run(_loaded(run, device), n, seed=seed, features=features, **sampling)


def verify(
    run: Run | str | Path,
    n: int | None = None,
    *,
    quick: bool = False,
    seed: int = 0,
    device: str = "auto",
    verbose: bool = True,
    **sampling: Unpack[SamplingOptions],
) -> dict[str, Any]:
    """Say where the Wasserstein-2 error of a run comes from, and renew its report.

    Args:
        run: a run, its folder, or its name on the Hugging Face hub.
        n: samples; None for 2,000, or 400 with `quick`.
        quick: fewer of everything, for a first look.
        device: where a run that is given by its folder computes.
        sampling: steps, solver, grid, guidance, final; the run's own unless given.

    Returns:
        What ``monge verify --json`` prints.

    Raises:
        UserError: no trained run, too few samples, or settings that do not fit the run.
    """
    say = print if verbose else quiet
    return verify_run(_loaded(run, device), n, quick=quick, seed=seed, say=say, **sampling)


def _loaded(run: Run | str | Path, device: str) -> Run:
    return run if isinstance(run, Run) else load(run, device)


def _check_names(verb: str, settings: Iterable[str], but: tuple[str, ...]) -> None:
    """Refuse a setting that is no field of `TrainSpec`, naming the nearest one."""
    known = [f.name for f in dataclasses.fields(TrainSpec) if f.name not in but]
    for key in settings:
        if key not in known:
            raise UserError(f"{verb} has no setting {key!r}: {nearest(key, known)}")
