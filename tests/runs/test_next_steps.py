"""Advice after an evaluation: the right step for each planted finding, as a command that parses."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tyro

from monge.learned import kind_of
from monge.metrics.columns import Columns
from monge.metrics.evaluate import TRAINING_SET, TableOf, evaluate
from monge.metrics.table import Table
from monge.report.next_steps import command_of_advice, next_steps
from monge.runs.spec import TrainSpec
from monge.tensors import stream
from monge.verbs.evaluate import Evaluate
from monge.verbs.train import Train
from monge.verbs.verify import Verify

VERBS: dict[str, Any] = {"train": Train, "evaluate": Evaluate, "verify": Verify}


def run_in(folder: Path, **spec: Any) -> Any:
    folder.mkdir(exist_ok=True)
    (folder / "cost.json").write_text(json.dumps({"steps": 500}))
    made = TrainSpec(data="rows.csv", **spec)
    return SimpleNamespace(folder=folder, spec=made, learned=kind_of(made.objective))


def parsed(command: str) -> Any:
    """The arguments of a command, read as the command line reads them."""
    monge, verb, *words = shlex.split(command)
    assert monge == "monge"
    return tyro.cli(VERBS[verb], args=words)


def normals(n: int, key: str) -> torch.Tensor:
    return torch.randn(n, 2, generator=stream(0, key), dtype=torch.float64)


@pytest.fixture(scope="module")
def tables() -> dict[str, tuple[Table, TableOf]]:
    train, real = normals(300, "t"), normals(100, "r")
    train[:, 1], real[:, 1] = train[:, 1].round(), real[:, 1].round()
    good = normals(150, "g")
    good[:, 1] = good[:, 1].round()
    cases = {"good": good, "copies": train[:150], "smeared": normals(150, "s"), "far": good + 1.0}
    found = {}
    for name, x in cases.items():
        beside = {"gaussian": normals(150, "b")}
        plain = {**beside, TRAINING_SET: train}
        rows = TableOf(Columns(("a", "k"), (False, False)), x, train, real, plain)
        found[name] = evaluate(x, train, real, baselines=beside, table=rows).table, rows
    return found


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("copies", ["--steps", "250", "--out", "shorter"]),
        ("smeared", ["--categorical", "k", "--out", "categories"]),
        ("far", ["--steps", "1000"]),
        ("good", ["-n", "600"]),
    ],
)
def test_the_first_step_fits_what_was_found(tables, tmp_path, case, expected) -> None:
    run = run_in(tmp_path / "a run")
    steps = next_steps(run, *tables[case][:1], 150, tables[case][1])
    assert 1 <= len(steps) <= 3
    first = steps[0][1] if case != "far" else " ".join(command for _, command in steps)
    assert all(word in first for word in expected), steps
    for why, command in steps:
        assert why and parsed(command)
        assert str(run.folder) in " ".join(shlex.split(command))


def planted(n: int, key: str, zeros: float, noise: float = 0.0) -> torch.Tensor:
    """A normal number, and a positive one that is 0 in a part of the rows."""
    x = normals(n, key)
    x[:, 1] = x[:, 1].exp() * (torch.rand(n, generator=stream(1, key)) >= zeros)
    x[:, 1] += noise * normals(n, key + "noise")[:, 0]
    return x


@pytest.mark.parametrize(
    ("zeros", "samples", "said"),
    [
        (0.5, planted(300, "lost", 0.5, 0.1), "lose the value 0 (in 5"),
        (0.0, planted(300, "beyond", 0.0, 1.5), "leave the range of column 'claim'"),
        (0.5, planted(300, "honest", 0.5), ""),
    ],
    ids=["lost", "beyond", "honest"],
)
def test_lost_values_and_lost_ranges_are_named_with_the_marginals_that_keep_them(
    tmp_path, zeros: float, samples: torch.Tensor, said: str
) -> None:
    train, real = planted(900, "train", zeros), planted(300, "real", zeros)
    plain = {TRAINING_SET: train}
    rows = TableOf(Columns(("a", "claim"), (False, False)), samples, train, real, plain)
    table = evaluate(samples, train, real, table=rows).table
    why, command = next_steps(run_in(tmp_path / "run"), table, 300, rows)[0]
    assert ("--marginals auto" in command) == bool(said)
    assert said in why and parsed(command)
    bent = next_steps(run_in(tmp_path / "run", marginals="auto"), table, 300, rows)
    assert not any("--marginals" in command for _, command in bent)


@pytest.mark.parametrize(
    ("term", "change", "expected"),
    [
        ("discretisation", "--solver heun --steps 40", "monge evaluate"),
        ("velocity", "--steps 900", "monge train"),
        ("reconstruction", "--autoencoder pca:dim=8 --network auto", "-changed"),
        ("source", None, "--path linear"),
        ("velocity", None, "--steps 1000"),
        ("guidance", None, "monge evaluate"),
    ],
)
def test_advice_always_has_a_command(tmp_path, term, change, expected) -> None:
    run = run_in(tmp_path / "run")
    command = command_of_advice(run, {"term": term, "change": change})
    assert expected in command and parsed(command)
    assert all(word in command for word in (change or "").split())
