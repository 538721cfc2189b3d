"""A kind of model that the package does not know: a table of affine maps, one for each block.

It is trained, sampled, evaluated, verified and reported by the package as it is.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

import monge
from monge import cli
from monge.components import FAMILIES, Component, build
from monge.couplings import Coupling, Independent
from monge.errors import UserError
from monge.fitting.job import Job
from monge.fitting.train import fit_learned, train
from monge.flows import Density, Walk, standard_normal_log_density
from monge.learned import Learned, Program, Settings
from monge.learned.modules import Velocity
from monge.objectives.base import Batch, Loss, Objective
from monge.objectives.flow_matching import FlowMatching
from monge.paths import Linear
from monge.runs.layout import VERIFY
from monge.runs.restore import build_network
from monge.runs.run import Run
from monge.runs.spec import TrainSpec
from monge.system.files import write_atomic
from monge.targets.gaussian import Gaussian
from monge.tensors import stream
from monge.times import Grid, Uniform
from monge.types import Cond, Latent, State, Time, VelocityField
from monge.verification.verify import verify_learned


class AffineTable(nn.Module):
    """Block k moves x at time k/K by (A_k x + b_k)/K, along a straight line."""

    def __init__(self, dim: int, blocks: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(blocks, dim, dim))
        self.b = nn.Parameter(torch.zeros(blocks, dim))

    def rate(self, k: int, x: State) -> State:
        """The velocity in block k of what is at x where it begins."""
        return x @ self.a[k].T + self.b[k]

    def start(self, k: int, x: State, part: float) -> State:
        """Where x, the part of block k already behind it, was where the block begins."""
        matrix = torch.eye(x.shape[1]).to(x) + part / len(self.a) * self.a[k].to(x)
        return torch.linalg.solve(matrix, (x - part / len(self.a) * self.b[k]).T).T

    def forward(self, x: State, t: Time, cond: Cond = None) -> State:
        if isinstance(t, Tensor) and t.ndim:
            rows = [self(x[i : i + 1], float(u), None) for i, u in enumerate(t)]
            return torch.cat(rows)
        k = min(int(float(t) * len(self.a) + 1e-9), len(self.a) - 1)
        return self.rate(k, self.start(k, x, float(t) * len(self.a) - k))


@dataclass(frozen=True, repr=False)
class AffineTableSpec(Component):
    blocks: int = 8

    name = "affine_table"

    def build(self, shape: Sequence[int], *_: Any) -> nn.Module:
        return AffineTable(math.prod(shape), self.blocks)


@dataclass(frozen=True)
class AffineWalk:
    """The flow of a table of affine maps, block by block."""

    table: AffineTable
    grid: Grid

    domain = (0.0, 1.0)
    order = 0
    name = "blocks"
    label = "affine blocks"
    unit = "blocks"
    error = "map"
    against = "blocks and the flow of their velocity, solved finely, from the same noise"

    @property
    def knots(self) -> tuple[float, ...]:
        n = len(self.table.a)
        return tuple(k / n for k in range(n + 1))

    @property
    def field(self) -> VelocityField:
        return self.table

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        s, t, n = float(s), float(t), len(self.table.a)
        for k in range(n):
            lo, hi = max(s, k / n), min(t, (k + 1) / n)
            if lo < hi:
                start = self.table.start(k, x, n * lo - k)
                x = start + (hi - k / n) * self.table.rate(k, start)
        return x

    def states(self, x: State, times: Sequence[float], cond: Cond = None) -> Iterator[State]:
        return (self(x, 0.0, t, cond) for t in times)

    def jumps(self, counts: Sequence[int]) -> list[Walk]:
        return []


@dataclass(frozen=True)
class AffineBlocks(Learned):
    """What the objective below trains."""

    network: AffineTable
    path: Any = dataclasses.field(default_factory=Linear)

    title = "table of affine maps"
    summary = "A table of affine maps carries noise to the law of the latents."
    cheapest = "blocks"
    default_steps = 8
    fixed_steps = True

    @classmethod
    def objective(
        cls, settings: Settings, matching: FlowMatching, teacher: Learned | None
    ) -> Objective:
        return AffineRegression(matching)

    @classmethod
    def restored(
        cls,
        network: nn.Module,
        settings: Settings,
        facts: Mapping[str, Any],
        conditional: bool,
        teacher: Callable[[], Learned] | None,
    ) -> AffineBlocks:
        assert isinstance(network, AffineTable)
        return cls(network, build("path", settings.path))

    @property
    def field(self) -> VelocityField:
        return self.network

    def velocity(self, guidance: float | None = None) -> VelocityField:
        return self.network

    @classmethod
    def sampling(cls, settings: Settings) -> tuple[str, float]:
        return "blocks", 1.0

    def flow(
        self,
        steps: int | None = None,
        solver: str | None = None,
        grid: str | None = None,
        guidance: float | None = None,
    ) -> AffineWalk:
        if steps not in (None, len(self.network.a)):
            raise UserError(f"this table has {len(self.network.a)} blocks: leave out steps")
        return AffineWalk(self.network, Uniform(len(self.network.a)))

    def evaluations(self, flow: Walk, rows: int) -> int:
        return rows * len(self.network.a)

    def log_density(
        self, flow: Walk, z: Latent, cond: Cond, probes: int | None, seed: int, first: int
    ) -> Density:
        n, dim = len(self.network.a), z.shape[1]
        value = z.new_zeros(len(z))
        for k in reversed(range(n)):
            value = value - torch.linalg.slogdet(torch.eye(dim) + self.network.a[k] / n)[1]
            z = self.network.start(k, z, 1.0)
        return Density(value + standard_normal_log_density(z), torch.zeros(len(z)), "latent")

    def program(self) -> Program:
        return Program(
            lambda names: Velocity(self.network, self.path, "velocity", names),
            "velocity of affine blocks",
            "blocks.pt2",
            ("t",),
            (0.0, 1.0),
        )


@dataclass(frozen=True)
class AffineRegression(Objective):
    """Each block regresses the velocity of straight lines where it begins."""

    matching: FlowMatching
    coupling: Coupling = dataclasses.field(default_factory=Independent)

    learns = AffineBlocks

    def draw(self, batch: Batch, rng: torch.Generator, step: int = 0) -> Batch:
        return self.matching.draw(batch, rng)

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        assert isinstance(network, AffineTable)
        x0, x1, n = batch["x0"], batch["x1"], len(network.a)
        errors = [
            (network.rate(k, torch.lerp(x0, x1, k / n)) - (x1 - x0)).square().mean(1)
            for k in range(n)
        ]
        return Loss(torch.stack(errors).mean(0))


@dataclass(frozen=True, repr=False)
class AffineBlocksSpec(Component):
    name = "affine_blocks"
    learns: ClassVar[type] = AffineBlocks
    teacher: ClassVar[bool] = False


class SolvedBlocks(AffineBlocks):
    """The same blocks, fitted and verified by procedures of their own."""

    @classmethod
    def objective(
        cls, settings: Settings, matching: FlowMatching, teacher: Learned | None
    ) -> Objective:
        return SolvedRegression(matching)

    def without_budget(self) -> str | None:
        return "solved blocks are verified by their residuals"


class SolvedRegression(AffineRegression):
    learns = SolvedBlocks


@dataclass(frozen=True, repr=False)
class SolvedBlocksSpec(Component):
    name = "solved_blocks"
    learns: ClassVar[type] = SolvedBlocks
    teacher: ClassVar[bool] = False


def solve(objective: SolvedRegression, job: Job) -> None:
    """Each block by least squares on all latents, without a step of training."""
    table = build_network(job.spec, job.shape, job.facts)
    assert isinstance(table, AffineTable)
    x1 = job.latents.rows(torch.arange(len(job.latents))).mean
    x0 = torch.randn(x1.shape, generator=stream(job.spec.seed, "solved"))
    with torch.no_grad():
        for k in range(len(table.a)):
            start = torch.lerp(x0, x1, k / len(table.a))
            design = torch.cat([start, torch.ones(len(x1), 1)], 1)
            found = torch.linalg.lstsq(design, x1 - x0).solution
            table.a[k], table.b[k] = found[:-1].T, found[-1]
    write_atomic(job.folder / "ema.safetensors", save(table.state_dict()))


def residuals(learned: SolvedBlocks, run: Run, n: int | None = None, **how: Any) -> dict[str, Any]:
    z = run.autoencoder.encode(how["data"].heldout[:n]).mean
    return {
        "residual": float(z.square().mean()),
        "violations": [],
        "blocks": len(learned.network.a),
    }


fit_learned.register(SolvedRegression, solve)
verify_learned.register(SolvedBlocks, residuals)

LAW = "target:gaussian:dim=2"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES["objective"], "affine_blocks", f"{__name__}:AffineBlocksSpec")
        patch.setitem(FAMILIES["network"], "affine_table", f"{__name__}:AffineTableSpec")
        spec = TrainSpec(
            data=LAW,
            objective="affine_blocks",
            network="affine_table",
            steps=400,
            lr=0.05,
            batch=512,
            device="cpu",
        )
        yield train(spec, out=tmp_path_factory.mktemp("third") / "run")


def test_it_is_trained_to_what_eight_steps_of_a_gaussian_leave(run: Run) -> None:
    z = run.sample(4000).z
    data = run.data()
    assert isinstance(data.target, Gaussian)
    law = run.autoencoder.encode(data.train[:]).mean
    variances, axes = torch.linalg.eigh(law.T.cov())
    left = torch.ones(2)
    for t in torch.arange(8) / 8:  # the optimal affine map of a block, along a principal axis
        rate = (t * variances - (1 - t)) / ((1 - t) ** 2 + t**2 * variances)
        left = left * (1 + rate / 8)
    expected = axes @ torch.diag(left**2) @ axes.T
    assert (z.mean(0) - law.mean(0)).abs().max() < 0.06
    assert (z.T.cov() - expected).abs().max() < 0.06


def test_its_density_is_that_of_its_maps(run: Run) -> None:
    drawn = run.sample(200).x
    value = run.log_density(drawn).value
    z = run.autoencoder.encode(drawn).mean
    a = run.flow()
    moved = torch.stack([a(torch.eye(2)[None, k], 0.0, 1.0)[0] for k in range(2)])
    shift = a(torch.zeros(1, 2), 0.0, 1.0)[0]
    law = torch.distributions.MultivariateNormal(shift, (moved - shift).T @ (moved - shift))
    expected = law.log_prob(z) - (run.autoencoder.log_abs_det or 0.0)
    torch.testing.assert_close(value, expected, atol=1e-3, rtol=1e-3)


def test_it_is_evaluated_verified_and_reported(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    found = monge.evaluate(run, 200)
    assert "KL(target | run)" in {row.name for row in found.table}
    report = monge.verify(run, 100, quick=True, verbose=False)
    assert report["sampling"]["solver"] == "blocks" and report["truth_known"]
    terms = {term["name"]: term for term in report["terms"]}
    assert terms["map"]["setting"] == "affine blocks, 8 blocks"
    # RK4 across the edges of blocks errs by as much; eight blocks of a Gaussian by more.
    assert terms["map"]["value"] < 0.03 < terms["velocity"]["value"] < 1.0
    page = (run.folder / "report.html").read_text()
    assert "A table of affine maps, trained on" in page and "affine blocks" in page
    assert AffineBlocks.summary in (run.folder / "README.md").read_text()
    assert cli.main(["info", str(run.folder)]) == 0
    assert "blocks" in capsys.readouterr().out


def test_the_command_line_takes_it(run: Run, tmp_path: Path) -> None:
    words = ["sample", str(run.folder), "-n", "20", "--out", str(tmp_path / "drawn")]
    assert cli.main(words) == 0 and (tmp_path / "drawn" / "samples.csv").exists()


def test_what_it_cannot_do_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sample", str(run.folder), "--steps", "3"]) == 2
    assert "this table has 8 blocks" in capsys.readouterr().err
    assert cli.main(["export", str(run.folder), "--format", "diffusers"]) == 2


def test_a_kind_brings_its_own_fit_and_its_own_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(FAMILIES["objective"], "solved_blocks", f"{__name__}:SolvedBlocksSpec")
    monkeypatch.setitem(FAMILIES["network"], "affine_table", f"{__name__}:AffineTableSpec")
    spec = TrainSpec(data=LAW, objective="solved_blocks", network="affine_table", device="cpu")
    run = train(spec, out=tmp_path / "run")
    z, law = run.sample(4000).z, run.autoencoder.encode(run.data().train[:]).mean
    assert (z.mean(0) - law.mean(0)).abs().max() < 0.06
    report = monge.verify(run, 50, verbose=False)
    assert report["blocks"] == 8 and 0.5 < report["residual"] < 2.0
    assert json.loads((run.folder / VERIFY).read_text()) == report
    assert cli.main(["verify", str(run.folder), "--fail-above", "1"]) == 2
    assert "verified by their residuals" in capsys.readouterr().err
