"""The doors for Python users: read, train, distil, load, evaluate and verify."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Unpack, get_args, get_type_hints

import pyarrow as pa

from monge.components import FAMILIES, Component, read_value, text_of
from monge.data import array_data, naming, sources
from monge.data.base import Data
from monge.data.reading import Reading
from monge.data.tables import tables
from monge.errors import UserError, nearest
from monge.evaluation.evaluate import evaluate_generator, evaluate_run
from monge.fitting.distil import OBJECTIVE
from monge.fitting.distil import distil as distil_run
from monge.fitting.train import train as train_run
from monge.metrics.evaluate import Evaluation
from monge.options import DistilOptions, ReadingOptions, SamplingOptions, TrainOptions
from monge.runs.folder import read_config
from monge.runs.run import Run
from monge.runs.spec import TrainSpec
from monge.sampling.generator import Generator
from monge.system.progress import quiet
from monge.verification.verify import verify_generator, verify_run


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
        settings: fields of `TrainSpec`: steps, minutes, network, path, lr, ...; components as
            texts, "power:kappa=0.75", or as values, ``Power(0.75)``.

    Raises:
        UserError: an unknown setting, with the nearest one, a value that it does not take, or data
            that is none.
    """
    _check_names("train", settings, but=("data",))
    values = _values(settings)
    loaded = _read(data, labels, TrainSpec(**values))
    # Arrays have no name to load them by; their content names the run instead.
    text = loaded.text or f"{loaded.name}-{loaded.fingerprint}"
    spec = TrainSpec(data=text, **values)
    say = print if verbose else quiet
    return train_run(spec, loaded, None if out is None else Path(out), say=say)


def read(data: Any, labels: Any = None, **settings: Unpack[ReadingOptions]) -> Data:
    """Data as training reads them, with their training and held-out parts.

    Args:
        data, labels: as for `train`.
        settings: fields of `Reading`: image_size, target, label, limit, ...

    Raises:
        UserError: an unknown setting, with the nearest one, or data that is none.
    """
    known = [f.name for f in dataclasses.fields(Reading)]
    for key in settings:
        if key not in known:
            raise UserError(f"read has no setting {key!r}: {nearest(key, known)}")
    return _read(data, labels, Reading(**_values(settings, Reading)))


def _read(data: Any, labels: Any, reading: Reading) -> Data:
    if isinstance(data, Data):
        return data
    if isinstance(data, Component):
        data = f"target:{text_of('target', data)}"
    if labels is not None and not hasattr(data, "__array__"):
        raise UserError("labels go with an array: a named source or a Dataset brings its own")
    if isinstance(data, (str, Path)):
        return sources.load(str(data), reading)
    if hasattr(data, "__arrow_c_stream__"):
        return tables.from_table(pa.table(data), reading)
    if hasattr(data, "__array__"):
        return array_data.from_arrays(data, labels)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return array_data.from_dataset(data)
    raise UserError(f"cannot read a {type(data).__name__} as data: give a name, array or Dataset")


def distil(
    run: Run | str | Path,
    objective: str | Component = OBJECTIVE,
    *,
    out: str | Path | None = None,
    data: Any = None,
    verbose: bool = True,
    **settings: Unpack[DistilOptions],
) -> Run:
    """Distil a trained run into a flow map of few steps, or go on, and return it.

    Args:
        objective: lagrangian, eulerian, progressive, consistency, ... or reflow.
        data: what the run was trained on, where that were arrays in memory, as for `read`.
        settings: guidance ("2" or a range, "1..3"), and fields of `TrainSpec`: steps, minutes, lr,
            batch, pairs, ...; those of the teacher unless given.

    Raises:
        UserError: no trained run, an unknown setting, or settings that do not fit.
    """
    _check_names("distil", settings, but=("objective",))
    folder = run.folder if isinstance(run, Run) else Path(run)
    say = print if verbose else quiet
    scale = settings.pop("guidance", None)
    given = {k: v for k, v in settings.items() if v is not None}  # None is the teacher's
    return distil_run(
        folder,
        None if out is None else Path(out),
        data=None if data is None else _read(data, None, read_config(folder)),
        say=say,
        objective=text_of("objective", objective),
        guidance=None if scale is None else str(scale),
        **_values(given),
    )


def load(folder: str | Path, device: str = "auto", trust_code: bool = False) -> Run:
    """The run in a folder, or on the Hugging Face hub, ready to sample.

    Args:
        trust_code: execute the components of its author's own that it keeps in ``code/``, if any.

    Raises:
        UserError: no trained run there, or one with code of its own that is not trusted.
    """
    return Run.from_pretrained(folder, device, trust_code)


def evaluate(
    run: Generator | str | Path,
    n: int = 1000,
    *,
    data: Any = None,
    seed: int = 0,
    features: str | None = None,
    target: str | None = None,
    device: str = "auto",
    **sampling: Unpack[SamplingOptions],
) -> Evaluation:
    """Measure n samples against held-out data; the report of a run is renewed.

    Args:
        run: a run, its folder, its name on the Hugging Face hub, or a generator.
        data: what to compare with, as for `read`; None for the data that a run was trained on.
        features: a feature network to measure in, too, as `monge evaluate --features` takes it.
        target: the column of a table that models learn to predict from samples.
        device: where a run that is given by its folder computes.
        sampling: steps, solver, grid, guidance, final; the run's own unless given.

    Raises:
        UserError: no trained run, too few samples, or settings that do not fit the run.
    """
    run = _loaded(run, device)
    found = _data_for(run, data)
    given = {"features": features, "target": target}
    if isinstance(run, Run):
        return evaluate_run(run, n, seed=seed, data=found, **given, **sampling)
    assert found is not None
    return evaluate_generator(run, found, n, seed=seed, **given, **sampling)


def verify(
    run: Generator | str | Path,
    n: int | None = None,
    *,
    data: Any = None,
    quick: bool = False,
    seed: int = 0,
    device: str = "auto",
    verbose: bool = True,
    **sampling: Unpack[SamplingOptions],
) -> dict[str, Any]:
    """Say where the Wasserstein-2 error of samples comes from; the report of a run is renewed.

    Args:
        run: a run, its folder, its name on the Hugging Face hub, or a generator.
        data: what to compare with, as for `read`; None for the data that a run was trained on.
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
    run = _loaded(run, device)
    found = _data_for(run, data)
    if isinstance(run, Run):
        return verify_run(run, n, quick=quick, seed=seed, data=found, say=say, **sampling)
    assert found is not None
    return verify_generator(run, found, n, quick=quick, seed=seed, say=say, **sampling)


def _loaded(run: Generator | str | Path, device: str) -> Generator:
    return run if isinstance(run, Generator) else load(run, device)


def _data_for(run: Generator, data: Any) -> Data | None:
    """The data to compare with, of the kind and shape that the run draws."""
    if data is None:
        if not isinstance(run, Run):
            raise UserError("a generator knows no data: give what to compare with as data=")
        return None
    found = _read(data, None, run.reading)
    if (found.kind, tuple(found.shape)) != (run.facts.kind, tuple(run.facts.shape)):
        raise UserError(
            f"the data hold a {found.kind} of shape {tuple(found.shape)} an example, but samples "
            f"are of kind {run.facts.kind}, shape {tuple(run.facts.shape)}"
        )
    return found


def _values(settings: Mapping[str, Any], known: type = TrainSpec) -> dict[str, Any]:
    """Settings as fields of a specification: components as texts, lists of names as one text.

    Raises:
        UserError: a value that the setting does not take.
    """
    hints = get_type_hints(known)
    return {key: _value(key, value, hints[key]) for key, value in settings.items()}


def _value(key: str, value: Any, hint: Any) -> Any:
    if value is None and type(None) in get_args(hint):
        return None
    if key in FAMILIES:
        return text_of(key, value)
    if str in (hint, *get_args(hint)) and isinstance(value, (list, tuple)):
        return naming.joined(map(str, value))
    if value is None or (not isinstance(value, (str, Path)) and hint in (str, str | None)):
        raise UserError(
            f"{key} takes {'a text' if value is not None else 'a value'}, not {value!r}"
        )
    return read_value(str(value), hint, key)


def _check_names(verb: str, settings: Iterable[str], but: tuple[str, ...]) -> None:
    """Refuse a setting that is no field of `TrainSpec`, naming the nearest one."""
    known = [f.name for f in dataclasses.fields(TrainSpec) if f.name not in but]
    for key in settings:
        if key not in known:
            raise UserError(f"{verb} has no setting {key!r}: {nearest(key, known)}")
