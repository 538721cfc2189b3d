"""Measure the tables of lipschitz.md: quality over the cap, tightness, and the time of a step.

    python docs/lipschitz.py caps [SECONDS]     mixtures in 2, 8 and 16 dimensions, equal time
    python docs/lipschitz.py digits [SECONDS]   latents of the digits, equal time
    python docs/lipschitz.py tight [SECONDS]    certified constant and largest Jacobian, 16 tokens
    python docs/lipschitz.py untrained          the same of untrained blocks alone
    python docs/lipschitz.py widths             regression on an exact velocity, by width
    python docs/lipschitz.py steps              seconds of a training step

One thread, seed 0. Seconds are of the processor: a step is timed first. Each run is trained without
labels (a share of 0.999 of them is dropped).
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import monge
from monge.components import build
from monge.metrics.two_sample import energy_distance
from monge.networks.certificate import certificate, velocity_certificate
from monge.objectives.flow_matching import FlowMatching
from monge.studies import approximation
from monge.studies.learning import BATCH, Examples, train
from monge.targets.affine import rescaled
from monge.tensors import noise, stream
from monge.training.caps import Caps
from monge.verification.adversarial import steepest
from monge.verification.certified import certified
from monge.verification.curves import field_errors
from monge.verification.lipschitz import amplification
from monge.verification.selftest import pipeline_of

N = 800
"""Samples of each side."""

SEARCHED = 16
"""States from which each search starts."""

TIMES = [0.05, 0.35, 0.65, 0.95]


def main(what: str, seconds: float = 20.0) -> None:
    torch.set_num_threads(1)
    kinds = {
        "caps": caps,
        "digits": digits,
        "tight": tight,
        "untrained": untrained,
        "widths": widths,
        "steps": steps,
    }
    kinds[what](seconds)


def caps(seconds: float) -> None:
    print("| d | cap | steps | E|v^ - v|^2 | energy distance | velocity term | certified bound "
          "| by curve | certified L | found | amplification |")  # fmt: skip
    for dim in (2, 8, 16):
        print(f"| {dim} | two samples of the truth | | | {floor(dim)} | | | | | | |")
        for cap in CAPS:
            # The vector is one token of both.
            network = f"lipschitz:cap={cap}" if cap else f"transformer:token={dim}"
            shown = measured(network, dim, seconds)
            print(f"| {dim} | {cap or 'none'} | " + " | ".join(shown) + " |", flush=True)


def digits(seconds: float) -> None:
    print("| cap | steps | energy distance | p | certified L | found |")
    shared = tempfile.TemporaryDirectory()
    monge.train("digits", steps=1, out=Path(shared.name) / "run", verbose=False)
    autoencoder = str(Path(shared.name) / "run" / "autoencoder")
    for cap in CAPS:
        with tempfile.TemporaryDirectory() as folder:
            network = f"lipschitz:cap={cap}" if cap else "transformer"
            run, count = trained(Path(folder), "digits", network, seconds, autoencoder=autoencoder)
            run.evaluate(guidance=1.0)
            card = json.loads((Path(folder) / "run/evaluation/evaluation.json").read_text())
            near = next(r for r in card["table"]["rows"] if r["name"] == "energy distance")
            low, high = near["interval"]
            known, found = constants(run, run.autoencoder.encode(run.data().train[:SEARCHED]).mean)
            print(
                f"| {cap or 'none'} | {count} | {near['value']:.4f} ({low:.4f} to {high:.4f}) "
                f"| {near['p_value']:.3g} | {known} | {found:.3g} |",
                flush=True,
            )


def constants(run: Any, z: Tensor) -> tuple[str, float]:
    """The certified constant of the field for all times of `TIMES`, and the largest one found."""
    found, known = 0.0, 0.0
    for t in TIMES:
        x = t * z + (1 - t) * noise(0, 0, len(z), tuple(z.shape[1:]), "docs")
        found = max(found, float(steepest(lambda y, t=t: run.field(y, t), x, steps=20).max()))
        try:
            known = max(known, velocity_certificate(run.field, t).euclidean)
        except monge.errors.UserError:
            known = math.inf
    return "none" if math.isinf(known) else f"{known:.3g}", found


def widths(_: float) -> None:
    """The relative error of networks of cap 5 on the exact velocity of two modes, 9,000 steps."""
    objective = approximation.regression("velocity")
    held = Examples(objective.law, objective, 1000, approximation.HELD_OUT).draw(0)
    scale = float(held["y"].square().mean().sqrt())
    print("| width | error | certified |")
    for width in (32, 256):
        text = approximation.NETWORKS["capped"].format(width=width) + ",token=2"
        network = build("network", text).build((2,), rng=stream(0, "weights"))
        examples = Examples(objective.law, objective, 0, BATCH)
        found = train(network, examples, 9000, lr=min(1e-2, 0.3 / width))
        with torch.no_grad():
            error = float(objective.loss(found, held).per_example.mean().sqrt()) / scale
        print(f"| {width} | {error:.4f} | {certificate(found).euclidean:.4f} |", flush=True)


CAPS = ("1", "2", "5", "10", "30", None)


def tight(seconds: float) -> None:
    print("| network | steps | certified | found | ratio |")
    for depth in (2, 4):
        network = f"lipschitz:cap=5,token=1,depth={depth}"
        shown = measured(network, 16, seconds)
        ratio = float(shown[6]) / float(shown[7])
        print(f"| {network} | {shown[0]} | {shown[6]} | {shown[7]} | {ratio:.3g} |", flush=True)


def untrained(_: float) -> None:
    """16 tokens, the straight path of the head closed: the blocks alone."""
    for depth in (2, 4):
        spec = f"lipschitz:cap=5,token=1,depth={depth},width=64"
        network = build("network", spec).build((16,)).double()
        network.out.reset(stream(1, "out"))
        with torch.no_grad():
            network.decisions.linear.bias[-2] = 6.0
        x = torch.randn(6, 16, generator=stream(2, "x"), dtype=torch.float64)
        known = certificate(network, 0.5).euclidean
        found = float(steepest(lambda y, f=network: f(y, 0.5), x, steps=25).max())
        print(f"| {spec} | {known:.3g} | {found:.3g} | {known / found:.3g} |", flush=True)


def trained(folder: Path, source: str, network: str, seconds: float, **settings: Any) -> Any:
    """A run that took so many seconds of the processor to train, and its steps."""
    settings = {"network": network, "lr": 3e-3, "threads": 1, "device": "cpu", **settings}
    spent = []
    for count in (1, 20, 120):  # the first warms up
        start = time.process_time()
        monge.train(source, steps=count, out=folder / str(count), verbose=False, **settings)
        spent.append(time.process_time() - start)
    count = max(50, int(100 * seconds / (spent[2] - spent[1])))
    run = monge.train(source, steps=count, out=folder / "run", verbose=False, **settings)
    return run, count


def target_of(dim: int) -> Any:
    return build("target", f"mixture:dim={dim},modes=4")


def floor(dim: int) -> str:
    """The energy distance between two samples of the truth, over eight pairs."""
    law = target_of(dim).build()
    pairs = [[draws(law, 2 * k + j) for j in (0, 1)] for k in range(8)]
    found = [energy_distance(a / a.std(0), b / a.std(0)) for a, b in pairs]
    return f"{statistics.mean(found):.4f} ± {statistics.stdev(found):.4f}"


def draws(law: Any, key: int) -> Tensor:
    found = law.sample(N, stream(0, "docs", key))
    return (found[0] if isinstance(found, tuple) else found).double()


def measured(network: str, dim: int, seconds: float) -> list[str]:
    """A row of the tables: trained for so long, held against the truth."""
    with tempfile.TemporaryDirectory() as folder:
        source = f"target:mixture:dim={dim},modes=4"
        run, count = trained(Path(folder), source, network, seconds, label_drop=0.999)
        truth = rescaled(target_of(dim).build(), run.autoencoder.mean, run.autoencoder.std)
        z, x0 = draws(truth, 100).float(), noise(0, 0, N, (dim,), "docs")
        errors = field_errors(run.field, run.path, truth, z, None, (0.0, 1.0), bins=10)
        mean = sum((e.hi - e.lo) * e.excess for e in errors)
        pipeline = pipeline_of(truth, run.field, steps=20, fine=20)
        with torch.no_grad():
            ends = pipeline.unguided(x0, 0.0, 1.0).double()
            exact = pipeline.exact
            assert exact is not None
            gap = (ends - exact(x0.double(), 0.0, 1.0)).square().sum(1).mean().sqrt()
        distance = energy_distance(ends, draws(truth, 101))
        row = [str(count), f"{mean:.3f}", f"{distance:.4f}", f"{float(gap):.3f}"]
        proved = certified(pipeline, errors, TIMES, x0, None, ascent=20)
        stretch = f"{amplification(pipeline, x0[:256], None):.3g}"
        if isinstance(proved, str):
            state = z[:16]
            most = max(float(steepest(lambda y: run.field(y, 0.9), state).max()), 0.0)
            return [*row, "none", "none", "none", f"{most:.3g}", stretch]
        assert proved.bound is not None and proved.interpolated is not None
        constant = max(proved.norm)
        return [
            *row,
            f"{proved.bound:.3g}",
            f"{proved.interpolated:.3g}",
            f"{constant:.3g}",
            f"{proved.found:.3g}",
            stretch,
        ]


def steps(_: float) -> None:
    """The median of 15 steps on batches of 128, 16 tokens, in turn so that load is shared."""
    names = ["transformer", "lipschitz:token=1", "lipschitz:token=1,feed=convex"]
    runs = {name: stepper(name) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for k in range(17):
        for name, step in runs.items():
            start = time.process_time()
            step()
            if k > 1:
                times[name].append(time.process_time() - start)
    free = statistics.median(times["transformer"])
    for name in names:
        middle = statistics.median(times[name])
        print(f"| {name} | {1e3 * middle:.0f} ms | {middle / free:.2f} |")
    network = build("network", "lipschitz:token=1").build((16,))
    print(f"certified untrained: {certificate(network).euclidean:.4f}")


def stepper(name: str) -> Any:
    network = build("network", name).build((16,))
    optimiser = torch.optim.AdamW(network.parameters(), fused=True)
    held, objective, rng = Caps(network), FlowMatching(), stream(0, "docs")
    batch = {"x1": torch.randn(128, 16, generator=rng)}

    def step() -> None:
        loss = objective.loss(network, objective.draw(batch, rng)).per_example.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        held.hold()

    return step


if __name__ == "__main__":
    main(sys.argv[1], *(float(a) for a in sys.argv[2:]))
