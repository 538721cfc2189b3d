"""What `import monge` shows: its names, its typed settings, and what importing it costs."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from types import ModuleType
from typing import Any, get_type_hints

import pytest

import monge
from monge import api, options
from monge.components import FAMILIES, Component
from monge.data.reading import Reading
from monge.errors import UserError
from monge.runs.run import Run
from monge.runs.spec import TrainSpec

DOORS = ["compare", "distil", "evaluate", "load", "read", "train", "verify"]
NOUNS = ["autoencoders", "conformance", "couplings", "fields", "flows", "learned", "metrics"]
NOUNS += ["networks", "objectives", "paths", "solvers", "targets", "times"]

DECIDED = {"data", "objective", "autoencoder", "init_from", "teacher", "teacher_guidance",
           "conditional"}  # fmt: skip
"""Fields of `TrainSpec` that `distil` decides, or takes by an argument of its own."""


def test_a_person_sees_what_a_person_needs() -> None:
    assert dir(monge) == sorted([*DOORS, *NOUNS, "Generator", "Run", "__version__"])
    assert sorted(monge.__all__) == monge.__all__ == [n for n in dir(monge) if n[0] != "_"]
    assert all(inspect.isfunction(getattr(monge, name)) for name in DOORS)
    assert all(isinstance(getattr(monge, name), ModuleType) for name in NOUNS)
    assert monge.Run is Run and monge.__version__
    text = monge.__doc__ or ""
    assert all(name in text for name in monge.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Rum'"):
        getattr(monge, "Rum")  # noqa: B009


@pytest.mark.parametrize("noun", NOUNS)
def test_a_noun_shows_what_it_has_and_nothing_it_imports(noun: str) -> None:
    module = getattr(monge, noun)
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        assert not isinstance(value, ModuleType), f"monge.{noun}.{name} is hidden by a file"
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__.startswith("monge.") and inspect.getdoc(value), name


def test_importing_costs_nothing() -> None:
    code = (
        "import sys, monge\nassert not {'torch', 'numpy', 'tyro'} & set(sys.modules)\n"
        "assert 'train' in dir(monge)\nassert [m for m in sys.modules if 'monge' in m] == ['monge']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_doors_stay_functions_whatever_has_been_imported() -> None:
    code = "import monge, monge.api\nassert all(callable(getattr(monge, n)) for n in {!r})"
    subprocess.run([sys.executable, "-c", code.format(DOORS)], check=True)


def _or_component(name: str, hint: Any) -> Any:
    """A component may be a text or a value."""
    return hint | Component if name in FAMILIES else hint


def test_the_options_of_train_are_the_fields_of_a_specification() -> None:
    hints = get_type_hints(TrainSpec)
    fields = {k: _or_component(k, v) for k, v in hints.items() if k != "data"}
    assert get_type_hints(options.TrainOptions) == fields
    names = [f.name for f in dataclasses.fields(TrainSpec) if f.name != "data"]
    assert list(options.TrainOptions.__annotations__) == names


def test_the_options_of_read_are_the_fields_of_a_reading() -> None:
    assert get_type_hints(options.ReadingOptions) == get_type_hints(Reading)


def test_the_options_of_distil_are_those_of_train_or_none() -> None:
    hints = get_type_hints(TrainSpec)
    fields = {k: _or_component(k, v) | None for k, v in hints.items() if k not in DECIDED}
    own = {"guidance": str | float | None, "network": str | Component}
    assert get_type_hints(options.DistilOptions) == fields | own


def test_the_options_of_sampling_are_those_of_a_run() -> None:
    known = inspect.signature(Run.sample).parameters
    assert set(get_type_hints(options.SamplingOptions)) <= set(known)


@pytest.mark.parametrize("door", ["train", "distil"])
def test_an_unknown_setting_names_the_nearest(door: str) -> None:
    with pytest.raises(UserError, match=f"{door} has no setting 'stesp': did you mean 'steps'"):
        getattr(api, door)("digits", stesp=3)
