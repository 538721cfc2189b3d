"""Every verb over every kind of run: the kinds, the verbs, and what each cell has to give.

A kind of run is a source, what its model is conditioned on, and whether it is a flow or a map. A
cell is a kind, a verb and a door, the command line or Python. It either succeeds, or refuses with
the sentence that `refusal` says.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

import monge
from monge.cli import main
from monge.errors import UserError
from monge.metrics.evaluate import Evaluation
from monge.runs.run import Run

N = 220
"""Examples of each source: enough for 40 held-out ones, which verify needs."""

IMAGES = {
    "autoencoder": "conv:down=1,channels=2,width=8,blocks=1",
    "autoencoder_steps": 1,
    "network": "mlp:width=16,depth=1",
    "flip": "no",
}
ROWS = {"network": "mlp:width=16,depth=1"}
SHORT = {"steps": 2, "batch": 8, "grid": "uniform:n=2", "threads": 1, "sample_every": 1000}

KINDS = [
    *itertools.product(("folder", "npz"), ("labels", "none")),
    *itertools.product(("table", "array"), ("labels", "conditions", "none")),
    *itertools.product(("law",), ("labels", "none")),
]
"""Images have no conditions, and no law of monge's has."""

MODELS = ("flow", "map")
DOORS = ("command", "python")


@dataclass(frozen=True)
class Kind:
    """A kind of run."""

    source: str
    given: str
    model: str

    def __str__(self) -> str:
        return f"{self.source}-{self.given}-{self.model}"

    @property
    def image(self) -> bool:
        return self.source in ("folder", "npz") or (self.source, self.given) == ("array", "labels")


class World:
    """The sources and the runs, made when they are needed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.runs: dict[Kind, Run] = {}
        rng = np.random.default_rng(0)
        self.label = np.arange(N) % 3
        level = 60.0 + 60 * self.label
        grey = rng.normal(level[:, None, None], 30, (N, 8, 8))
        self.pixels = np.clip(grey, 0, 255).astype(np.uint8)
        self.rows = rng.normal(size=(N, 3))

    def source(self, kind: Kind) -> Any:
        """What `monge.train` takes for a kind: a file by its name, or what is in memory."""
        made: dict[str, Callable[[str], Any]] = {
            "folder": self._folder,
            "npz": self._npz,
            "table": self._csv,
            "array": self._memory,
            "law": lambda given: f"target:{'mixture:modes=3' if given == 'labels' else 'gaussian'}",
        }
        return made[kind.source](kind.given)

    def _folder(self, given: str) -> str:
        home = self.home / f"photos-{given}"
        for i, (pixels, k) in enumerate(zip(self.pixels, self.label, strict=True)):
            place = home / "abc"[k] if given == "labels" else home
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{i:03d}.png")
        return str(home)

    def _npz(self, given: str) -> str:
        path = self.home / f"{given}.npz"
        labels = {"y": self.label} if given == "labels" else {}
        np.savez(path, **{"x": self.pixels, **labels})
        return str(path)

    @cached_property
    def columns(self) -> dict[str, Any]:
        names = dict(zip("abc", self.rows.T, strict=True))
        return {**names, "kind": np.array(list("uvw"))[self.label]}

    def _columns_of(self, given: str) -> dict[str, Any]:
        names = ("a", "b", "kind") if given == "labels" else ("a", "b", "c")
        return {name: self.columns[name] for name in names}

    def _csv(self, given: str) -> str:
        path, columns = self.home / f"{given}.csv", self._columns_of(given)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        return str(path)

    def _memory(self, given: str) -> Any:
        if given == "labels":
            return self.pixels.astype(np.float32) / 127.5 - 1
        if given == "conditions":
            return pa.table(self._columns_of(given))
        return self.rows.astype(np.float32)

    def data(self, kind: Kind) -> Any:
        """What Python's doors take as data=."""
        if kind.source != "array":
            return None
        labels = self.label if kind.given == "labels" else None
        return monge.read(self.source(kind), labels, **self.reading(kind))

    def reading(self, kind: Kind) -> dict[str, Any]:
        if kind.source == "table" and kind.given == "labels":
            return {"label_column": "kind"}
        return {"condition_columns": "c"} if kind.given == "conditions" else {}

    def run(self, kind: Kind) -> Run:
        """The trained run of a kind; a map is distilled from the flow."""
        if kind not in self.runs:
            out = self.home / "runs" / str(kind)
            if kind.model == "map":
                flow = self.run(Kind(kind.source, kind.given, "flow"))
                data = self.data(kind)
                made = monge.distil(flow, data=data, steps=2, out=out, verbose=False)
            else:
                labels = self.label if (kind.source, kind.given) == ("array", "labels") else None
                settings = {**SHORT, **(IMAGES if kind.image else ROWS), **self.reading(kind)}
                made = monge.train(self.source(kind), labels, out=out, verbose=False, **settings)
            self.runs[kind] = made
        return self.runs[kind]

    def rows_of(self, kind: Kind) -> Any:
        """Examples to encode: by name where there is one, else a file or tensor of the same."""
        if kind.source != "array":
            return self.source(kind)
        if kind.given == "conditions":
            return self._csv("conditions")
        path = self.home / f"again-{kind.given}.npz"
        np.savez(path, x=self.pixels if kind.image else self.rows.astype(np.float32))
        return str(path)


Words = Callable[[World, Kind, Path], list[Any]]
Call = Callable[[World, Kind, Path], Any]


def _flags(world: World, kind: Kind) -> list[str]:
    reading = world.reading(kind).items()
    return [word for name, value in reading for word in (f"--{name.replace('_', '-')}", value)]


def _encoded(world: World, kind: Kind, out: Path) -> Path:
    path = out.with_suffix(".npz")
    if not path.exists():
        world.run(kind).encode(world.rows_of(kind), "latent", limit=6).save(path)
    return path


def _holes(out: Path) -> Path:
    path = out.with_suffix(".holes.csv")
    path.write_text("a,b\n1.0,\n")
    return path


def _evaluated(world: World, kind: Kind, out: Path) -> Any:
    return world.run(kind).evaluate(20, data=world.data(kind))


def _verified(world: World, kind: Kind, out: Path) -> Any:
    found = world.run(kind).verify(60, data=world.data(kind), quick=True, verbose=False)
    assert found["sum"]["value"] > 0
    return found


def _again(world: World, kind: Kind, out: Path) -> Any:
    """The same command again: nothing is left to train."""
    if kind.model == "map":
        flow = world.run(Kind(kind.source, kind.given, "flow"))
        home = world.run(kind).folder
        return monge.distil(flow, data=world.data(kind), steps=2, out=home, verbose=False)
    labels = world.label if (kind.source, kind.given) == ("array", "labels") else None
    settings = {**SHORT, **(IMAGES if kind.image else ROWS), **world.reading(kind)}
    home = world.run(kind).folder
    return monge.train(world.source(kind), labels, out=home, verbose=False, **settings)


def _density(world: World, kind: Kind, out: Path) -> Any:
    run = world.run(kind)
    drawn = run.sample(3)
    solver = "heun" if kind.model == "map" else None
    if run.codec is not None:
        return run.log_density(drawn.table(), solver=solver)
    return run.log_density(drawn.x, drawn.label, solver=solver)


@dataclass(frozen=True)
class Cell:
    """A verb by both doors; None where a door does not have it."""

    command: Words | None
    python: Call | None


VERBS: dict[str, Cell] = {
    "train again": Cell(
        lambda w, k, out: [
            *("train", "--config", w.run(k).folder / "config.yaml", "--out", w.run(k).folder)
        ],
        _again,
    ),
    "distil": Cell(
        lambda w, k, out: ["distil", w.run(k).folder, "--steps", 1, "--out", out],
        lambda w, k, out: w.run(k).distil(data=w.data(k), steps=1, out=out, verbose=False),
    ),
    "sample": Cell(
        lambda w, k, out: (
            ["sample", w.run(k).folder, "-n", 6, "--out", out, "--format", "npz"]
            if k.image
            else ["sample", w.run(k).folder, "-n", 6, "--out", out]
        ),
        lambda w, k, out: w.run(k).sample(6).save(out),
    ),
    "sample of labels": Cell(
        lambda w, k, out: ["sample", w.run(k).folder, "-n", 6, "--label", "all", "--out", out],
        lambda w, k, out: w.run(k).sample(6, "all").grid(),
    ),
    "evaluate": Cell(lambda w, k, out: ["evaluate", w.run(k).folder, "-n", 20], _evaluated),
    "verify": Cell(lambda w, k, out: ["verify", w.run(k).folder, "--quick", "-n", 60], _verified),
    "encode to noise": Cell(
        lambda w, k, out: [
            *("encode", w.run(k).folder, w.rows_of(k), "--limit", 6, "--out", f"{out}.npz")
        ],
        lambda w, k, out: w.run(k).encode(w.rows_of(k), limit=6),
    ),
    "decode": Cell(
        lambda w, k, out: ["decode", w.run(k).folder, _encoded(w, k, out), "--out", out],
        lambda w, k, out: w.run(k).decode(_encoded(w, k, out)).save(out),
    ),
    "interpolate": Cell(
        lambda w, k, out: [
            *("decode", w.run(k).folder, _encoded(w, k, out), "--interpolate", 3, "--out", out)
        ],
        lambda w, k, out: w.run(k).interpolate(_encoded(w, k, out), 3),
    ),
    "impute": Cell(
        lambda w, k, out: ["impute", w.run(k).folder, _holes(out), "--out", f"{out}.filled.csv"],
        lambda w, k, out: w.run(k).impute(pa.table({"a": [1.0], "b": pa.nulls(1, pa.float64())})),
    ),
    "log-density": Cell(None, _density),
    "export pt2": Cell(
        lambda w, k, out: ["export", w.run(k).folder, "--out", f"{out}.pt2"],
        lambda w, k, out: w.run(k).export(out=f"{out}.pt2"),
    ),
    "export diffusers": Cell(
        lambda w, k, out: ["export", w.run(k).folder, "--format", "diffusers", "--out", out],
        lambda w, k, out: w.run(k).export("diffusers", out),
    ),
    "compare": Cell(
        lambda w, k, out: ["compare", w.run(k).folder, w.run(k).folder, "-n", 20],
        lambda w, k, out: monge.compare(w.run(k).sample(40).x, w.run(k).sample(40, seed=1).x, n=20),
    ),
    "autoencoder": Cell(
        lambda w, k, out: [
            *("autoencoder", w.rows_of(k), "--init-from", w.run(k).folder, "--steps", 1),
            *(*_flags(w, k), "--out", out),
        ],
        None,
    ),
    "info": Cell(lambda w, k, out: ["info", w.run(k).folder, "--json"], lambda w, k, out: w.run(k)),
    "report": Cell(None, lambda w, k, out: w.run(k).report()),
}


def refusal(kind: Kind, verb: str, door: str) -> str | None:
    """The sentence that a cell is refused with; None where it has to succeed."""
    unread = kind.source == "array" and door == "command"
    if verb in ("train again", "distil", "evaluate", "verify") and unread:
        return "trained on arrays in memory, which no command can read again"
    if verb == "sample of labels" and kind.given != "labels":
        return "this run has no labels: leave out --label"
    if verb == "impute" and kind.given != "any":
        return "this run cannot impute: train on a table with --conditional any"
    if verb == "encode to noise" and kind.model == "map":
        return "this map was trained forwards alone"
    if verb == "interpolate" and not kind.image and door == "command":
        return "--interpolate draws pictures, and this run's data are rows of a table"
    if verb == "export diffusers" and not kind.image:
        return "a pipeline of diffusers draws images from latents"
    return None


def cells() -> list[tuple[Kind, str, str]]:
    """All cells, by kind."""
    return [
        (Kind(source, given, model), verb, door)
        for (source, given), model in itertools.product(KINDS, MODELS)
        for verb, cell in VERBS.items()
        for door in DOORS
        if getattr(cell, door) is not None
    ]


def pairwise(all_cells: list[tuple[Kind, str, str]]) -> Iterator[tuple[Kind, str, str]]:
    """Few cells in which every two values of two factors occur together, chosen greedily."""

    def pairs(cell: tuple[Kind, str, str]) -> set[frozenset[tuple[str, str]]]:
        kind, verb, door = cell
        values = {"source": kind.source, "given": kind.given, "model": kind.model}
        named = [*values.items(), ("verb", verb), ("door", door)]
        return {frozenset(two) for two in itertools.combinations(named, 2)}

    open_pairs = set().union(*map(pairs, all_cells))
    while open_pairs:
        best = max(all_cells, key=lambda cell: len(pairs(cell) & open_pairs))
        open_pairs -= pairs(best)
        yield best


def act(world: World, cell: tuple[Kind, str, str], out: Path) -> Any:
    """Do what a cell says; a command's exit code other than 0 becomes its error.

    Raises:
        UserError: it was refused.
    """
    kind, verb, door = cell
    torch.manual_seed(0)
    if door == "python":
        call = VERBS[verb].python
        assert call is not None
        found = call(world, kind, out)
        assert len(repr(found)) < 100_000
        if isinstance(found, (Run, Evaluation)):
            assert len(repr(found)) < 300 and "<" in found._repr_html_()
        return found
    command = VERBS[verb].command
    assert command is not None
    return main([str(word) for word in command(world, kind, out)])


__all__ = ["Kind", "UserError", "World", "act", "cells", "pairwise", "refusal"]
