"""Fits a chain block by block, each on the latents pushed through the earlier blocks.

A block has a folder ``blocks/<round>-<number>`` with its checkpoints and log. ``input.safetensors``
there holds the latents on which it is fitted, pushed once through the previous block.
``block.json`` is written last and marks the block as finished. So a killed run loses only the steps
since the last checkpoint of one block, and continues to the same chain to the bit.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from monge.components import build
from monge.fitting.job import Job
from monge.fitting.objective import loop_spec
from monge.latents import batches as latent_data
from monge.learned.chain import BLOCKS, ChainObjective
from monge.objectives.chain import BlockPlan, ChainSpec, equalised, halves
from monge.runs import folder as folders
from monge.runs.layout import CHAIN
from monge.runs.restore import load_weights
from monge.runs.run import Run
from monge.sampling.facts import n_vector_of
from monge.system import processes
from monge.system.files import read_json, write_atomic, write_json
from monge.system.progress import quiet, survived
from monge.tensors import stream
from monge.training.loop import fit
from monge.types import Cond, Posterior, State

INPUT = "input.safetensors"
DONE = "block.json"

PREVIEW = 64
"""Samples in a picture after a block."""

PUSHED = 1024
"""Latents pushed through a block at once."""


@dataclass(frozen=True)
class Finished:
    """A fitted block.

    Attributes:
        plan: its settings.
        folder: of its files.
        facts: its measurements on the training latents.
    """

    plan: BlockPlan
    folder: Path
    facts: dict[str, Any]


def fit_chain(objective: ChainObjective, job: Job) -> None:
    """Fit the blocks of a run, or continue.

    Raises:
        Stopped, Diverged: see `training.loop.fit`; the run can be continued.
    """
    ChainFit(objective, job).run()


@dataclass(frozen=True)
class ChainFit:
    """Fits a chain in a run's folder.

    Attributes:
        objective: of the chain.
        job: the run, with the latents on which the first block is fitted.
    """

    objective: ChainObjective
    job: Job

    @property
    def settings(self) -> ChainSpec:
        return self.objective.spec

    def run(self) -> list[Finished]:
        """Fit the chain, or continue; every finished block of the first round is published."""
        self._begin()
        done = self._round(0, self.settings.planned(), [])
        for number, (what, change) in enumerate(self._rounds(), 1):
            plans, origins = change(done, self.settings)
            sizes = ", ".join("free" if p.size is None else f"{p.size:.3g}" for p in plans)
            self.job.say(f"round {number}, {what} blocks: {sizes}")
            done = self._round(number, plans, origins)
            self._publish(done)
        return done

    def _rounds(self) -> list[tuple[str, Change]]:
        """The rounds after the first, in order."""
        s = self.settings
        found = [("equal", _equal)] * s.reparametrise + [("halved", _halved)] * s.refine
        return found + [("merged", _merged)] * s.merge

    def _begin(self) -> None:
        """Draw the latents on which the first block is fitted: one sample of each posterior."""
        home = self._home(0, 0)
        if (home / INPUT).exists() or not processes.is_main():
            processes.wait()
            return
        latents = self.job.latents
        posterior = latents.rows(torch.arange(len(latents)))
        x = posterior.mean
        if posterior.logvar is not None:
            noise = torch.randn(x.shape, generator=stream(self.job.spec.seed, "posterior"))
            x = posterior.sample(noise.to(x))
        _keep(home, self.settings.diffused(x, stream(self.job.spec.seed, "diffusion")))
        processes.wait()

    def _round(
        self, number: int, plans: Sequence[BlockPlan], origins: Sequence[Finished]
    ) -> list[Finished]:
        done: list[Finished] = []
        plans = list(plans)
        while plans:
            plan = plans.pop(0)
            k = len(done)
            if origins:
                start = origins[k].folder
            else:
                start = done[-1].folder if done and self.settings.warm else None
            done.append(self._block(number, k, plan, start, len(plans) + 1))
            if number == 0:
                self._publish(done)
                self._show(len(done))
            if number == 0 and self.settings.blocks is None and self._near(done[-1]):
                plans = [p for p in plans if p.size is None]
        return done

    def _near(self, block: Finished) -> bool:
        """Whether the stopping rule holds after this block."""
        return block.plan.size is not None and block.facts["ratio"] < self.settings.stop

    def _block(
        self, number: int, k: int, plan: BlockPlan, start: Path | None, left: int
    ) -> Finished:
        """Fit one block and push the latents through it, unless it is finished."""
        home = self._home(number, k)
        if (home / DONE).exists():
            return Finished(plan, home, read_json(home / DONE))
        network = self._network(number, k)
        if start is not None:
            load_weights(network, start / "ema.safetensors")
        x = load_file(self._input(number, k))["x"]
        objective = self.objective.of(plan)
        seed = int(stream(self.job.spec.seed, "block", number, k).initial_seed() % 2**31)
        span = max(1, -(-(objective.coupling.plan_batch or 1) // self.job.spec.batch))
        batches = latent_data.LatentBatches(
            Posterior(x), self.job.data.conditions(), objective, self.job.spec.batch, seed, span
        )
        what = "free" if plan.size is None else f"size {plan.size:.3g}"
        self.job.say(f"block {k + 1} ({what}), at most {left} left")
        loop = loop_spec(self.job.spec, seed=seed, minutes=self._minutes(), sample_every=None)
        silent = self.job.say is quiet
        fitted = fit(network, objective.loss, batches, loop, folder=home, quiet=silent)
        begun = time.monotonic()
        y = self._pushed(fitted.ema, plan, x)
        facts = {**_facts(plan, x, y), "steps": fitted.step, "train_s": fitted.seconds}
        facts["push_s"] = time.monotonic() - begun
        if processes.is_main():
            _keep(self._home(number, k + 1), y)
            write_json(home / DONE, facts)
            if k:
                (home / INPUT).unlink(missing_ok=True)
        processes.wait()
        self.job.say(
            f"block {k + 1}: moved {facts['moved']:.3g} (W2), ratio {facts['ratio']:.3g}, "
            f"{fitted.step} steps in {fitted.seconds:.0f} s"
        )
        return Finished(plan, home, facts)

    def _network(self, number: int, k: int) -> nn.Module:
        rng = stream(self.job.spec.seed, "weights", number + 1, k + 1)
        labels, vector = len(self.job.data.label_names) or None, n_vector_of(self.job.data)
        return build("network", self.job.spec.network).build(self.job.shape, labels, vector, rng)

    def _minutes(self) -> float | None:
        """The minutes of a block: an equal share among the most blocks that all rounds may have."""
        if self.job.spec.minutes is None:
            return None
        s, n = self.settings, len(self.settings.planned())
        refined = sum(n * 2 ** (r + 1) for r in range(s.refine))
        return self.job.spec.minutes / (n * (1 + s.reparametrise + s.merge) + refined)

    @torch.no_grad()
    def _pushed(self, network: nn.Module, plan: BlockPlan, x: Tensor) -> Tensor:
        network = network.to(self.job.device).eval()
        like = next(network.parameters())
        block, cond, found = self.settings.made(network, plan.clock), self.job.data.conditions(), []
        for rows in torch.arange(len(x)).split(PUSHED):
            own: Cond = {n: c[rows % len(c)].to(self.job.device) for n, c in cond.items()} or None
            found.append(block(x[rows].to(like), 1.0, 0.0, own).float().cpu())
        return torch.cat(found)

    def _publish(self, done: Sequence[Finished]) -> None:
        """Write the weights of the finished blocks, then their list; extra weights are ignored."""
        if not processes.is_main():
            return
        weights = {
            f"blocks.{k}.{name}": tensor
            for k, block in enumerate(done)
            for name, tensor in load_file(block.folder / "ema.safetensors").items()
        }
        write_atomic(self.job.folder / "ema.safetensors", to_bytes(weights))
        write_json(self.job.folder / CHAIN, {BLOCKS: [block.facts for block in done]})
        folders.add_costs(
            self.job.folder,
            train_s=sum(b.facts["train_s"] for b in done),
            steps=sum(b.facts["steps"] for b in done),
            parameters=sum(t.numel() for t in weights.values()),
        )

    def _show(self, blocks: int) -> None:
        """A picture of samples of the blocks so far, which must not end the work."""
        if not processes.is_main():
            return
        with survived(f"the samples of {blocks} blocks were not drawn", self.job.say):
            run = Run.load(self.job.folder, self.job.spec.device)
            shown = run.sample(PREVIEW, "all" if run.label_names else None).grid_png()
            write_atomic(self.job.folder / "samples" / f"blocks-{blocks:02d}.png", shown)

    def _home(self, number: int, k: int) -> Path:
        return self.job.folder / "blocks" / f"{number}-{k:02d}"

    def _input(self, number: int, k: int) -> Path:
        """The file of the latents of block k; all rounds begin with the same latents."""
        return self._home(number if k else 0, k) / INPUT


def _keep(home: Path, x: State) -> None:
    home.mkdir(parents=True, exist_ok=True)
    write_atomic(home / INPUT, to_bytes({"x": x.contiguous()}))


def _facts(plan: BlockPlan, x: State, y: State) -> dict[str, Any]:
    """Measurements of a block on the training latents: the W2 moved and the ratio for stopping."""
    moved = float((y - x).double().square().flatten(1).sum(1).mean())
    size = float(y.double().square().flatten(1).sum(1).mean())
    return {
        "size": plan.size,
        "clock": list(plan.clock),
        "moved": math.sqrt(moved),
        "ratio": moved / size,
    }


Change: TypeAlias = Callable[
    [Sequence[Finished], ChainSpec], tuple[list[BlockPlan], Sequence[Finished]]
]
"""Maps the blocks of a round to the plans of the next, and the blocks that initialise them."""


def _equal(
    done: Sequence[Finished], settings: ChainSpec
) -> tuple[list[BlockPlan], Sequence[Finished]]:
    """The same blocks, with sizes adjusted towards equal displacements; a free block stays."""
    sized = [b for b in done if b.plan.size is not None]
    sizes = [b.plan.size for b in sized if b.plan.size is not None]
    new = equalised(sizes, [b.facts["moved"] for b in sized], settings.eta)
    plans = [dataclasses.replace(b.plan, size=size) for b, size in zip(sized, new, strict=True)]
    return [*plans, *(b.plan for b in done if b.plan.size is None)], done


def _halved(done: Sequence[Finished], _: ChainSpec) -> tuple[list[BlockPlan], Sequence[Finished]]:
    """Each block split in two, initialised as its halves; a free block stays whole."""
    plans: list[BlockPlan] = []
    origins: list[Finished] = []
    for block in done:
        parts = [block.plan] if block.plan.size is None else halves(block.plan)
        plans += parts
        origins += [block] * len(parts)
    return plans, origins


def _merged(done: Sequence[Finished], _: ChainSpec) -> tuple[list[BlockPlan], Sequence[Finished]]:
    """One block for each pair of neighbours, from the first on; a last single block stays."""
    sized = [b for b in done if b.plan.size is not None]
    plans: list[BlockPlan] = []
    origins: list[Finished] = []
    for k in range(0, len(sized), 2):
        sizes = [b.plan.size for b in sized[k : k + 2] if b.plan.size is not None]
        plans.append(BlockPlan(sum(sizes)))
        origins.append(sized[k])
    free = [b for b in done if b.plan.size is None]
    return [*plans, *(b.plan for b in free)], [*origins, *free]
