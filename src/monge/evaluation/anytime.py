"""Quality of the prefixes of a chain: every number of blocks is a model of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from monge.data.base import Data
from monge.evaluation.density import heldout_density
from monge.evaluation.latent_rows import latents_in_units
from monge.evaluation.step_curve import FLOORS, MOST, Judge
from monge.metrics.features import FeatureNetwork
from monge.runs.layout import ANYTIME
from monge.runs.run import Run
from monge.system.files import write_json
from monge.system.progress import Say, quiet


def anytime_curve(
    run: Run,
    blocks: Sequence[int],
    n: int = MOST,
    *,
    seed: int = 0,
    data: Data | None = None,
    network: FeatureNetwork | None = None,
    say: Say = quiet,
) -> dict[str, Any]:
    """Samples and densities of the first blocks of a chain, for several numbers of them.

    Args:
        blocks: how many, counted from the data.
        n: samples, and held-out examples for the comparison.

    Raises:
        UserError: the run is no chain, or has fewer blocks.
    """
    prefixes = [dataclasses.replace(run, learned=run.learned.first(k)) for k in blocks]
    data = run.data() if data is None else data
    judge = Judge(run, data, n, seed, network)
    points = []
    for k, prefix in zip(blocks, prefixes, strict=True):
        samples = prefix.sample(judge.n, seed=seed)
        point = dataclasses.asdict(judge.of(prefix, samples, "chain"))
        density = heldout_density(prefix, data, seed)
        points.append({**point, "blocks": k, "density": density})
        say(in_words(points[-1]))
    floors = [
        judge.numbers(latents_in_units(run, data.train, judge.n, seed, f"floor {k}"))
        for k in range(FLOORS)
    ]
    energies = [f[0] for f in floors]
    found = {
        "format_version": 1,
        "n": judge.n,
        "seed": seed,
        "network": None if network is None else network.name,
        "withheld": judge.withheld,
        "points": points,
        "floor": {"energy": sum(energies) / FLOORS},
    }
    write_json(run.folder / ANYTIME, found)
    return found


def in_words(point: Mapping[str, Any]) -> str:
    """A prefix in a line."""
    density = point["density"]
    refused = density.get("refused")
    like = "no density" if refused else f"{density['value']:8.4f} ± {density['stderr']:.4f}"
    frechet = "-" if point["frechet"] is None else f"{point['frechet']:.4g}"
    seen = "" if point["features"] is None else f"  Frechet (features) {point['features']:.3g}"
    return (
        f"{point['blocks']:3} blocks  {point['evaluations']:5g} NFE  log-density {like}  energy "
        f"{point['energy']:8.4f}  C2ST AUC {point['auc']:.3f}  Frechet {frechet}{seen}"
    )


def text(found: Mapping[str, Any]) -> str:
    """The curve as lines."""
    lines = [in_words(point) for point in found["points"]]
    lines.append(
        f"n = {found['n']} samples and as many held-out examples, seed {found['seed']}; floor of "
        f"the energy distance {found['floor']['energy']:.4f}; log-density in nats, of held-out "
        "examples"
    )
    return "\n".join(lines)
