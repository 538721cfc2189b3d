"""`monge recipes`: list the complete named runs, or show one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from tyro.conf import Positional

from monge.errors import UserError
from monge.runs.spec import TrainSpec
from monge.verbs.shown import tell


@dataclass(frozen=True)
class Recipes:
    """Complete named runs. `monge recipes` lists them, `monge recipes show NAME` explains one."""

    action: Positional[Literal["list", "show"]] = "list"
    """What to do."""
    name: Positional[str | None] = None
    """Recipe to show."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Recipes) -> Any:
    """List the recipes or show one."""
    from monge import recipes as book

    if arguments.action == "list":
        listed = {name: (book.find(name).__doc__ or "").partition("\n")[0] for name in book.NAMES}
        for name, text in listed.items():
            tell(arguments, f"{name:10} {text}")
        return listed
    if arguments.name is None:
        raise UserError(f"which recipe? monge recipes show NAME: {', '.join(book.NAMES)}")
    recipe = book.find(arguments.name)
    tell(arguments, (recipe.__doc__ or "").strip())
    changed = {
        f.name: getattr(recipe.SPEC, f.name)
        for f in dataclasses.fields(TrainSpec)
        if getattr(recipe.SPEC, f.name) != f.default
    }
    tell(arguments, "\nsettings that differ from the defaults:")
    for key, value in changed.items():
        tell(arguments, f"  {key}: {value}")
    return {"name": arguments.name, "settings": changed}
