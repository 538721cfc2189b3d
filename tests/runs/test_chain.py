"""Chains as runs: fitted, killed and resumed, sampled, verified, refined, distilled."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from monge import cli
from monge.errors import UserError
from monge.evaluation.anytime import anytime_curve, text
from monge.export.run import export_run
from monge.fitting.distil import distil
from monge.fitting.train import train
from monge.flows.density import standard_normal_log_density
from monge.learned.chain import LearnedChain
from monge.objectives.flow_map import between
from monge.objectives.jko import JKO
from monge.paths import Linear
from monge.report.report import write_report
from monge.runs.run import Run
from monge.runs.spec import TrainSpec
from monge.targets.gaussian import Gaussian
from monge.tensors import stream
from monge.verification.chain_measures import overstated

LAW = "target:gaussian:dim=2,condition=4"
NETWORK = "mlp:width=24,depth=1,time_scale=20"
SMALL = {"data": LAW, "network": NETWORK, "batch": 128, "device": "cpu", "warmup": 5}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    spec = TrainSpec(**SMALL, objective="jko:blocks=2,gamma=1", steps=150, lr=0.01)
    return train(spec, out=tmp_path_factory.mktemp("chain") / "run")


def chain_of(run: Run) -> LearnedChain:
    assert isinstance(run.learned, LearnedChain)
    return run.learned


def test_the_blocks_follow_the_exact_steps(run: Run) -> None:
    assert cli.main(["verify", str(run.folder), "-n", "4000"]) == 0
    report = json.loads((run.folder / "evaluation" / "verify.json").read_text())
    exact, before = report["exact_kl"], report["kl_before"]["value"]
    assert report["truth_known"] and not report["violations"]
    assert len(exact) == 3 and exact[0] < before / 4 and exact[1] < exact[0] / 4
    for block, kl in zip(report["blocks"], exact, strict=True):
        room = 0.05 * kl + 0.01 + 3 * block["kl"]["stderr"]
        assert block["kl"]["value"] == pytest.approx(kl, abs=room)
    for block in report["blocks"][:2]:  # the identities of an exact step
        assert block["mean"]["value"] < 0.03 + 3 * block["mean"]["stderr"]
        assert abs(block["dilation"]["value"]) < 0.03 + 3 * block["dilation"]["stderr"]
        assert 0 < block["residual"]["value"] < 0.3
        parts = sum(block[name]["value"] for name in ("energy", "volume", "transport"))
        assert block["descent"]["value"] < 0 and math.isfinite(parts)
    assert report["blocks"][2]["mean"] is None  # a free block
    assert report["round_trip"] < 1e-3
    ways = {(w["solver"], w["steps"]): w for w in report["solvers"]}
    own = next(w for w in report["solvers"] if w["own"])
    assert (own["solver"], own["steps"]) == ("rk4", 3)
    assert own["value"] == pytest.approx(ways["dopri5", None]["value"], abs=0.01)


def test_its_samples_and_densities_are_those_of_the_data(run: Run) -> None:
    target = run.data().target
    assert isinstance(target, Gaussian)
    drawn = run.sample(4000).x.double()
    assert (drawn.mean(0) - target.mean).abs().max() < 0.12
    assert (drawn.T.cov() - target.covariance).abs().max() < 0.2
    x = run.data().heldout[:100]
    exact = target.at(Linear()).log_density(x.double(), 1.0)
    assert (run.log_density(x).value.double() - exact).abs().mean() < 0.08


def test_every_prefix_is_a_density(run: Run) -> None:
    chain = chain_of(run)
    x = run.data().heldout[:200]
    z = run.autoencoder.encode(x).mean
    one = chain.first(1).flow().log_density(z).value
    y, change = next(iter(chain.flow().pushed(z)))
    torch.testing.assert_close(one, standard_normal_log_density(y) + change)
    assert len(chain.first(2).flow().knots) == 2 * 3 + 1
    with pytest.raises(UserError, match="has 3 blocks"):
        chain.first(4)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-7, 7, 141)] * 2, indexing="ij"), -1)
    density = chain.first(1).flow().log_density(grid.reshape(-1, 2)).value.exp()
    assert float(density.detach().sum()) * 0.1**2 == pytest.approx(1.0, abs=0.01)


def test_the_curve_of_the_prefixes(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = anytime_curve(run, [1, 3], 200)
    assert json.loads((run.folder / "evaluation" / "blocks.json").read_text()) == found
    assert text(found).count("NFE") == 2
    one, three = found["points"]
    assert (one["evaluations"], three["evaluations"]) == (12, 36)
    assert three["density"]["value"] > one["density"]["value"] + 0.01
    page = write_report(run.folder).read_text()
    assert "Every prefix is a model" in page and "Block by block" in page
    assert cli.main(["evaluate", str(run.folder), "-n", "200", "--blocks", "4"]) == 2
    assert "has 3 blocks" in capsys.readouterr().err


def spoilt(run: Run, out: Path, block: int, factor: float) -> Path:
    """A copy of a run with the output of one block's network multiplied."""
    shutil.copytree(run.folder, out)
    weights = load_file(out / "ema.safetensors")
    for name in ("weight", "bias"):
        weights[f"blocks.{block}.out.{name}"] *= factor
    save_file(weights, out / "ema.safetensors")
    return out


@pytest.mark.parametrize("factor", [-1.0, 3.0])
def test_a_spoilt_block_is_found(
    run: Run, tmp_path: Path, factor: float, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = spoilt(run, tmp_path / "spoilt", 0, factor)
    assert cli.main(["verify", str(folder), "-n", "1000"]) == 3
    assert "block 1 is worse than standing still" in capsys.readouterr().err


def test_a_density_of_the_steps_alone_is_found() -> None:
    def way(gap: float, own: bool) -> dict[str, object]:
        return {"own": own, "steps": 3, "above_adaptive": {"value": gap, "stderr": 0.01}}

    assert overstated([way(0.04, True), way(3.0, False), way(-2.0, True)]) == []
    (found,) = overstated([way(0.5, True)])
    assert "0.5 ± 0.01 nats above" in found and "more steps a block" in found


def test_a_killed_chain_goes_on_to_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TrainSpec(
        **SMALL, objective="jko:blocks=1,refine=1", steps=12, save_every=4, log_every=4
    )
    whole = train(spec, out=tmp_path / "whole")
    loss, left = JKO.loss, [0]

    def killed(self, network, batch):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return loss(self, network, batch)

    monkeypatch.setattr(JKO, "loss", killed)
    for calls in (9, 20, 7, 25):  # in several blocks, of both rounds
        left[0] = calls
        with pytest.raises(KeyboardInterrupt):
            train(spec, out=tmp_path / "killed")
        if calls == 20:  # finished blocks are a chain already
            assert len(chain_of(Run.load(tmp_path / "killed")).plans) >= 1
    left[0] = 10**6
    resumed = train(spec, out=tmp_path / "killed")
    files = [run.folder / "ema.safetensors" for run in (whole, resumed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    facts = []
    for run in (whole, resumed):
        blocks = json.loads((run.folder / "chain.json").read_text())["blocks"]
        facts.append([{k: v for k, v in b.items() if not k.endswith("_s")} for b in blocks])
    assert facts[0] == facts[1] and len(facts[0]) == 3
    torch.testing.assert_close(whole.sample(20).x, resumed.sample(20).x, rtol=0, atol=0)


def test_refined_and_reparametrised_blocks(tmp_path: Path) -> None:
    text = "jko:blocks=2,gamma=1,reparametrise=1,eta=1,refine=1"
    spec = TrainSpec(**SMALL, objective=text, steps=25, lr=0.01)
    run = train(spec, out=tmp_path / "run")
    sizes = [plan.size for plan in chain_of(run).plans]
    assert len(sizes) == 5 and sizes[-1] is None
    assert sum(s for s in sizes if s is not None) == pytest.approx(2.0)
    assert sizes[0] == sizes[1] and sizes[2] == sizes[3] and sizes[0] < sizes[2]
    assert [plan.clock for plan in chain_of(run).plans[:2]] == [(0.5, 1.0), (0.0, 0.5)]
    first = [json.loads(p.read_text()) for p in sorted(run.folder.glob("blocks/*/block.json"))]
    assert len(first) == 3 + 3 + 5
    ways = [b["moved"] for b in first]
    assert max(ways[3:5]) / min(ways[3:5]) < max(ways[0:2]) / min(ways[0:2])


def test_merged_blocks(tmp_path: Path) -> None:
    spec = TrainSpec(**SMALL, objective="jko:blocks=3,gamma=0.5,merge=1", steps=8, lr=0.01)
    run = train(spec, out=tmp_path / "run")
    assert [plan.size for plan in chain_of(run).plans] == [1.0, 0.5, None]
    assert run.sample(50).x.isfinite().all()


def test_the_stopping_rule_ends_a_chain(tmp_path: Path) -> None:
    spec = TrainSpec(**SMALL, objective="jko:stop=1000", steps=2)
    plans = chain_of(train(spec, out=tmp_path / "run")).plans
    assert [plan.size for plan in plans] == [1.0, None]  # one step, then the free one


def test_residual_blocks_are_a_chain_too(tmp_path: Path) -> None:
    spec = TrainSpec(**SMALL, objective="jko:blocks=1,block=residual", steps=120, lr=0.01)
    run = train(spec, out=tmp_path / "run")
    target = run.data().target
    assert isinstance(target, Gaussian)
    x = run.data().heldout[:100]
    exact = target.at(Linear()).log_density(x.double(), 1.0)
    assert (run.log_density(x).value.double() - exact).abs().mean() < 0.15
    drawn = run.sample(2000).x.double()
    assert (drawn.mean(0) - target.mean).abs().max() < 0.25
    assert cli.main(["verify", str(run.folder), "--quick"]) == 0
    with pytest.raises(UserError, match="residual blocks are inverted by iterations"):
        export_run(run)
    with pytest.raises(UserError, match="no solver"):
        run.flow(solver="rk4")
    with pytest.raises(UserError, match="times 0 and 1 alone"):
        run.flow()(torch.zeros(1, 2), 0.0, 0.75)


def test_a_chain_is_distilled_along_its_own_states(run: Run, tmp_path: Path) -> None:
    fast = distil(run.folder, tmp_path / "fast", steps=120, lr=0.01)
    errors = json.loads((fast.folder / "map_error.json").read_text())["errors"]
    assert next(e for e in errors if e["steps"] == 1)["relative"] < 0.2
    states = torch.tensor([[[0.0], [1.0], [5.0]]])
    x, slope = between(states, torch.tensor([0.75]))
    assert (float(x), float(slope)) == (3.0, 8.0)
    assert float(between(states, torch.tensor([1.0]))[0]) == 5.0


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = torch.Generator().manual_seed(0)
    kind = torch.rand(300, generator=rng) < 0.4
    x = torch.randn(300, 2, generator=rng) * torch.tensor([0.3, 30.0])
    x = x + torch.where(kind[:, None], 2.0, -1.0) * torch.tensor([1.0, 100.0])
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "kind"])
        for row, up in zip(x.tolist(), kind.tolist(), strict=True):
            writer.writerow([f"{row[0]:.7f}", f"{row[1]:.7f}", "up" if up else "down"])
    return path


def test_labels_and_densities_of_a_table(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["chain", str(table), "--label-column", "kind", "--blocks", "2", "--steps", "150"]
    words += ["--objective", "local-flow-matching", "--network", NETWORK, "--lr", "0.01"]
    words += ["--batch", "128", "--out", str(out), "--warmup", "5"]
    assert cli.main(words) == 0
    assert "free" in capsys.readouterr().out
    run = Run.load(out)
    up, down = (run.sample(500, label=name).x for name in ("up", "down"))
    middle = (up.mean(0) + down.mean(0)) / 2
    assert (up > middle).all(1).double().mean() > 0.9
    assert (down < middle).all(1).double().mean() > 0.9
    assert cli.main(["density", str(out), str(table), "--out", str(tmp_path / "p.csv")]) == 0
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(r["row"]) for r in rows] == list(range(300))
    mean = sum(float(r["log_density"]) for r in rows) / 300
    # Given the label a Gaussian of deviations 0.3 and 30: entropy 1 + log(2 pi 0.3 30).
    assert mean == pytest.approx(-(1 + math.log(2 * math.pi * 9)), abs=0.4)
    assert all(float(r["stderr"]) == 0 and float(r["solver_change"]) < 0.2 for r in rows)
    assert cli.main(["density", str(out), str(table), "--out", str(tmp_path / "p.csv")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert cli.main(["verify", str(out), "--quick"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objective", "lagrangian"], "trains no chain"),
        (["--blocks", "many"], "auto or a number"),
        (["--time", "0.2"], "objective jko has no time"),
        (["--objective", "local-flow-matching", "--gamma", "1"], "has no gamma"),
        (["--network", "exact"], "network exact is not trained"),
        (["--path", "ou", "--objective", "local-flow-matching"], "does not begin at its source"),
        (["--solver", "dopri5"], "fixed steps"),
    ],
)
def test_what_makes_no_chain_is_refused(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert cli.main(["chain", LAW, *words, "--steps", "2", "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_what_a_chain_cannot_do_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(run.folder)
    for words, message in (
        (["sample", folder, "--steps", "4"], "a multiple of 3 steps"),
        (["sample", folder, "--guidance", "2"], "without guidance"),
        (["sample", folder, "--grid", "shifted:n=3,shift=2"], "equal steps"),
        (["verify", folder, "--steps", "6"], "leave out steps"),
        (["density", folder, "no-such-file.csv"], "no-such-file"),
    ):
        assert cli.main(words) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["sample", folder, "-n", "5", "--steps", "6", "--solver", "heun"]) == 0


def test_samples_are_drawn_after_each_block_and_a_failure_ends_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = sorted(p.name for p in (run.folder / "samples").glob("*.png"))
    assert pictures == ["blocks-01.png", "blocks-02.png", "blocks-03.png"]
    assert "Samples after 3 blocks." in (run.folder / "report.html").read_text()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no picture today")

    monkeypatch.setattr("monge.sampling.samples.Samples.grid_png", broken)
    said: list[str] = []
    spec = TrainSpec(**SMALL, objective="jko:blocks=1", steps=2)
    assert len(chain_of(train(spec, out=tmp_path / "run", say=said.append)).plans) == 2
    assert any("the samples of 1 blocks were not drawn" in line for line in said)


def test_a_chain_is_exported_as_one_program(run: Run) -> None:
    path, known = export_run(run)
    assert path.name == "chain.pt2" and known["largest_difference"] < 1e-5
    assert known["inputs"] == {"x": "float32 (B, 2)"} and "3 blocks" in known["program"]
    exported = torch.export.load(path).module()
    x0 = torch.randn(7, 2)
    torch.testing.assert_close(exported(x0), run.flow()(x0, 0.0, 1.0), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_data_on_a_line_needs_a_short_diffusion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = torch.randn(600, 1, generator=stream(0, "line")) * torch.tensor([[1.0, 0.0]])
    path = tmp_path / "line.csv"
    rows = "\n".join(f"{a:.6f},{a * 2:.6f}" for a in line[:, 0].tolist())
    path.write_text(f"a,b\n{rows}\n")
    given = {**SMALL, "data": str(path), "autoencoder": "identity"}
    spec = TrainSpec(**given, objective="jko:blocks=2,diffusion=0.05", steps=150, lr=0.01)
    run = train(spec, out=tmp_path / "run")
    assert cli.main(["verify", str(run.folder), "--quick"]) == 0
    assert "data diffused for a time of 0.05: W2 at most" in capsys.readouterr().out
    report = json.loads((run.folder / "evaluation" / "verify.json").read_text())
    # Of coordinates with variance 1: (1 - e^-g)^2 2 + (1 - e^-2g) 2.
    expected = math.sqrt(2 * (1 - math.exp(-0.05)) ** 2 + 2 * (1 - math.exp(-0.1)))
    assert report["diffusion"]["moved_at_most"] == pytest.approx(expected, rel=0.1)
    z = run.sample(2000).z
    across = (z[:, 0] - z[:, 1]) / math.sqrt(2)  # nothing before the diffusion
    assert float(across.std()) == pytest.approx(math.sqrt(1 - math.exp(-0.1)), rel=0.25)
