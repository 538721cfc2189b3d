"""Runs that are conditioned on any columns: every verb over them, resuming, and refusals."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from every_verb import DOORS, ROWS, SHORT, VERBS, Kind, World, act, refusal
from safetensors.torch import load_file

import monge
from monge.cli import main
from monge.errors import UserError
from monge.fitting import map_errors
from monge.runs.run import Run
from monge.sampling.generator import Generator

ANY = Kind("table", "any", "flow")


class Conditioned(World):
    """The sources of `World`, read for a run of any columns."""

    def reading(self, kind: Kind) -> dict[str, str]:
        return {"conditional": "any"} if kind.given == "any" else super().reading(kind)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return Conditioned(tmp_path_factory.mktemp("any"))


CELLS = [
    (verb, door)
    for verb in VERBS
    for door in DOORS
    if getattr(VERBS[verb], door) is not None and verb != "autoencoder"  # it has no such run
]
COSTLY = {"evaluate", "verify", "compare", "export pt2"}


def expected(verb: str, door: str) -> str | None:
    if verb == "distil":
        return "was trained with --conditional any, which no map or straighter flow learns yet"
    return refusal(ANY, verb, door)


def check(world: World, verb: str, door: str, out: Path, capsys: pytest.CaptureFixture) -> None:
    refused = expected(verb, door)
    try:
        found = act(world, (ANY, verb, door), out / "out")
    except UserError as error:
        assert refused is not None and refused in str(error)
        return
    shown = capsys.readouterr().err
    if door == "command":
        assert found == (0 if refused is None else 2), shown
        assert "Traceback" not in shown and (refused or "") in shown
    else:
        assert refused is None


@pytest.mark.parametrize(
    ("verb", "door"), [c for c in CELLS if c[0] not in COSTLY], ids=lambda c: str(c)
)
def test_every_quick_verb(world, verb, door, tmp_path, capsys) -> None:
    check(world, verb, door, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "door"), [c for c in CELLS if c[0] in COSTLY], ids=lambda c: str(c)
)
def test_every_costly_verb(world, verb, door, tmp_path, capsys, monkeypatch) -> None:
    few = inspect.unwrap(map_errors.map_errors)
    monkeypatch.setattr(few, "__defaults__", (None, 20, 0, None, 2))
    check(world, verb, door, tmp_path, capsys)


def test_it_is_sampled_given_columns_and_imputed(world: World, tmp_path: Path) -> None:
    run = world.run(ANY)
    home, out = str(run.folder), tmp_path / "out"
    assert main(["sample", home, "-n", "5", "--condition", "a=0.5", "--out", str(out)]) == 0
    lines = (out / "samples.csv").read_text().splitlines()
    assert lines[0] == "a,b,c" and all(line.startswith("0.5,") for line in lines[1:])
    holes = tmp_path / "holes.csv"
    holes.write_text("c,a\n1.50,\n,0.25\n")
    assert main(["impute", home, str(holes), "--out", str(tmp_path / "filled.csv")]) == 0
    header, first, second = (tmp_path / "filled.csv").read_text().splitlines()
    assert header == "c,a" and first.startswith("1.50,") and second.endswith(",0.25")
    found = run.impute(pa.table({"c": [1.5, None], "a": [None, 0.25]}))
    assert [float(first[5:]), float(second[:-5])] == pytest.approx(
        [found["a"][0].as_py(), found["c"][1].as_py()], rel=1e-6
    )
    before = (tmp_path / "filled.csv").read_bytes()
    assert main(["impute", home, str(holes), "--out", str(tmp_path / "filled.csv")]) == 2
    assert (tmp_path / "filled.csv").read_bytes() == before
    assert main(["impute", home, str(holes)]) == 0
    assert (run.folder / "imputed" / "holes.csv").read_bytes() == before


@pytest.mark.parametrize(
    "flag", [pytest.param("--trajectory", marks=pytest.mark.slow), "--format=parquet"]
)
def test_other_doors_of_sampling_take_columns(world: World, tmp_path: Path, flag: str) -> None:
    words = ["sample", str(world.run(ANY).folder), "-n", "4", "--condition", "b=1", flag]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0


def test_a_run_without_the_flag_names_it(world: World, capsys: pytest.CaptureFixture) -> None:
    home = str(world.run(Kind("table", "none", "flow")).folder)
    assert main(["sample", home, "--condition", "a=1"]) == 2
    assert "--conditional any" in capsys.readouterr().err
    assert main(["impute", home, "holes.csv"]) == 2
    assert "--conditional any" in capsys.readouterr().err


def test_the_exported_program_takes_known_columns(world: World, tmp_path: Path) -> None:
    path = world.run(ANY).export(out=tmp_path / "any.pt2")
    program = torch.export.load(path).module()
    x, known = torch.randn(3, 3), torch.full((3, 3), torch.nan)
    known[:, 0] = 0.5
    found = program(x, torch.full((3,), 0.25), known)
    ours = world.run(ANY).field(x, torch.full((3,), 0.25), {"known": known})
    assert torch.allclose(found, ours, atol=1e-6) and bool((found[:, 0] == 0).all())


def test_a_stopped_run_goes_on_to_the_same_weights(world: World, tmp_path: Path) -> None:
    settings = {**SHORT, **ROWS, "conditional": "any", "schedule": "constant", "save_every": 1}
    source = world.source(ANY)
    for out, steps in (("whole", 3), ("parts", 1), ("parts", 3)):
        made = {**settings, "steps": steps}
        monge.train(source, out=tmp_path / out, verbose=False, **made)  # type: ignore[arg-type]
    whole, parts = (load_file(tmp_path / n / "ema.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert all(name.startswith("net.") for name in whole)


REFUSED = [
    ({"objective": "meanflow"}, "objective flow_matching alone"),
    ({"objective": "jko"}, "objective flow_matching alone"),
    ({"output": "data"}, "needs --output velocity, not data"),
    ({"coupling": "ot"}, "needs --coupling independent, not ot"),
    ({"autoencoder": "pca:dim=2"}, "needs --autoencoder identity, not pca:dim=2"),
    ({"network": "transformer"}, "needs --network mlp, not transformer"),
    ({"label_column": "kind"}, "leave out --label-column"),
    ({"condition_columns": "a"}, "leave out --label-column and --condition-columns"),
    ({"columns": "a"}, "needs at least two columns that vary, not 1"),
]


@pytest.mark.parametrize(("changed", "message"), REFUSED, ids=lambda x: str(x)[:30])
def test_settings_that_do_not_go_together(
    world: World, tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    source = world.source(Kind("table", "labels", "flow"))
    settings = {**SHORT, **ROWS, "conditional": "any", **changed}
    with pytest.raises(UserError, match=message):
        monge.train(source, out=tmp_path / "run", verbose=False, **settings)  # type: ignore
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("source", ["digits", "target:gaussian:dim=2"])
def test_sources_without_columns_are_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(UserError, match="is for tables with named columns"):
        monge.train(source, conditional="any", steps=1, out=tmp_path / "r", verbose=False)


def test_a_run_loaded_again_is_the_same(world: World) -> None:
    run = world.run(ANY)
    again = Run.load(run.folder, "cpu")
    ours, theirs = (r.sample(4, condition={"a": 0.5}).x for r in (run, again))
    assert torch.equal(ours, theirs)
    other = dataclasses.replace(run.spec, conditional="no")
    assert other.digest() != run.spec.digest()
    bare = Generator(run.autoencoder, run.learned, facts=run.facts, codec=run.codec)
    assert torch.equal(bare.sample(4, condition={"a": 0.5}).x, ours)
