"""Components as text: one spelling on the command line, in YAML and in `repr`.

A component is a frozen dataclass; its fields are its settings; its text is ``name`` or
``name:key=value,key=value``, and a class may name the setting that a first value alone fills, as
in ``taesd:weights/``. `FAMILIES` lists every component by the place it fills and is the one table
to extend; classes are imported when their text is read, so listing names is cheap.

>>> build("path", "power:kappa=0.75")
power:kappa=0.75
"""

from __future__ import annotations

import dataclasses
import importlib
import types
import typing
from pathlib import Path as FilePath
from typing import Any, ClassVar

from monge.errors import UserError, nearest
from monge.system import own_code, own_faults

FAMILIES: dict[str, dict[str, str]] = {
    "path": {
        "linear": "monge.paths:Linear",
        "trigonometric": "monge.paths:Trigonometric",
        "ou": "monge.paths:OrnsteinUhlenbeck",
        "linear_beta": "monge.paths:LinearBeta",
        "power": "monge.paths:Power",
    },
    "coupling": {
        "independent": "monge.couplings:Independent",
        "ot": "monge.couplings:MinibatchOT",
    },
    "times": {
        "uniform": "monge.times:UniformTimes",
        "logit_normal": "monge.times:LogitNormalTimes",
    },
    "objective": {
        "flow_matching": "monge.objectives.flow_matching:FlowMatchingSpec",
        "reflow": "monge.objectives.flow_matching:ReflowSpec",
        "lagrangian": "monge.objectives.rules.lagrangian:Lagrangian",
        "eulerian": "monge.objectives.rules.eulerian:Eulerian",
        "progressive": "monge.objectives.rules.semigroup:Progressive",
        "consistency": "monge.objectives.rules.consistency:Consistency",
        "continuous-consistency": "monge.objectives.rules.consistency:ContinuousConsistency",
        "self-lagrangian": "monge.objectives.rules.lagrangian:SelfLagrangian",
        "self-eulerian": "monge.objectives.rules.eulerian:SelfEulerian",
        "self-semigroup": "monge.objectives.rules.semigroup:SelfSemigroup",
        "meanflow": "monge.objectives.rules.eulerian:MeanFlow",
        "improved-meanflow": "monge.objectives.rules.eulerian:ImprovedMeanFlow",
        "shortcut": "monge.objectives.rules.semigroup:Shortcut",
        "flow-map-matching": "monge.objectives.rules.lagrangian:FlowMapRule",
        "consistency-training": "monge.objectives.rules.consistency:ConsistencyTraining",
        "continuous-consistency-training": (
            "monge.objectives.rules.consistency:ContinuousConsistencyTraining"
        ),
        "jko": "monge.objectives.jko:JKOSpec",
        "local-flow-matching": ("monge.objectives.local_flow_matching:LocalFlowMatchingSpec"),
    },
    "pairs": {
        "triangle": "monge.time_pairs:Triangle",
        "logit_spans": "monge.time_pairs:LogitSpans",
        "source": "monge.time_pairs:Source",
        "to_data": "monge.time_pairs:ToData",
        "dyadic": "monge.time_pairs:Dyadic",
    },
    "grid": {
        "uniform": "monge.times:Uniform",
        "shifted": "monge.times:Shifted",
        "geometric": "monge.times:Geometric",
    },
    "solver": {
        "euler": "monge.solvers:Euler",
        "midpoint": "monge.solvers:Midpoint",
        "heun": "monge.solvers:Heun",
        "rk3": "monge.solvers:RK3",
        "rk4": "monge.solvers:RK4",
        "dopri5": "monge.solvers:Dopri5",
    },
    "network": {
        "transformer": "monge.networks.transformer:TransformerSpec",
        "mlp": "monge.networks.mlp:MLPSpec",
        "lipschitz": "monge.networks.lipschitz:LipschitzSpec",
        "piecewise": "monge.networks.piecewise:PiecewiseSpec",
        "exact": "monge.networks.exact:ExactSpec",
    },
    "autoencoder": {
        "identity": "monge.autoencoders.identity:IdentitySpec",
        "pca": "monge.autoencoders.pca:PCASpec",
        "conv": "monge.autoencoders.conv:ConvSpec",
        "diffusers": "monge.autoencoders.from_diffusers:DiffusersSpec",
        "taesd": "monge.autoencoders.taesd:TaesdSpec",
        "mlp_vae": "monge.autoencoders.mlp_vae:MLPVAESpec",
    },
    "target": {
        "gaussian": "monge.targets.gaussian:GaussianSpec",
        "mixture": "monge.targets.mixture:MixtureSpec",
        "box": "monge.targets.coordinates:BoxSpec",
        "hypercube": "monge.targets.coordinates:HypercubeSpec",
        "product": "monge.targets.coordinates:ProductSpec",
        "latent": "monge.targets.latent:LatentSpec",
        "moons": "monge.targets.shapes:MoonsSpec",
        "checkerboard": "monge.targets.shapes:CheckerboardSpec",
        "spirals": "monge.targets.shapes:SpiralsSpec",
        "rings": "monge.targets.shapes:RingsSpec",
        "8gaussians": "monge.targets.shapes:EightGaussiansSpec",
    },
}

BASES: dict[str, str] = {
    "path": "monge.paths:Path",
    "coupling": "monge.couplings:Coupling",
    "times": "monge.times:TimeLaw",
    "grid": "monge.times:Grid",
    "pairs": "monge.time_pairs:PairLaw",
    "solver": "monge.solvers:Solver",
    "autoencoder": "monge.autoencoders.base:AutoencoderSpec",
    "target": "monge.targets.base:TargetSpec",
}
"""The base class of each family that has one: all but networks and objectives."""

WANTED = {"network": "build", "objective": "learns"}
"""What the classes of the other families have."""


class Component:
    """Base of every component: a frozen dataclass with a `name`, whose `repr` is its text."""

    name: ClassVar[str] = "component"

    positional: ClassVar[str | None] = None
    """The setting that a first value without a key fills, as in ``taesd:weights/``."""

    def __repr__(self) -> str:
        return self.name + _settings_text(self)

    @property
    def in_full(self) -> str:
        """The text with every setting, for files that outlive a change of the defaults."""
        return self.name + _settings_text(self, changed=False)


def _settings_text(component: Any, changed: bool = True) -> str:
    if not dataclasses.is_dataclass(component):  # of a user's own, without settings
        return ""
    shown = []
    for field in dataclasses.fields(component):
        value = getattr(component, field.name)
        if not changed or field.default is dataclasses.MISSING or value != field.default:
            shown.append(f"{field.name}={value}")
    return ":" + ",".join(shown) if shown else ""


def class_of(family: str, text: str) -> Any:
    """The class of the component that a text names; its settings are not read.

    Raises:
        UserError: unknown name (with the nearest one).
    """
    if own_code.is_own(text):
        return _own_class(family, own_code.split(text)[0])
    name = text.partition(":")[0]
    table = FAMILIES[family]
    if name not in table:
        raise UserError(f"unknown {family} {name!r}: {nearest(name, table)}")
    return _imported(table[name])


def _imported(home: str) -> Any:
    module, _, attribute = home.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _own_class(family: str, name: str) -> Any:
    """A class of the user's own, of the family that it is to fill a place in."""
    cls, shown = own_code.class_of(name), own_code.shown_name(name)
    bases = {other: _imported(home) for other, home in BASES.items()}
    if family in bases and not issubclass(cls, bases[family]):
        raise UserError(
            f"{shown} is no component for {family}: derive it from {_dotted(BASES[family])}"
        )
    if family in bases:
        return cls
    other = next((other for other, base in bases.items() if issubclass(cls, base)), None)
    if other is not None:
        raise UserError(f"{shown} is a component for {other}, not for {family}")
    if not hasattr(cls, WANTED[family]):
        raise UserError(
            f"{shown} is no component for {family}: it has no {WANTED[family]}, which all of them "
            "have"
        )
    return cls


def _dotted(home: str) -> str:
    return home.replace(":", ".")


def text_of(family: str, value: Any) -> str:
    """The text of a component of a family, which may be given as a value.

    >>> from monge.solvers import Dopri5
    >>> text_of("solver", Dopri5(rtol=0.01)), text_of("solver", "heun")
    ('dopri5:rtol=0.01', 'heun')

    Raises:
        UserError: a value that is no component of this family, or one of a class that no file
            holds.
    """
    if isinstance(value, (str, FilePath)):
        return str(value)
    if isinstance(value, type):
        raise UserError(f"{family} takes a component, not its class: write {value.__name__}(...)")
    if not isinstance(value, Component):
        raise UserError(
            f"{family} takes a component or its text, as {next(iter(FAMILIES[family]))!r}, not "
            f"a {type(value).__name__}"
        )
    kind = type(value)
    home = f"{kind.__module__}:{kind.__qualname__}"
    if home in FAMILIES[family].values() or own_code.is_own(kind.name):
        return repr(value)
    for other, table in FAMILIES.items():
        if home in table.values():
            raise UserError(f"{value!r} is a {other}, not a {family}")
    return own_code.name_of(kind) + _settings_text(value)


def build(family: str, text: str | Component) -> Any:
    """The component that a text names; a component itself is returned as it is.

    Raises:
        UserError: unknown name or setting (with the nearest one), or a value of the wrong type.
    """
    if not isinstance(text, str):
        text_of(family, text)  # refuses those of other families
        return text
    name, _, rest = text.partition(":")
    if own_code.is_own(text):
        name, rest = own_code.split(text)
    cls = class_of(family, text)
    settings = {}
    hints = _hints(cls, name)
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    for number, item in enumerate(filter(None, rest.split(","))):
        key, equals, value = item.partition("=")
        # A path may hold an equals sign; what stands before it is then no setting's name.
        if number == 0 and cls.positional and not (equals and key.isidentifier()):
            key, equals, value = cls.positional, "=", item
        if not equals:
            raise UserError(f"{family} {text!r}: {item!r} should read key=value")
        if key not in known:
            hint = nearest(key, known) if known else f"{name} has no settings"
            raise UserError(f"{family} {name!r} has no setting {key!r}: {hint}")
        if key in settings:
            raise UserError(f"{family} {text!r}: {key} is given twice")
        settings[key] = read_value(value, hints[key], f"{family} {name}:{key}")
    for key in _required(cls):
        if key not in settings:
            short = f"{name}:" if key == cls.positional else f"{name}:{key}="
            raise UserError(f"{family} {name!r} needs a {key}: write {short}{key.upper()}")
    if lacking := sorted(getattr(cls, "__abstractmethods__", ())):
        raise UserError(
            f"{own_code.shown_name(name)} does not define {', '.join(lacking)}, which every "
            f"component for {family} has to: write {'it' if len(lacking) == 1 else 'them'} in the "
            "class"
        )
    try:
        with own_faults.blamed():
            return cls(**settings)
    except TypeError as error:
        raise UserError(f"{family} {text!r}: {error}") from None


def _hints(cls: Any, name: str) -> dict[str, Any]:
    """The types of a component's settings."""
    try:
        return typing.get_type_hints(cls)
    except Exception as error:  # a name in a user's annotation that is none
        raise UserError(
            f"{own_code.shown_name(name)}: its annotations cannot be read: {error}"
        ) from None


def _required(cls: Any) -> list[str]:
    """The settings that have no default."""
    fields = [f for f in dataclasses.fields(cls) if f.init]
    missing = dataclasses.MISSING
    return [f.name for f in fields if f.default is missing and f.default_factory is missing]


def read_value(text: str, kind: Any, where: str) -> Any:
    """Read a text as a value of the annotated type: int, float, bool, str, path or optional.

    >>> read_value("1e-4", float, "lr"), read_value("none", int | None, "n")
    (0.0001, None)
    """
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        options = typing.get_args(kind)
        if type(None) in options and text.lower() in ("none", ""):
            return None
        options = [o for o in options if o is not type(None)]
        for option in options[:-1]:
            try:
                return read_value(text, option, where)
            except UserError:
                continue
        return read_value(text, options[-1], where)
    if typing.get_origin(kind) is typing.Literal:
        options = typing.get_args(kind)
        if "on" in options:  # a switch of three positions takes the words of one of two
            text = {"true": "on", "yes": "on", "false": "off", "no": "off"}.get(text.lower(), text)
        for option in options:
            if text == str(option):
                return option
        raise UserError(f"{where}: unknown value {text!r}: {nearest(text, map(str, options))}")
    if kind is bool:
        if text.lower() in ("true", "yes", "1"):
            return True
        if text.lower() in ("false", "no", "0"):
            return False
        raise UserError(f"{where} takes true or false, not {text!r}")
    if kind in (str, FilePath):
        return kind(text)
    try:
        return kind(text)
    except ValueError:
        expected = {int: "a whole number", float: "a number"}.get(kind, str(kind))
        raise UserError(f"{where} takes {expected}, not {text!r}") from None
