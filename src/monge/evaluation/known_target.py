"""Exact divergences of a run from a target that is known, as rows of the table.

Both densities are known: the target's in closed form, the run's by the change of variables along
its flow. So Kullback-Leibler divergences and total variation are plain means, without a bandwidth,
a classifier or a dimension's curse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from monge.data.base import Data
from monge.evaluation.baselines import gaussian_name
from monge.flows.density import EXACT
from monge.metrics.divergences import Divergences, divergences
from monge.metrics.samples import Values
from monge.metrics.table import Row
from monge.paths import Linear
from monge.sampling.model import GenerativeModel
from monge.sampling.samples import Samples
from monge.targets.base import Target
from monge.targets.gaussian import Gaussian
from monge.tensors import stream

GROUP = "Exact divergences from the known target"

MOST_DENSITIES = 4000
"""Densities of the run that are computed: one for each example and label."""

MOST_N = 1000
MOST_DIM = EXACT
"""Dimensions up to which the trace, and so the run's density, is exact."""

CHECKED = 40
"""Examples whose density is computed once more, with twice the steps."""


def target_rows(
    run: GenerativeModel, data: Data, samples: Samples, seed: int = 0, **flow: Any
) -> list[Row]:
    """Forward and reverse KL divergence and total variation, in nats, with standard errors.

    The run's law is that of its samples as a whole: the mixture of its laws given each label, by
    the labels' frequency in the training data. No rows where the target is not known, has no
    density, or has more than `MOST_DIM` dimensions, or where samples go through a final map or by
    jumps of a learned one, which have none.

    Args:
        samples: of the run, drawn with the same settings.
        flow: steps, solver, grid, guidance; the run's own unless given.
    """
    target = data.target
    if target is None or not target.smooth or target.dim > MOST_DIM:
        return []
    settings = samples.info
    if settings["final"] != "none" or run.without_density(flow.get("solver")):
        return []
    n = min(MOST_N, MOST_DENSITIES // (2 * max(1, len(run.label_names))), len(samples))
    n = min(n, len(data.heldout))
    rows = torch.randperm(len(data.heldout), generator=stream(seed, "target"))[:n]
    real, drawn = data.heldout[rows].double(), samples.x[:n].double()

    at_real, at_drawn = (log_density(run, x, **flow) for x in (real, drawn))
    found = divergences(at_real - exact(target, real), at_drawn - exact(target, drawn))
    beside = _gaussian(target, data, real, seed)
    protocol: dict[str, str | int | float] = {
        "run's density": "change of variables along the flow, exact trace",
        "solver": settings["solver"],
        "grid": settings["grid"],
        **_change(run, real[:CHECKED], at_real[:CHECKED], settings["steps"], flow),
        "examples": f"{n} held-out ones of the target, {n} samples of the run",
        "floor": "zero, exactly",
        "seed": seed,
    }
    if run.label_names:
        protocol["labels"] = f"mixture over {len(run.label_names)}"
    names = ("KL(target | run)", "KL(run | target)", "total variation")
    return [
        Row(
            name=name,
            value=estimate.value,
            interval=(estimate.interval.low, estimate.interval.high),
            interval_method=estimate.interval.method,
            floor=0.0,
            baselines={gaussian_name(run): other.value},
            n=n,
            protocol={**protocol, "stderr": estimate.stderr},
            unit="nats" if name.startswith("KL") else "",
            better="lower",
            group=GROUP,
        )
        for name, estimate, other in zip(names, found, beside, strict=True)
    ]


def _change(
    run: GenerativeModel, x: Tensor, known: Values, steps: int, flow: Mapping[str, Any]
) -> dict[str, float]:
    """How far twice the steps move the densities of examples; nothing where steps are fixed."""
    if run.learned.fixed_steps:
        return {}
    finer = log_density(run, x, **{**flow, "steps": 2 * steps})
    return {"mean change of log-density at twice the steps": float((finer - known).abs().mean())}


def log_density(run: GenerativeModel, x: Float[Tensor, "n d"], **flow: Any) -> Values:
    """log-density of the law of a run's samples as a whole, (n,) in float64."""
    if not run.label_names:
        return run.log_density(x.float(), **flow).value.double()
    counts = torch.tensor(run.facts.label_counts, dtype=torch.float64)
    terms = []
    for k, share in enumerate((counts / counts.sum()).tolist()):
        if share > 0:
            label = torch.full((len(x),), k)
            found = run.log_density(x.float(), label, **flow).value
            terms.append(found.double() + math.log(share))
    return torch.stack(terms).logsumexp(0)


def exact(target: Target, x: Float[Tensor, "n d"]) -> Values:
    return target.at(Linear()).log_density(x, 1.0)


def _gaussian(target: Target, data: Data, real: Tensor, seed: int) -> Divergences:
    """The same of a Gaussian fitted to the training data."""
    known = data.train[:].double()
    fitted = Gaussian(known.mean(0), known.T.cov().reshape(target.dim, target.dim))
    drawn = fitted.sample(len(real), stream(seed, "target", "gaussian"))
    return divergences(*(exact(fitted, x) - exact(target, x) for x in (real, drawn)))
