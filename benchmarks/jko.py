"""Chains: the cost of a training iteration, and held-out log-likelihood beside other models.

``cost`` (the default): an iteration of the JKO objective in two dimensions (RK4, 3 steps, one sign
for each example, 2,000 examples, 128-128-128), forward and backward, beside a straightforward
rewrite of the published algorithm: two evaluations of the network in each stage, the divergence by
a forward difference. With the weights of the same network both have the same loss and gradient, up
to the error of the difference, which `tests/objectives/test_jko_rewrite.py` checks. The rewrite
with the published activation, Softplus(20), is timed beside. Processor time, interleaved.

``likelihood FILE``: a JKO chain, a chain of local flow matching, plain flow matching, and from
zuko a neural spline flow and a masked autoregressive flow, of equal numbers of parameters (within
10 %), trained for equal processor time on the same rows, and judged by the mean log-density of the
same held-out rows in the file's units. ``--marginals quantile`` puts the same curves to normal
scores, fitted to the training rows, in front of every contestant.

Run with ``python -m benchmarks.jko --rounds 9`` and
``python -m benchmarks.jko likelihood power_plant.csv --seconds 120``.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Rows, interleave, median, ratio, show, timed
from monge.flows.blocks import MIDDLE
from monge.networks.mlp import MLP, MLPSpec
from monge.objectives.chain import BlockPlan
from monge.objectives.jko import JKO, JKOSpec
from monge.tensors import stream

GAMMA, STEPS, SPACING = 0.5, 3, 0.02 / math.sqrt(2)


def network(width: int = 128, depth: int = 3) -> MLP:
    """A network of the published size whose output is not zero."""
    made = MLPSpec(width=width, depth=depth, embed=16).build((2,), None, 0, stream(0, "weights"))
    nn.init.normal_(made.out.weight, std=0.05, generator=stream(1, "weights"))
    return made


def batch(n: int = 2000) -> dict[str, Tensor]:
    """States, and a sign for each of their coordinates."""
    x = torch.randn(n, 2, generator=stream(2, "x"))
    signs = torch.randint(0, 2, (n, 1, 2), generator=stream(3, "signs")).float() * 2 - 1
    return {"x1": x, "signs": signs}


def ours(net: MLP, drawn: dict[str, Tensor]) -> Tensor:
    """The mean loss of a block."""
    spec = JKOSpec(autonomous=True, steps=STEPS, divergence="hutchinson")
    return JKO(spec, BlockPlan(GAMMA)).loss(net, drawn).per_example.mean()


def plain(net: MLP, activation: Callable[[], nn.Module] = nn.SiLU) -> nn.Sequential:
    """The same network without times: linear layers with the weights of the other."""
    layers: list[nn.Module] = []
    shifts = net.conditioned(torch.zeros(1, 2), MIDDLE)
    for linear, shift in zip(net.hidden, shifts, strict=True):
        assert isinstance(linear, nn.Linear)
        own = nn.Linear(linear.in_features, linear.out_features)
        own.weight.data = linear.weight.detach().clone()
        own.bias.data = (linear.bias + shift[0]).detach().clone()
        layers += [own, activation()]
    out = nn.Linear(net.out.in_features, net.out.out_features)
    out.load_state_dict(net.out.state_dict())
    return nn.Sequential(*layers, out)


def rewritten(net: nn.Module, drawn: dict[str, Tensor]) -> Tensor:
    """The published algorithm, written down plainly."""
    x0, e = drawn["x1"], drawn["signs"][:, 0]

    def rates(x: Tensor) -> tuple[Tensor, Tensor]:
        v = net(x)
        divergence = ((net(x + SPACING * e) - v) * e).sum(1) / SPACING
        return v, divergence

    x, total, h = x0, torch.zeros(len(x0)), -1.0 / STEPS
    for _ in range(STEPS):
        k1, d1 = rates(x)
        k2, d2 = rates(x + h / 2 * k1)
        k3, d3 = rates(x + h / 2 * k2)
        k4, d4 = rates(x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        total = total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    loss = 0.5 * x.square().sum(1) - total + (x - x0).square().sum(1) / (2 * GAMMA)
    return loss.mean() / 2


def run(rounds: int) -> Rows:
    """The cost of an iteration."""
    net, drawn = network(), batch()
    rivals: dict[str, tuple[nn.Module, Callable[..., Tensor]]] = {
        "monge": (net, ours),
        "rewrite": (plain(net), rewritten),
        "rewrite, Softplus": (plain(net, lambda: nn.Softplus(20)), rewritten),
    }

    def iteration(module: nn.Module, loss: Callable[..., Tensor]) -> Callable[[], float]:
        def once() -> None:
            module.zero_grad()
            loss(module, drawn).backward()

        return timed(once)

    found = interleave({name: iteration(*rival) for name, rival in rivals.items()}, rounds)
    rows = {name: median([1000 * s for s in times], "ms") for name, times in found.items()}
    for name in ("rewrite", "rewrite, Softplus"):
        rows[f"{name} / monge"] = ratio(found[name], found["monge"], ">= 1.5")
    return rows


# Likelihood

SIZES = {
    # (what is trained, the network or the settings of zuko): 73,000 parameters each, within 10 %.
    "jko": ("jko:blocks=3,gamma=1,divergence=auto", "mlp:width=64,depth=2,embed=32,time_scale=20"),
    "local flow matching": (
        "local-flow-matching:blocks=3,time=0.3",
        "mlp:width=64,depth=2,embed=32,time_scale=20",
    ),
    "flow matching": ("flow_matching", "mlp:width=152,depth=3,embed=32"),
}
ZUKO = {
    "zuko NSF": ("NSF", {"transforms": 3, "hidden_features": (108, 108)}),
    "zuko MAF": ("MAF", {"transforms": 5, "hidden_features": (112, 112)}),
}


def likelihood(file: str, seconds: float, seed: int, names: list[str], marginals: str) -> None:
    """Print a line for each contestant."""
    from monge.data import sources
    from monge.runs.spec import TrainSpec

    data = sources.load(file, TrainSpec(data=file))
    train, heldout = data.train[:].float(), data.heldout[:].float()
    white = torch.distributions.MultivariateNormal(train.mean(0).double(), train.double().T.cov())
    base = white.log_prob(heldout.double())
    print(f"Gaussian: {base.mean():.3f}, {len(train)} rows, {len(heldout)} held out", flush=True)
    for name in names or [*SIZES, *ZUKO]:
        if name in SIZES:
            found = _ours(name, file, heldout, seconds, seed, marginals)
        else:
            found = _zuko(name, file, train, heldout, seconds, seed, marginals)
        value, parameters, spent, cost, finer = found
        gain = value - base
        print(
            f"{name:20} {parameters:7} parameters  {spent:5.0f} s  log-density "
            f"{value.mean():.3f} ± {value.std() / len(value) ** 0.5:.3f}  gain over the Gaussian "
            f"{gain.mean():.3f} ± {gain.std() / len(gain) ** 0.5:.3f}  {1e6 * cost:.0f} us a row"
            f"{finer}",
            flush=True,
        )


def _ours(
    name: str, file: str, heldout: Tensor, seconds: float, seed: int, marginals: str
) -> tuple[Tensor, int, float, float, str]:
    from monge.fitting.train import train as fit
    from monge.runs.spec import TrainSpec

    objective, network = SIZES[name]
    # Processor time on a machine that others use: a step is timed first.
    folder = Path(tempfile.mkdtemp())
    settings: Any = {
        "data": file,
        "objective": objective,
        "network": network,
        "batch": 512,
        "lr": 2e-3,
        "seed": seed,
        "device": "cpu",
        "marginals": marginals,
        "save_every": 10**6,
        "sample_every": 10**6,
    }

    def trained(steps: int, out: Path) -> tuple[Any, float]:
        start = time.process_time()
        made = fit(TrainSpec(**settings, steps=steps), out=out)
        return made, time.process_time() - start

    try:
        short = trained(20, folder / "a")[1]
        longer = trained(120, folder / "b")[1]
        steps = max(50, int(seconds / ((longer - short) / 100)))
        run, spent = trained(steps, folder / "c")
        parameters = sum(p.numel() for p in run.network.parameters())
        start = time.process_time()
        value = run.log_density(heldout).value.double()
        cost = (time.process_time() - start) / len(heldout)
        steps = len(run.flow().knots) - 1
        again = run.log_density(heldout[:500], steps=4 * steps).value.double()
        finer = f"  with four times the steps {(again - value[:500]).mean():+.4f}"
    finally:
        shutil.rmtree(folder)
    return value, parameters, spent, cost, finer


def _scores(file: str, marginals: Any) -> Any:
    """The autoencoder that monge puts in front of its own models: deviations, and curves if any."""
    from monge.fitting.train import train as fit
    from monge.runs.spec import TrainSpec

    with tempfile.TemporaryDirectory() as folder:
        spec = TrainSpec(
            data=file,
            network="mlp:width=8,depth=1",
            steps=1,
            marginals=marginals,
            device="cpu",
        )
        return fit(spec, out=Path(folder) / "run").autoencoder


def _zuko(
    name: str,
    file: str,
    train: Tensor,
    heldout: Tensor,
    seconds: float,
    seed: int,
    marginals: str,
) -> tuple[Tensor, int, float, float, str]:
    import zuko

    kind, settings = ZUKO[name]
    scores = _scores(file, marginals)
    torch.manual_seed(seed)
    flow = getattr(zuko.flows, kind)(train.shape[1], **settings)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=1e-3, weight_decay=0.0)
    with torch.no_grad():
        z, rng = scores.encode(train).mean.float(), stream(seed, "zuko")
    start, step = time.process_time(), 0
    while (spent := time.process_time() - start) < seconds:
        part = spent / seconds
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * part)) * min(1, (step + 1) / 100)
        rows = torch.randint(0, len(z), (512,), generator=rng)
        loss = -flow().log_prob(z[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        step += 1
    with torch.no_grad():
        start = time.process_time()
        value = flow().log_prob(scores.encode(heldout).mean.float()).double()
        value = value - scores.log_abs_det_at(heldout)
        cost = (time.process_time() - start) / len(heldout)
    return value, sum(p.numel() for p in flow.parameters()), spent, cost, ""


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("what", nargs="?", default="cost", choices=("cost", "likelihood"))
    made.add_argument("file", nargs="?")
    made.add_argument("--rounds", type=int, default=9)
    made.add_argument("--seconds", type=float, default=120.0)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--names", default="")
    made.add_argument("--marginals", default="none", choices=("none", "quantile"))
    given = made.parse_args()
    torch.set_num_threads(1)
    if given.what == "cost":
        show("jko", run(given.rounds))
    else:
        names = [name for name in given.names.split(",") if name]
        likelihood(given.file, given.seconds, given.seed, names, given.marginals)


if __name__ == "__main__":
    main()
