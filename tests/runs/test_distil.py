"""Flow maps as runs: distilled from any teacher, trained alone, sampled, evaluated, continued."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import monge
from monge.cli import main
from monge.components import FAMILIES, build, class_of
from monge.errors import UserError
from monge.evaluation.step_curve import parse_steps, step_curve
from monge.fitting.distil import distil, distil_spec
from monge.fitting.map_errors import map_errors as errors_of
from monge.fitting.train import train
from monge.flows import Composed, Integrated
from monge.learned import Draw
from monge.runs import map_errors
from monge.runs.layout import MAP_ERROR
from monge.runs.run import Run
from monge.tensors import noise
from monge.times import Uniform
from monge.verification.verify import verify_run

NAMES = [name for name in FAMILIES["objective"] if class_of("objective", name).learns == "flow map"]
TAUGHT = [name for name in NAMES if build("objective", name).teacher]
ALONE = [name for name in NAMES if name not in TAUGHT]


@pytest.fixture(scope="module")
def teacher(table_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The exact law in the network's seat: what is left is the map's own error."""
    spec = dataclasses.replace(table_run.spec, network="exact", autoencoder="identity")
    return train(spec, out=tmp_path_factory.mktemp("exact") / "run")


@pytest.fixture(scope="module")
def fast(teacher: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A map distilled from it, well enough to be told from none."""
    settings: dict[str, Any] = {
        "network": "mlp:width=64,depth=2,embed=32",
        "steps": 150,
        "batch": 128,
    }
    return distil(teacher.folder, tmp_path_factory.mktemp("fast") / "run", lr=3e-3, **settings)


def test_a_map_of_an_exact_teacher_learns(fast: Run) -> None:
    """After a few seconds less than a third of the squared displacement is left in one jump."""
    assert isinstance(fast.flow(), Composed)
    one = errors_of(fast, (1,), n=500)[0]
    assert one.relative < 1 / 3


def test_any_number_of_steps_from_one_map(fast: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for steps in (1, 2, 3, 8):
        samples = fast.sample(20, steps=steps)
        assert samples.info["solver"] == "map" and samples.info["steps"] == steps
        assert samples.info["evaluations_per_sample"] == steps
        assert bool(samples.x.isfinite().all())
    assert main(["sample", str(fast.folder), "--steps", "2", "-n", "20"]) == 0
    assert "expected error of 2 jumps against the teacher" in capsys.readouterr().out
    assert main(["info", str(fast.folder)]) == 0
    assert "lagrangian, pairs auto, teacher" in capsys.readouterr().out
    assert main(["sample", str(fast.folder), "--steps", "17", "-n", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["expected_error"] is None


def test_the_expected_error_between_measured_numbers_of_steps_lies_between(fast: Run) -> None:
    two, three, four = (map_errors.expected(fast.folder, Uniform(k)) for k in (2, 3, 4))
    assert two and three and four and three["between"] == [2, 4] and "between" not in two
    for name in ("rms", "relative"):
        low, high = sorted((two[name], four[name]))
        assert low < three[name] < high
    slope = math.log(four["rms"] / two["rms"]) / math.log(2)
    assert three["rms"] == pytest.approx(two["rms"] * 1.5**slope)
    assert "3 jumps (between the measured 2 and 4)" in map_errors.in_words(three)


@pytest.mark.parametrize("grid", ["uniform:n=4,stop=0.5", "shifted:n=4", "uniform:n=17"])
def test_no_error_is_told_for_a_walk_that_was_not_measured(grid: str, fast: Run) -> None:
    assert map_errors.expected(fast.folder, build("grid", grid)) is None


def test_the_velocity_of_a_map_is_integrated_on_request(fast: Run) -> None:
    flow = fast.flow(solver="heun", steps=4)
    assert isinstance(flow, Integrated)
    samples = fast.sample(20, solver="heun", steps=4)
    assert samples.info["solver"] == "heun" and samples.info["evaluations_per_sample"] == 8


@pytest.mark.parametrize("name", TAUGHT)
def test_every_objective_distils(name: str, table_run: Run, tmp_path: Path) -> None:
    run = distil(table_run.folder, tmp_path / "run", objective=name, steps=4, batch=16)
    # What a rule differentiates in is not what the teacher's fast embedding is of.
    anchor = ",anchor=end" if name in ("eulerian", "continuous-consistency") else ""
    assert run.learned.few_steps and run.spec.network.endswith(f"two_times=True{anchor}")
    kept = json.loads((run.folder / MAP_ERROR).read_text())
    steps = [1] if run.learned.pairs.only_to_data else [1, 2, 4, 8, 16]
    assert [e["steps"] for e in kept["errors"]] == steps
    assert bool(run.sample(16, steps=2).x.isfinite().all())


@pytest.mark.parametrize("name", ALONE)
def test_every_objective_trains_alone(name: str, table_run: Run, tmp_path: Path) -> None:
    spec = dataclasses.replace(table_run.spec, objective=name, steps=4, batch=16, sample_every=4)
    run = train(spec, out=tmp_path / "run")
    assert "two_times=True" in run.spec.network
    assert bool(run.sample(16, steps=2).x.isfinite().all())
    assert Run.load(run.folder).spec == run.spec
    assert run.sample(2).info["steps"] == 4  # a map's own grid
    # A map that jumps to the data alone is held against no velocity that it has not learned.
    assert (run.folder / MAP_ERROR).exists() == (name != "consistency-training")
    assert (run.folder / "best.json").exists() == (name != "consistency-training")


def test_a_velocity_that_was_not_learned_is_not_used(
    table_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = dataclasses.replace(table_run.spec, objective="consistency-training", steps=2, batch=16)
    run = train(spec, out=tmp_path / "run")
    for words in (
        ["sample", str(run.folder), "--solver=heun"],
        ["verify", str(run.folder), "--quick"],
        ["distil", str(run.folder), "--steps=2"],
    ):
        assert main(words) == 2
        assert "jump to the data, not a velocity" in capsys.readouterr().err
    with pytest.raises(UserError, match="a grid cannot stop"):
        run.sample(4, grid="uniform:n=2,stop=0.5")
    assert step_curve(run, [1, 2], 50)["points"]
    again = distil(run.folder, tmp_path / "reflow", objective="reflow", steps=2, batch=16)
    assert bool(again.sample(4).x.isfinite().all())


def test_a_map_may_be_distilled_again_at_its_own_guidance(table_run: Run, tmp_path: Path) -> None:
    first = distil(table_run.folder, tmp_path / "first", guidance="2", steps=2, batch=16)
    again = distil(first.folder, tmp_path / "again", steps=1, batch=16, lr=1e-9)
    assert again.sample(4).info["guidance"] == 2
    x, t = noise(0, 0, 8, (2,), "x"), torch.full((8,), 0.4)
    cond = {"label": torch.ones(8, dtype=torch.int64)}
    torch.testing.assert_close(again.learned.followed()(x, t, cond), first.field(x, t, cond))
    who = {p["who"]: p["evaluations"] for p in step_curve(again, [2], 50)["points"]}
    assert who["teacher"] == 2  # its guidance is inside: one evaluation a stage
    with pytest.raises(UserError, match="give one scale, or distil its teacher"):
        distil_spec(first.folder, guidance="1..3")


def test_another_network_starts_from_new_weights(table_run: Run, tmp_path: Path) -> None:
    said: list[str] = []
    network = "transformer:width=24,depth=1,heads=2"
    run = distil(
        table_run.folder, tmp_path / "run", network=network, steps=2, batch=16, say=said.append
    )
    assert bool(run.sample(4).x.isfinite().all())
    assert any(line.startswith("network: new weights") for line in said)


def test_verify_bounds_the_distance_to_the_guided_flow(table_run: Run, tmp_path: Path) -> None:
    run = distil(table_run.folder, tmp_path / "run", guidance="4", steps=5, batch=16)
    report = verify_run(run, 60, quick=True)
    facts = report["map"]
    assert facts["eulerian_bound"] >= math.sqrt(facts["squared_error"])
    assert facts["one_sided"] != max(report["lipschitz"]["rate"])


@pytest.mark.parametrize("output", ["data", "noise", "score"])
def test_a_teacher_may_predict_anything(output: Any, table_run: Run, tmp_path: Path) -> None:
    """The student starts as its teacher, on the teacher's domain."""
    spec = dataclasses.replace(table_run.spec, output=output, path="trigonometric")
    teacher = train(spec, out=tmp_path / "teacher")
    run = distil(teacher.folder, tmp_path / "run", steps=1, lr=1e-9)
    assert run.flow().domain == pytest.approx(teacher.flow().domain)
    x, t = noise(0, 0, 8, (2,), "x"), torch.full((8,), 0.4)
    torch.testing.assert_close(run.field(x, t), teacher.field(x, t), rtol=1e-4, atol=1e-5)
    assert run.final(run.flow()) == teacher.final(teacher.flow())
    assert bool(run.sample(8, steps=2).x.isfinite().all())


@pytest.mark.parametrize(
    "network", ["mlp:width=16,depth=1", "transformer:width=16,depth=1,heads=2"]
)
def test_a_teacher_may_have_dropout(network: str, table_run: Run, tmp_path: Path) -> None:
    """Which the two sides of a residual, and its derivative, go without."""
    spec = dataclasses.replace(table_run.spec, network=f"{network},dropout=0.2", steps=2)
    teacher = train(spec, out=tmp_path / "teacher")
    run = distil(teacher.folder, tmp_path / "run", steps=2, batch=16)
    assert "dropout=0.2" in run.spec.network and bool(run.sample(8, steps=2).x.isfinite().all())


def test_a_map_may_be_learned_in_float64(table_run: Run, tmp_path: Path) -> None:
    """Of a teacher in float32; its error is measured while training and after."""
    run = distil(table_run.folder, tmp_path / "run", steps=2, batch=16, precision="float64")
    saved = load_file(run.folder / "model.safetensors")
    assert {x.dtype for x in saved.values()} == {torch.float64}
    assert (run.folder / "best.json").exists() and (run.folder / "map_error.json").exists()
    assert bool(run.sample(8, steps=2).x.isfinite().all())


def test_the_map_has_the_latent_space_of_its_teacher(digits_run: Run, tmp_path: Path) -> None:
    run = distil(digits_run.folder, tmp_path / "run", steps=2, batch=8)
    ours, theirs = (
        load_file(r.folder / "autoencoder" / "autoencoder.safetensors") for r in (run, digits_run)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert len(run.sample(4, label="3")) == 4


def test_guidance_is_an_input(
    table_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = distil(table_run.folder, tmp_path / "run", guidance="1..3", steps=5, batch=16)
    low, high = (run.sample(16, label="1", guidance=w) for w in (1.0, 3.0))
    assert low.info["guidance"] == 1 and high.info["guidance"] == 3
    capsys.readouterr()
    assert main(["sample", str(run.folder), "--steps=2", "-n=4", "--guidance=2.5"]) == 0
    # Measured at both ends of the range: the nearer one is told.
    assert "% of the squared displacement, at guidance 3\n" in capsys.readouterr().out
    assert not torch.equal(low.x, high.x)
    with pytest.raises(
        UserError, match=r"trained with guidance 1 to 3, not 4: .*--guidance 1\.\.4"
    ):
        run.sample(16, guidance=4.0)
    followed = run.learned.followed(2.0)
    x, t = noise(0, 0, 8, (2,), "x"), torch.full((8,), 0.4)
    cond = {"label": torch.ones(8, dtype=torch.int64)}
    teacher = table_run.field
    null = {"label": torch.full((8,), -1)}
    expected = torch.lerp(teacher(x, t, null), teacher(x, t, cond), 2.0)
    torch.testing.assert_close(followed(x, t, cond), expected)
    fixed = distil(table_run.folder, tmp_path / "fixed", guidance="2", steps=2, batch=16)
    assert fixed.sample(4).info["guidance"] == 2
    with pytest.raises(UserError, match="trained with guidance 2, not 1"):
        fixed.sample(4, guidance=1.0)


def test_reflow_straightens_on_pairs_of_the_teacher(table_run: Run, tmp_path: Path) -> None:
    run = distil(table_run.folder, tmp_path / "run", objective="reflow", steps=5, batch=16)
    assert not run.learned.few_steps and isinstance(run.flow(), Integrated)
    assert run.sample(16, steps=1, solver="euler").info["evaluations_per_sample"] == 1


def test_consistency_models_jump_again_from_new_noise(table_run: Run, tmp_path: Path) -> None:
    run = distil(table_run.folder, tmp_path / "run", objective="consistency", steps=3, batch=16)
    flow = run.flow(steps=2)
    assert isinstance(flow, Composed)
    x, draw = noise(0, 0, 8, (2,), "x"), Draw(0, 0, 8, (2,))
    lo, hi = flow.domain
    cond = {"label": torch.zeros(8, dtype=torch.int64)}
    first = flow.map(x, lo, hi, cond)
    fresh = noise(0, 0, 8, (2,), "renoised", 0)
    middle = flow.knots[1]
    expected = flow.map(middle * first + (1 - middle) * fresh, middle, hi, cond)
    torch.testing.assert_close(run.learned.carried(flow, x, draw, cond), expected)


def test_the_same_command_goes_on(table_run: Run, tmp_path: Path) -> None:
    """Distilling twice with more steps continues; other settings are refused."""
    first = distil(table_run.folder, tmp_path / "run", steps=4, batch=16)
    again = distil(table_run.folder, tmp_path / "run", steps=8, batch=16)
    assert first.folder == again.folder
    with pytest.raises(UserError, match="holds a different run"):
        distil(table_run.folder, tmp_path / "run", objective="eulerian", steps=8, batch=16)


def test_quality_by_steps_shows_the_teacher_and_both_weights(
    table_run: Run, tmp_path: Path
) -> None:
    run = distil(table_run.folder, tmp_path / "run", steps=4, batch=16)
    best = run.folder / "best.json"
    kept = json.loads(best.read_text())
    found = step_curve(run, [1], 100)  # the best were the last
    assert kept["step"] == 4 and not any("best" in p["who"] for p in found["points"])
    best.write_text(json.dumps({**kept, "step": 2}))
    found = step_curve(run, [1, 2, 4], 100)
    who = [(p["who"], p["evaluations"]) for p in found["points"]]
    for name in ("map", "map, best weights", "teacher"):
        assert [(name, k) for k in (1, 2, 4)] == [w for w in who if w[0] == name]
    assert ("teacher as it is", 8) in who  # heun, 4 steps
    assert found["floor_std"]["energy"] > 0
    assert main(["evaluate", str(run.folder), "-n", "60", "--steps", "1,2"]) == 0
    assert "Few steps" in (run.folder / "report.html").read_text()
    assert parse_steps(None) == [] and parse_steps("4") == [4]


def test_the_likelihood_of_jumps_is_by_their_own_jacobian(fast: Run) -> None:
    """Never in silence; asked for, it is a density: it integrates to one over the data."""
    x = torch.zeros(4, 2)
    with pytest.raises(UserError, match="own Jacobian"):
        fast.log_density(x)
    assert bool(fast.log_density(x, solver="heun", steps=4).value.isfinite().all())
    drawn = fast.sample(2000, steps=2).x
    low, high = drawn.amin(0) - 1, drawn.amax(0) + 1
    lines = [torch.linspace(float(a), float(b), 81) for a, b in zip(low, high, strict=True)]
    grid = torch.cartesian_prod(*lines)
    cell = float(((high - low) / 80).prod())
    found = fast.log_density(grid, torch.zeros(len(grid)).long(), solver="map", steps=2)
    assert found.space == "data"
    assert float(found.value.exp().nansum()) * cell == pytest.approx(1, abs=0.02)
    with pytest.raises(UserError, match="leave out probes"):
        fast.log_density(x, solver="map", probes=4)


def test_jumps_with_new_noise_between_have_no_density(table_run: Run, tmp_path: Path) -> None:
    spec = dataclasses.replace(
        table_run.spec, objective="continuous-consistency-training", steps=2, batch=16
    )
    run = train(spec, out=tmp_path / "run")
    with pytest.raises(UserError, match="steps=1 has a density"):
        run.log_density(torch.zeros(4, 2), solver="map")
    assert run.log_density(torch.zeros(4, 2), solver="map", steps=1).value.shape == (4,)


def test_python_door(table_run: Run, tmp_path: Path) -> None:
    run = monge.distil(table_run, out=tmp_path / "run", steps=2, batch=16)
    assert run.spec.teacher == str(table_run.folder.resolve())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "self-lagrangian"}, "takes no teacher: monge train"),
        ({"objective": "lagrange"}, "lagrangian"),
        ({"guidance": "3..1"}, "a scale or a range as 1..3"),
        ({"guidance": "a"}, "a scale or a range as 1..3"),
        ({"objective": "reflow", "guidance": "1..3"}, "one guidance scale"),
    ],
)
def test_bad_settings(table_run: Run, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        distil_spec(table_run.folder, **settings)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["distil", "nowhere"], "no such run folder: nowhere"),
        (["train", "digits", "--objective", "lagrangian"], "needs a teacher: monge distil"),
        (["train", "digits", "--teacher-guidance", "2"], "is for distilling"),
        (
            ["train", "digits", "--objective=meanflow", "--teacher-guidance=2"],
            "is for distilling",
        ),
        (["train", "digits", "--objective", "reflow"], "needs a teacher: monge distil"),
        (["train", "digits", "--pairs", "triangle"], "has no pairs of times"),
        (["train", "digits", "--objective=meanflow", "--guidance=2"], "without a teacher"),
        (["train", "digits", "--objective", "reflow", "--dry-run"], "needs a teacher"),
        (["train", "digits", "--objective", "meanflow", "--pairs", "square"], "unknown pairs"),
    ],
)
def test_bad_commands(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_composed_jumps_compose(fast: Run) -> None:
    """On its grid a walk is its pieces; times per example walk as times for all do."""
    flow = fast.flow(steps=4)
    x = noise(0, 0, 6, (2,), "x")
    lo, hi = flow.domain
    middle = flow.knots[2]
    torch.testing.assert_close(flow(flow(x, lo, middle), middle, hi), flow(x, lo, hi))
    times = torch.tensor([lo, 0.2, middle, 0.3, hi, 0.5])
    ends = torch.tensor([hi, 0.7, lo, 0.3, 0.1, 0.6])
    each = flow(x, times, ends)
    for k in range(6):
        alone = flow(x[k : k + 1], float(times[k]), float(ends[k]))
        torch.testing.assert_close(each[k : k + 1], alone, rtol=1e-5, atol=1e-5)
    assert Composed(flow.map, Uniform(2)).domain == flow.domain


def test_the_best_of_a_map_without_a_teacher_has_learned_its_velocity(
    table_run: Run, tmp_path: Path
) -> None:
    """At the first look the map follows a poor velocity well; that is not the best."""
    spec = dataclasses.replace(
        table_run.spec, objective="self-lagrangian", steps=60, batch=64, sample_every=20, lr=1e-2
    )
    run = train(spec, out=tmp_path / "run")
    best = json.loads((run.folder / "best.json").read_text())
    assert best["step"] > 20 and best["score"] > 0.1
