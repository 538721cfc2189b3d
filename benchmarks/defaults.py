"""Each default beside its alternatives: the rows of docs/defaults.md.

Shortened runs of the digits recipe (`STEPS` steps of `BATCH` latents of one fixed autoencoder),
equal in steps, three seeds each; only the named choice differs. Quality is that of as many
samples as there are held-out images (n = 359), in latent space. The solvers and grids, and the
averages of the weights, are looked at in the runs of the defaults. Run with
`python -m benchmarks.defaults --rounds 3`; about a quarter of an hour on two cores. It is not one
of those that `python -m benchmarks` runs.
"""

from __future__ import annotations

import copy
import statistics
import sys

from torch import Tensor, nn

from benchmarks import study
from benchmarks.measure import Row, Rows, clock, mean, parser, show
from benchmarks.study import SPEC, Quality, Study, Variant
from monge.training.ema import Average

STEPS = 300
BATCH = 64

COMMON = {"batch": BATCH}
WIDTH = "transformer:width={},depth=4,heads=4,patch=2"

VARIANTS = {
    "default (uniform times, independent coupling, QK-norm, width 128)": Variant(COMMON),
    "times logit_normal": Variant({**COMMON, "times": "logit_normal"}),
    "coupling ot:plan=256": Variant({**COMMON, "coupling": "ot:plan=256"}),
    "no QK-norm": Variant(COMMON, study.without_qk_norm),
    "ten times the learning rate": Variant({**COMMON, "lr": 10 * SPEC.lr}),
    "ten times the learning rate, no QK-norm": Variant(
        {**COMMON, "lr": 10 * SPEC.lr}, study.without_qk_norm
    ),
    "thirty times the learning rate": Variant({**COMMON, "lr": 30 * SPEC.lr}),
    "thirty times the learning rate, no QK-norm": Variant(
        {**COMMON, "lr": 30 * SPEC.lr}, study.without_qk_norm
    ),
    "width 64": Variant({**COMMON, "network": WIDTH.format(64)}),
    "width 192": Variant({**COMMON, "network": WIDTH.format(192)}),
}

NO_WARM_UP = 10**9

AVERAGES = {
    "no average of the weights": (0.0, 0),
    "ema 0.9": (0.9, 0),
    "ema 0.999 without warm-up": (0.999, NO_WARM_UP),
}
"""Decay, and the step that the warm-up believes to start at. In runs this short the warm-up keeps
the decay below 0.97, so that 0.99 and 0.9999 are the same as the default of 0.999."""

SAMPLING = {
    "euler, 20 steps (20 evaluations)": ("euler", "uniform:n=20"),
    "euler, 40 steps (40)": ("euler", "uniform:n=40"),
    "heun, 5 steps (10)": ("heun", "uniform:n=5"),
    "heun, 10 steps (20)": ("heun", "uniform:n=10"),
    "heun, 10 shifted steps (20)": ("heun", "shifted:n=10,shift=3"),
    "midpoint, 20 steps (40)": ("midpoint", "uniform:n=20"),
    "rk4, 10 steps (40)": ("rk4", "uniform:n=10"),
}
"""Besides the default: heun, 20 uniform steps, 40 evaluations."""


def train(
    data: Study, variant: Variant, seed: int, averages: dict[str, tuple[float, int]]
) -> tuple[dict[str, nn.Module], float]:
    """The averaged network of a variant as "", others by their names; seconds of its steps."""
    others: dict[str, Average] = {}
    engine, start = None, clock()
    for n, engine in enumerate(study.training(data, variant, seed, STEPS)):
        if not others:
            others = {k: Average(engine.network, decay) for k, (decay, _) in averages.items()}
        for name, average in others.items():
            average.update(n + averages[name][1])
    assert engine is not None
    seconds = clock() - start
    networks: dict[str, nn.Module] = {"": copy.deepcopy(engine.average.look()).eval()}
    return networks | {k: average.look() for k, average in others.items()}, seconds


def rows_of(name: str, found: list[Quality], reference: list[Quality], note: str = "") -> Rows:
    """Energy distance and AUC with standard errors, and the paired difference to the default."""
    gaps = [a.energy - b.energy for a, b in zip(found, reference, strict=True)]
    if any(gaps) and len(gaps) > 1:
        gap = mean(gaps, "")
        assert gap.value is not None and gap.high is not None
        difference = f"energy less the default's: {gap.value:+.4f} ± {gap.high - gap.value:.4f}"
        note = f"{difference}; {note}".removesuffix("; ")
    return {
        f"{name}: energy distance": mean([q.energy for q in found], "mean ± s.e.", note=note),
        f"{name}: C2ST AUC": mean([q.auc for q in found], "mean ± s.e."),
    }


def run(seeds: int) -> Rows:
    data = study.prepare()
    base = study.floor(data)
    rows: Rows = {"training images in the samples' place: energy distance": Row(base.energy)}
    rows["training images in the samples' place: C2ST AUC"] = Row(base.auc)
    qualities: dict[str, list[Quality]] = {}
    seconds: dict[str, list[float]] = {}

    def note(name: str, z: Tensor) -> None:
        found = study.quality(data, z)
        qualities.setdefault(name, []).append(found)
        print(f"{name}: {found}", file=sys.stderr, flush=True)

    for seed in range(seeds):
        for name, variant in VARIANTS.items():
            default = name.startswith("default")
            networks, spent = train(data, variant, seed, AVERAGES if default else {})
            seconds.setdefault(name, []).append(1e3 * spent / STEPS)
            for other, network in networks.items():
                note(other or name, study.sample(data, network, seed))
            for how, (solver, grid) in SAMPLING.items() if default else ():
                note(how, study.sample(data, networks[""], seed, solver, grid))
    reference = next(iter(qualities.values()))
    for name, found in qualities.items():
        spent = seconds.get(name)
        speed = f"{statistics.median(spent):.0f} ms a step" if spent else ""
        rows |= rows_of(name, found, reference, speed)
    return rows


if __name__ == "__main__":
    made = parser(__doc__)
    made.set_defaults(rounds=3)
    title = f"defaults, {STEPS} steps of {BATCH} latents of digits"
    show(title, run(made.parse_args().rounds))
