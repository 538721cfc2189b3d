"""log-density of held-out rows under a run, beside a Gaussian's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from monge.data.base import Data
from monge.sampling.model import GenerativeModel
from monge.tensors import stream

MOST_ROWS = 1000
EXACT = 32
"""Dimensions up to which the trace of the flow's derivative is computed exactly."""

PROBES = 4
"""Random signs of Hutchinson's estimator above that."""


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
        singular; ``gain``, the mean difference with its error; ``n``, ``units``, ``protocol``.
        Or ``refused``, the reason why there is no density.
    """
    if reason := run.without_density(flow.get("solver")):
        return {"refused": reason}
    rows = torch.randperm(len(data.heldout), generator=stream(seed, "density"))[:n]
    size = math.prod(data.shape)
    probes = None if size <= EXACT else PROBES
    label = None if data.heldout_label is None else data.heldout_label[rows]
    vector = None if data.heldout_vector is None else data.heldout_vector[rows]
    x = data.heldout[rows]
    found = run.log_density(x, label, vector, probes=probes, seed=seed, **flow)
    if found.space != "data":
        return {"refused": "the autoencoder is no affine bijection: latents have other densities"}
    value = found.value.double()
    gaussian = gaussian_log_density(data, x, label, vector)
    integrated = run.flow(**flow)
    sampling = run.describe_sampling(integrated)
    protocol = {
        "trace": "exact" if probes is None else f"Hutchinson, {probes} probes",
        **{k: sampling[k] for k in ("solver", "grid", "guidance", "domain")},
        "seed": seed,
        "given": [k for k, c in (("label", label), ("conditions", vector)) if c is not None],
    }
    if probes is not None:
        protocol["trace_stderr"] = float(found.stderr.double().square().mean().sqrt())
    spread = [] if run.codec is None else [c.name for c in run.codec.columns if c.spread]
    if spread:
        protocol["dequantised"] = f"uniform noise of one step in {', '.join(spread)}"
    return {
        **_mean(value),
        "gaussian": None if gaussian is None else _mean(gaussian),
        "gain": None if gaussian is None else _mean(value - gaussian),
        "n": len(rows),
        "units": "nats",
        "protocol": protocol,
    }


def _mean(values: Float64[Tensor, "n"]) -> dict[str, float]:
    deviation = float(values.std()) if len(values) > 1 else math.nan
    return {"value": float(values.mean()), "stderr": deviation / math.sqrt(len(values))}


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
    other = "" if beside is None else f"; a Gaussian has {beside['value']:.3f}"
    return (
        f"Held-out log-density {density['value']:.3f} ± {density['stderr']:.3f} {density['units']} "
        f"(mean and standard error, n = {density['n']}){other}."
    )
