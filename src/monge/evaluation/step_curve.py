"""Quality against the number of network evaluations, a map's teacher beside it.

Everything is measured between latents of samples and of as many held-out examples, in the bare
autoencoder's units, or in the features of a network: one seed, the same noise and labels for
every row. The floor is that of training examples in the samples' place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from monge.data.base import Data
from monge.errors import UserError
from monge.evaluation.latent_rows import latents_in_units, units
from monge.learned import JUMPS
from monge.metrics.feature_rows import meaningless
from monge.metrics.features import FeatureNetwork
from monge.metrics.frechet import frechet_distance
from monge.metrics.samples import random_rows
from monge.metrics.two_sample import classifier_test, energy_distance
from monge.runs import schemas
from monge.runs.layout import BEST, BY_STEPS, STEPS
from monge.runs.run import Run
from monge.sampling import images
from monge.sampling.samples import Samples
from monge.system.files import write_json
from monge.system.progress import Say, counted, quiet, survived
from monge.system.shown import aligned, wrapped
from monge.tensors import stream
from monge.training import checkpoint

MOST = 2000
"""Samples and held-out examples that are compared, at most."""

SHOWN = 10
"""Samples of each number of steps in the picture."""

FLOORS = 5
"""Draws of training examples behind the floor."""

SOLVERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
"""What a teacher is sampled by at equal evaluations, with the evaluations of a step."""


@dataclass(frozen=True)
class Point:
    """The quality of one way of sampling.

    Attributes:
        who: "map", "map, best weights", "teacher", "teacher as it is", "this run".
        how: the solver and its steps.
        evaluations: of the network, for a sample.
        energy: squared energy distance.
        auc: of a classifier between samples and held-out examples.
        frechet: Frechet distance of latents; None where it is withheld.
        features: Frechet distance in the features of the network, if there is one.
    """

    who: str
    how: str
    evaluations: float
    energy: float
    auc: float
    frechet: float | None
    features: float | None = None


class Judge:
    """Compares samples with held-out examples."""

    def __init__(
        self, run: Run, data: Data, n: int, seed: int, network: FeatureNetwork | None
    ) -> None:
        self.n = min(n, MOST, len(data.heldout))
        self.network, self.device = network, run.device
        self.real = latents_in_units(run, data.heldout, self.n, seed, "heldout")
        self.withheld = meaningless(self.real.shape[1], self.n)
        self.real_features: Tensor | None = None
        if network is not None:
            rows = random_rows(len(data.heldout), self.n, stream(seed, "latents", "heldout"))
            self.real_features = self._features(data.heldout[rows])

    def of(self, run: Run, samples: Samples, who: str) -> Point:
        """A point for samples of a run."""
        info = samples.info
        features = None
        if self.real_features is not None:
            features = frechet_distance(self._features(samples.x), self.real_features)
        k, jumping = info["steps"], info["solver"] == JUMPS
        how = counted(k, "jump") if jumping else f"{info['solver']}, {counted(k, 'step')}"
        numbers = self.numbers(units(run, samples.z))
        return Point(who, how, info["evaluations_per_sample"], *numbers, features)

    def numbers(self, z: Tensor) -> tuple[float, float, float | None]:
        """Energy distance, AUC and Frechet distance (None if withheld) of latents, in units."""
        z = z[: self.n]
        auc = classifier_test(z, self.real).auc
        frechet = None if self.withheld else frechet_distance(z, self.real)
        return energy_distance(z, self.real), auc, frechet

    def _features(self, x: Tensor) -> Tensor:
        assert self.network is not None
        return self.network.features(x, device=self.device).x


def parse_steps(text: str | None, what: str = "steps") -> list[int]:
    """Numbers of steps from "1,2,4"; none from None.

    Raises:
        UserError: something else.
    """
    if text is None:
        return []
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1 or len(set(found)) < len(found):
        raise UserError(f"--{what} takes numbers as 1,2,4,8,16, each once, not {text!r}")
    return found


def step_curve(
    run: Run,
    steps: Sequence[int],
    n: int = MOST,
    *,
    seed: int = 0,
    data: Data | None = None,
    network: FeatureNetwork | None = None,
    guidance: float | None = None,
    say: Say = quiet,
) -> dict[str, Any]:
    """Quality of a run for several numbers of steps; written to its folder.

    A map's teacher is sampled with as many evaluations by each solver that allows it, of which
    the best Frechet distance (of features, if there are any) is shown, and as it is by itself. A
    run without a map is sampled by its own solver.
    """
    data = run.data() if data is None else data
    judge = Judge(run, data, n, seed, network)
    points: list[Point] = []
    shown: dict[str, Tensor] = {}

    def add(of: Run, who: str, **how: Any) -> None:
        samples = of.sample(judge.n, seed=seed, **how)
        points.append(judge.of(of, samples, who))
        shown[f"{who}, {points[-1].how}"] = samples.x[:SHOWN]
        say(in_words(points[-1]))

    for k in steps:
        add(run, run.learned.who, steps=k, guidance=guidance)
    if run.learned.few_steps:
        if not _best_is_another(run):
            say("the best weights are the last")
        else:
            best = Run.load(run.folder, str(run.device), "best")
            for k in steps:
                add(best, "map, best weights", steps=k, guidance=guidance)
        if run.teacher is not None:
            scale = run.learned.guidance_of(run.flow(guidance=guidance), guidance)
            for point in _at_equal_evaluations(judge, run.teacher, steps, scale, seed):
                points.append(point)
                say(in_words(point))
            add(run.teacher, "teacher as it is", guidance=scale)
    found = {
        "format_version": 1,
        "n": judge.n,
        "seed": seed,
        "guidance": _guidance(run, guidance),
        "network": None if network is None else network.name,
        "points": [asdict(p) for p in points],
        **_floors(judge, run, data, seed),
        "withheld": judge.withheld,
        "shown": list(shown) if data.kind == "image" else [],
    }
    if data.kind == "image":
        _draw(run, shown, min(SHOWN, judge.n))
    write_json(run.folder / STEPS, found)
    return found


def _guidance(run: Run, guidance: float | None) -> float | None:
    """The guidance that samples have: that of training, where a map takes it as an input."""
    if not run.learned.guided_as_trained:
        return guidance
    return run.learned.guidance_of(run.flow(guidance=guidance), guidance)


def _draw(run: Run, shown: Mapping[str, Tensor], columns: int) -> None:
    """A row of samples for each number of steps."""
    with survived("the samples by number of steps were not drawn"):
        picture = images.grid(torch.cat(list(shown.values())), columns)
        images.save_png(picture, run.folder / BY_STEPS, {"run": run.folder.name})


def _floors(judge: Judge, run: Run, data: Data, seed: int) -> dict[str, dict[str, float | None]]:
    """Mean and deviation of each quantity over `FLOORS` draws of training examples."""
    floors = [
        judge.numbers(latents_in_units(run, data.train, judge.n, seed, f"floor {k}"))
        for k in range(FLOORS)
    ]
    names = ("energy", "auc", "frechet")
    known = dict(zip(names, zip(*floors, strict=True), strict=True))
    floor = {
        k: None if None in v else torch.tensor(v, dtype=torch.float64) for k, v in known.items()
    }
    return {
        "floor": {k: None if v is None else float(v.mean()) for k, v in floor.items()},
        "floor_std": {k: None if v is None else float(v.std()) for k, v in floor.items()},
    }


def _at_equal_evaluations(
    judge: Judge, teacher: Run, steps: Sequence[int], scale: float, seed: int
) -> Iterator[Point]:
    """A teacher sampled with as many evaluations as a map has jumps, by its best solver each."""
    # Guidance evaluates twice, unless it is an input or part of a map.
    doubled = 2 if scale != 1 and not teacher.learned.guided_as_trained else 1
    for k in steps:
        tried = []
        for solver, cost in SOLVERS.items():
            if k % (cost * doubled) == 0:
                many = k // (cost * doubled)
                sampling = {"solver": solver, "steps": many, "guidance": scale}
                samples = teacher.sample(judge.n, seed=seed, **sampling)
                tried.append(judge.of(teacher, samples, "teacher"))
        if tried:
            yield min(tried, key=_distance)


def _best_is_another(run: Run) -> bool:
    """Whether the best weights were kept before the last step."""
    kept = schemas.read_if_there(run.folder, BEST)
    return kept is not None and kept["step"] != checkpoint.newest_step(run.folder)


def _distance(point: Point) -> float:
    """By which the teacher's solvers are compared."""
    latent = point.energy if point.frechet is None else point.frechet
    return latent if point.features is None else point.features


def in_words(point: Point) -> str:
    """A point in a line."""
    seen = "" if point.features is None else f"  Frechet (features) {point.features:.3g}"
    return (
        f"{point.who:18} {point.how:18} {point.evaluations:5g} NFE  energy (latent) "
        f"{point.energy:8.4f}  C2ST AUC (latent) {point.auc:.3f}  Frechet (latent) "
        f"{_number(point.frechet)}{seen}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def text(found: Mapping[str, Any], width: int | None = None) -> str:
    """The whole curve as a table, with its floor, in lines of so many characters at most."""
    points = [Point(**p) for p in found["points"]]
    seen = any(p.features is not None for p in points)
    lines = [["", "by", "NFE", "energy", "C2ST AUC", "Frechet", *["Frechet (features)"] * seen]]
    for p in points:
        features = "-" if p.features is None else f"{p.features:.3g}"
        cells = [p.who, p.how, f"{p.evaluations:g}", f"{p.energy:.4f}", f"{p.auc:.3f}"]
        lines.append([*cells, _number(p.frechet), *[features] * seen])
    floor, std = found["floor"], found["floor_std"]
    energy = f"{floor['energy']:.4f} ± {std['energy']:.4f}"
    frechet = f"{_number(floor['frechet'])} ± {_number(std['frechet'])}"
    lines.append(["floor", "", "", energy, f"{floor['auc']:.3f}", frechet, *["-"] * seen])
    said = ["Energy, C2ST AUC and Frechet are of latents."]
    if found.get("withheld"):
        said.append(f"Frechet (latent) {found['withheld']}")
    said.append(
        f"n = {found['n']} samples and as many held-out examples, seed {found['seed']}; NFE: "
        "evaluations of the network for a sample"
    )
    return "\n".join([aligned(lines, width=width), *(wrapped(line, width) for line in said)])
