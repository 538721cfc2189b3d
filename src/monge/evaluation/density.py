"""log-density of held-out rows under a run, beside a Gaussian's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from monge.data.base import Data
from monge.evaluation.rounding import over_cells
from monge.flows.density import EXACT
from monge.sampling.model import GenerativeModel
from monge.tensors import stream

MOST_ROWS = 1000
PROBES = 8
"""Random signs of Hutchinson's estimator for a row, above `EXACT` dimensions."""

MEAN_PROBES = 4
"""The same for a mean over rows, whose error over rows holds that of the traces."""

POINTS = 8
"""Of each cell of rounded columns."""

MOST_CELLS = 250
"""Rows whose cells the run's density is integrated over."""

FIRST_CELLS, FIRST_POINTS = 64, 2
"""Rows and points that tell whether that matters. One point in each half of a cell finds 7/8 of a
small correction."""

SMALL = 0.1
"""Of the error over rows: a correction of at most this is left as the first rows have it."""


def heldout_density(
    run: GenerativeModel, data: Data, seed: int = 0, n: int = MOST_ROWS, **flow: Any
) -> dict[str, Any]:
    """Mean log-density of held-out rows in nats, in the data's own units, given their conditions.

    Args:
        n: the most rows, drawn at random.
        flow: steps, solver, grid, guidance; the run's own unless given.

    Returns:
        ``value`` and ``stderr`` over rows; ``gaussian``, the same of a Gaussian fitted to the
        training rows (its mean linear in the conditions), None where its covariance is
        singular; ``gaussian_is``, which Gaussian in words; ``gain``, the mean difference with its
        error; ``rounding``, by how much integrating over the cells of rounded columns has raised
        the value, None without such columns; ``n``, ``units``, ``protocol``.
        Or ``refused``, the reason why there is no density.
    """
    if reason := run.without_density(flow.get("solver")):
        return {"refused": reason}
    rows = torch.randperm(len(data.heldout), generator=stream(seed, "density"))[:n]
    probes = None if math.prod(data.shape) <= EXACT else MEAN_PROBES
    label = None if data.heldout_label is None else data.heldout_label[rows]
    vector = None if data.heldout_vector is None else data.heldout_vector[rows]
    x = data.heldout[rows]
    found = run.log_density(x, label, vector, probes=probes, seed=seed, **flow)
    if found.space != "data":
        return {"refused": "the autoencoder is no affine bijection: latents have other densities"}
    value = found.value.double()
    gaussian = gaussian_log_density(data, x, label, vector)
    sampling = run.describe_sampling(run.flow(**flow))
    protocol: dict[str, Any] = {
        "trace": "exact" if probes is None else f"Hutchinson, {probes} probes",
        **{k: sampling[k] for k in ("solver", "grid", "guidance", "domain")},
        "seed": seed,
        "given": [k for k, c in (("label", label), ("conditions", vector)) if c is not None],
    }
    protocol |= {} if probes is None else {"trace_stderr": _rms(found.stderr)}
    spread = [] if run.codec is None else [c.name for c in run.codec.columns if c.spread]
    rounding, mean = None, _mean(value)
    if run.codec is not None and spread:
        protocol["dequantised"] = f"uniform noise of one step in {', '.join(spread)}"
        asked = {"probes": probes, "seed": seed, **flow}
        rounding, points, cells = _rounding(run, x, label, vector, mean["stderr"], asked)
        protocol["rounding"] = f"integrated over the cells, {points} points in each of {cells}"
        mean = _sum(mean, rounding)
        if gaussian is not None:
            gaussian = _gaussian_over_cells(run, data, x, label, vector)
    gain = None if gaussian is None else _mean(value - gaussian)
    gain = gain if gain is None or rounding is None else _sum(gain, rounding)
    return {
        **mean,
        "gaussian": None if gaussian is None else _mean(gaussian),
        "gaussian_is": which_gaussian(label is not None, vector is not None),
        "gain": gain,
        "rounding": rounding,
        "n": len(rows),
        "units": "nats",
        "protocol": protocol,
    }


def _rms(stderr: Tensor) -> float | str:
    """The root mean square of the rows' errors; where all probes of a row agree none is known."""
    known = stderr.double()[stderr.isfinite()]
    return float(known.square().mean().sqrt()) if len(known) else "unknown"


def _mean(values: Float64[Tensor, "n"]) -> dict[str, float]:
    deviation = float(values.std()) if len(values) > 1 else math.nan
    return {"value": float(values.mean()), "stderr": deviation / math.sqrt(len(values))}


def _rounding(
    run: GenerativeModel,
    x: Tensor,
    label: Tensor | None,
    vector: Tensor | None,
    stderr: float,
    asked: Mapping[str, Any],
) -> tuple[dict[str, float], int, int]:
    """By how much integrating over cells raises the run's log-density at random points of them.

    Args:
        stderr: of the mean log-density over rows. A correction far below it is not refined, and
            no more cells are taken than make a third of it.

    Returns:
        The correction with its standard error; points in each cell, and cells.
    """
    assert run.codec is not None
    codec = run.codec

    def over(points: int, cells: int) -> Tensor:
        given = [None if c is None else c[:cells] for c in (label, vector)]

        def of_run(z: Tensor) -> Tensor:
            return run.log_density(z, *given, **asked).value.double()

        rng = stream(asked["seed"], "density", "cells", points)
        inside, point = over_cells(of_run, codec, x[:cells], points, rng)
        return inside - point

    cells = min(FIRST_CELLS, len(x))
    first = over(FIRST_POINTS, cells)
    found = _mean(first)
    if found["value"] + 2 * found["stderr"] <= SMALL * stderr:
        return found, FIRST_POINTS, cells
    needed = math.ceil((3 * float(first.std()) / stderr) ** 2) if stderr > 0 else MOST_CELLS
    cells = min(max(cells, needed), MOST_CELLS, len(x))
    return _mean(over(POINTS, cells)), POINTS, cells


def _gaussian_over_cells(
    run: GenerativeModel, data: Data, x: Tensor, label: Tensor | None, vector: Tensor | None
) -> Float64[Tensor, "n"]:
    """The same Gaussian's log-density of rows, integrated over their cells."""
    assert run.codec is not None

    def of_gaussian(z: Tensor) -> Tensor:
        found = gaussian_log_density(data, z, label, vector)
        assert found is not None
        return found

    return over_cells(of_gaussian, run.codec, x, POINTS, stream(0, "density", "gaussian"))[0]


def _sum(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {
        "value": a["value"] + b["value"],
        "stderr": math.hypot(a["stderr"], b["stderr"]),
    }


def which_gaussian(label: bool, vector: bool) -> str:
    """A fitted Gaussian in words: what it is given.

    >>> which_gaussian(True, False)
    'a Gaussian with a mean for each label and one covariance'
    """
    if not (label or vector):
        return "a Gaussian"
    given = [*["a mean for each label"] * label, *["a mean linear in the conditions"] * vector]
    return f"a Gaussian with {' and '.join(given)} and one covariance"


def gaussian_log_density(
    data: Data, x: Float[Tensor, "n d"], label: Tensor | None, vector: Tensor | None
) -> Float64[Tensor, "n"] | None:
    """log-density of rows under the Gaussian fitted to the training rows by maximum likelihood.

    Given labels or conditions its mean is linear in them, with one covariance for all. None
    where that covariance is singular.
    """
    classes = len(data.label_names)
    assert isinstance(data.train, Tensor)
    known = _features(len(data.train), data.train_label, data.train_vector, classes)
    train = data.train.double().flatten(1)
    # Of the solutions lstsq has the smallest, so a column of ones beside one-hot labels is fine.
    weights = torch.linalg.lstsq(known, train, driver="gelsd").solution
    residual = train - known @ weights
    covariance = residual.T @ residual / len(train)
    scale = covariance.diagonal().sqrt()
    correlation = covariance / (scale[:, None] * scale)
    if not bool(correlation.isfinite().all()):
        return None
    factor, failed = torch.linalg.cholesky_ex(correlation)
    if int(failed) or float(factor.diagonal().min()) < 1e-6:
        return None
    error = x.double().flatten(1) - _features(len(x), label, vector, classes) @ weights
    white = torch.linalg.solve_triangular(factor, (error / scale).T, upper=False)
    log_det = factor.diagonal().log().sum() + scale.log().sum()
    return -0.5 * white.square().sum(0) - log_det - 0.5 * len(scale) * math.log(2 * math.pi)


def _features(
    n: int, label: Tensor | None, vector: Tensor | None, classes: int
) -> Float64[Tensor, "n f"]:
    """A one, the one-hot label and the standardised conditions of each row."""
    parts = [torch.ones(n, 1, dtype=torch.float64)]
    if label is not None:
        parts.append(torch.nn.functional.one_hot(label, classes).double())
    if vector is not None:
        parts.append(vector.double())
    return torch.cat(parts, 1)


def in_words(density: Mapping[str, Any]) -> str:
    """One line for people."""
    if reason := density.get("refused"):
        return f"No log-density: {reason}."
    beside = density["gaussian"]
    other = "" if beside is None else f"; {density['gaussian_is']} has {beside['value']:.3f}"
    return (
        f"Held-out log-density {density['value']:.3f} ± {density['stderr']:.3f} {density['units']} "
        f"(mean and standard error, n = {density['n']}){other}."
    )
