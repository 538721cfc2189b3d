"""`monge train`: train a model on data, or continue."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from monge.errors import UserError
from monge.runs.spec import TrainSpec, from_yaml
from monge.verbs.shown import say
from monge.verbs.trained import trained


@dataclass(frozen=True)
class Train(TrainSpec):
    """Train a model on data, in a run folder; run the same command again to continue.

    SOURCE: a folder of images (classes by folder, or by a labels.csv), a folder of parquet files,
    a .csv, .tsv, .parquet, .npz or .npy file (images are uint8, or floats in [-1, 1]),
    hf:ORG/NAME, digits, or a known law, target:NAME:dim=..: gaussian, mixture, box, hypercube,
    product, latent, or in the plane moons, checkerboard, spirals, rings, 8gaussians
    """

    data: Positional[str] = "digits"
    """Source of the data."""
    out: Path | None = None
    """Run folder; by default runs/<data>-<8 hex of the settings>."""
    recipe: str | None = None
    """Start from a recipe's settings (`monge recipes`)."""
    config: Path | None = None
    """Start from the settings in a YAML file."""
    dry_run: bool = False
    """Time three steps, print what the run would take, and stop."""
    trust_code: bool = False
    """Execute the components in files that the run keeps in code/, if it has any: only for a run of
    your own, or of somebody you trust."""
    json: bool = False
    """Print the result as JSON."""


def starting_point(words: Sequence[str]) -> Train:
    """The settings before the flags: those of a recipe, then of a YAML file."""
    spec = TrainSpec()
    if name := _value(words, "--recipe"):
        from monge import recipes

        spec = recipes.find(name).SPEC
    if file := _value(words, "--config"):
        spec = from_yaml(Path(file), spec)
    # A flag for one limit removes the other limit of a recipe or file.
    if _value(words, "--minutes") and not _value(words, "--steps"):
        spec = dataclasses.replace(spec, steps=None)
    if _value(words, "--steps") and not _value(words, "--minutes"):
        spec = dataclasses.replace(spec, minutes=None)
    return Train(**dataclasses.asdict(spec))


def _value(words: Sequence[str], flag: str) -> str | None:
    """The value of a flag in the words."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == flag:
            return following
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return None


def act(arguments: Train) -> dict[str, Any]:
    """Train or continue a run."""
    from monge.fitting.dry_run import rehearse
    from monge.fitting.train import train as train_run

    spec = _spec_of(arguments)
    _need_data_of_recipe(arguments)
    if arguments.dry_run:
        return {"dry_run": True, **rehearse(spec, say())}
    run = train_run(spec, out=arguments.out, say=say())
    return trained(arguments, run)


def _need_data_of_recipe(arguments: Train) -> None:
    """Refuse a recipe whose data file is missing, with the file's origin."""
    if arguments.recipe is None:
        return
    from monge import recipes as book

    recipe = book.find(arguments.recipe)
    origin = getattr(recipe, "ORIGIN", None)
    if origin and arguments.data == recipe.SPEC.data and not Path(arguments.data).exists():
        raise UserError(
            f"recipe {arguments.recipe} needs the file {arguments.data}, which is not here: "
            f"{origin}. Then: monge train PATH/{arguments.data} --recipe {arguments.recipe}"
        )


def _spec_of(arguments: Train) -> TrainSpec:
    names = [f.name for f in dataclasses.fields(TrainSpec)]
    return TrainSpec(**{name: getattr(arguments, name) for name in names})
