"""One spelling for components: on the command line, in YAML and in `repr`."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path as FilePath
from typing import Any, Literal

import pytest

from monge.components import FAMILIES, Component, build, class_of, read_value
from monge.errors import UserError
from monge.paths import Linear, Power

REGISTERED = [(family, name) for family, names in FAMILIES.items() for name in names]

REQUIRED = {
    ("autoencoder", "diffusers"): "model",
    ("autoencoder", "taesd"): "folder",
    ("autoencoder", "mlp_vae"): "file",
}
"""The setting of those that have no default, which a first value alone fills."""


@pytest.mark.parametrize(("family", "name"), REGISTERED)
def test_registered_names_are_the_classes_own(family: str, name: str) -> None:
    required = REQUIRED.get((family, name))
    text = f"{name}:{required}=somewhere" if required else name
    component = build(family, text)
    module, _, attribute = FAMILIES[family][name].partition(":")
    assert type(component) is getattr(importlib.import_module(module), attribute)
    assert component.name == name and repr(component) == text
    assert isinstance(component, Component)
    assert build(family, repr(component)) == component
    assert build(family, component.in_full) == component
    with pytest.raises(dataclasses.FrozenInstanceError):
        component.other = 1


@pytest.mark.parametrize("name", FAMILIES["objective"])
def test_objectives_say_what_they_learn(name: str) -> None:
    velocity = name in ("flow_matching", "reflow")
    chain = name in ("jko", "local-flow-matching")
    expected = "velocity" if velocity else "chain" if chain else "flow map"
    assert build("objective", name).learns == expected
    assert class_of("objective", f"{name}:settings=unread").learns == expected


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("path", "power:kappa=0.75"),
        ("path", "linear_beta:b0=0.2,b1=10.0"),
        ("grid", "shifted:n=7,shift=2.5,stop=0.9"),
        ("network", "transformer:patch=2,width=64,two_times=True"),
        ("autoencoder", "pca:dim=3"),
        ("target", "mixture:dim=16,covariance=full"),
        ("solver", "dopri5:rtol=1e-08"),
    ],
)
def test_text_survives_the_round_trip(family: str, text: str) -> None:
    assert repr(build(family, text)) == text
    assert build(family, repr(build(family, text))) == build(family, text)


@pytest.mark.parametrize(("family", "name"), REQUIRED)
def test_a_first_value_alone_fills_the_required_setting(family: str, name: str) -> None:
    key = REQUIRED[family, name]
    for value in ("owner/model-1.0", "/data/lr=0.1/x", "../weights/", "C:\\weights"):
        component = build(family, f"{name}:{value}")
        assert getattr(component, key) == value
        assert component == build(family, f"{name}:{key}={value}") == build(family, repr(component))
    with pytest.raises(UserError, match=f"needs a {key}: write {name}:{key.upper()}"):
        build(family, name)
    with pytest.raises(UserError, match=f"did you mean '{key}'"):
        build(family, f"{name}:{key}s=somewhere")
    with pytest.raises(UserError, match="a comma ends a setting"):
        type(component)("a,b")


def test_settings_follow_a_first_value() -> None:
    component = build("autoencoder", "diffusers:owner/model,subfolder=vae")
    assert (component.model, component.subfolder) == ("owner/model", "vae")
    assert repr(component) == "diffusers:model=owner/model,subfolder=vae"
    with pytest.raises(UserError, match="model is given twice"):
        build("autoencoder", "diffusers:owner/model,model=other")
    with pytest.raises(UserError, match="'other' should read key=value"):
        build("autoencoder", "diffusers:owner/model,other")


def test_only_what_differs_is_written() -> None:
    assert repr(build("path", "power:kappa=0.5")) == "power"
    assert repr(build("grid", "uniform:n=20,stop=1")) == "uniform"
    assert build("path", "power:") == Power() != Linear()


@pytest.mark.parametrize(
    ("family", "text", "message"),
    [
        ("path", "lineer", "unknown path 'lineer': did you mean 'linear'?"),
        ("path", "zzz", "known: linear, linear_beta, ou, power, trigonometric"),
        ("path", "power:kapa=1", "path 'power' has no setting 'kapa': did you mean 'kappa'?"),
        ("path", "linear:kappa=1", "linear has no settings"),
        ("path", "power:kappa", "'kappa' should read key=value"),
        ("path", "power:kappa=big", "path power:kappa takes a number, not 'big'"),
        ("path", "power:kappa=1,kappa=2", "kappa is given twice"),
        ("path", "power:kappa=0.2", "kappa must be at least 0.5"),
        ("path", "power:kappa=nan", "kappa must be at least 0.5"),
        ("path", "ou:horizon=-1", "horizon must be positive"),
        ("path", "linear_beta:b0=0", "b0 and b1 must be positive"),
        ("grid", "uniform:n=1.5", "grid uniform:n takes a whole number, not '1.5'"),
        ("grid", "uniform:n=0", "n must be at least 1 step"),
        ("grid", "uniform:stop=1.2", "stop must lie in (0, 1]"),
        ("grid", "geometric:stop=1", "needs stop < 1"),
        ("grid", "shifted:shift=0", "shift must be positive"),
        ("times", "logit_normal:std=0", "std must be positive"),
        ("coupling", "ot:plan=1", "plan must be at least 2 rows"),
        ("solver", "dopri5:rtol=0", "rtol and atol must be positive"),
        ("network", "transformer:size=M", "unknown value 'M'"),
        ("network", "transformer:two_times=maybe", "takes true or false, not 'maybe'"),
    ],
)
def test_what_is_wrong_is_said(family: str, text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        build(family, text)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("1e-4", float, 1e-4),
        ("12", int, 12),
        ("no", bool, False),
        ("True", bool, True),
        ("none", int | None, None),
        ("3", int | None, 3),
        ("auto", int | str, "auto"),
        ("7", int | str, 7),
        ("b", Literal["a", "b"], "b"),
        ("2", Literal[1, 2], 2),
        ("runs/a", FilePath, FilePath("runs/a")),
        ("no", str, "no"),
    ],
)
def test_values_are_read_by_their_type(text: str, kind: Any, value: Any) -> None:
    found = read_value(text, kind, "setting")
    assert found == value and type(found) is type(value)
