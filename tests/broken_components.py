"""Components of a user's own that are broken, each in one way: source texts by kind and fault."""

from __future__ import annotations

from dataclasses import dataclass

HEAD = """
import torch
from dataclasses import dataclass
from torch import nn
from monge.autoencoders.base import AutoencoderModule, AutoencoderSpec
from monge.components import Component
from monge.couplings import Coupling
from monge.objectives.flow_matching import FlowMatchingSpec
from monge.objectives.rules.base import Rule
from monge.objectives.rules.lagrangian import SelfLagrangian
from monge.paths import Path
from monge.solvers import Solver
from monge.targets.base import Target, TargetSpec
from monge.targets.gaussian import GaussianSpec
from monge.times import TimeLaw
from monge.types import Posterior

"""


@dataclass(frozen=True)
class Kind:
    """How a kind of component is written.

    Attributes:
        flag: of `monge train`; "target" is the data.
        base: the class that it derives from.
        method: the method that is called in training, with its arguments.
        result: what an honest one returns.
        flat: what returns a wrong shape.
        nan: what returns numbers that are not finite.
        outer: the class around the method, where it is not the component itself.
        lacks: what an empty class is told that it lacks.
    """

    flag: str
    base: str
    method: str
    result: str
    flat: str
    nan: str
    lacks: str
    outer: str = ""


NETWORK = """class Broken(Component):
    INIT
    def build(self, shape, n_classes=None, n_vector=0, rng=None):
        return Net()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))

    METHOD
"""
AUTOENCODER = """class Broken(AutoencoderSpec):
    INIT
    def build(self, data_shape, latent_shape=None, rng=None):
        return Module(self, data_shape, data_shape)


class Module(AutoencoderModule):
    METHOD

    def decode(self, z):
        return z
"""
TARGET = """class Broken(TargetSpec):
    INIT
    def build(self):
        return Law()


class Law(Target):
    dim = 2

    METHOD

    def at(self, path):
        raise NotImplementedError

    n_classes = None
    smooth = True
    mean = torch.zeros(2)
    covariance = torch.eye(2)
"""
PLAIN = """class Broken(BASE):
    INIT
    METHOD
"""

KINDS = {
    "path": Kind(
        "--path", "Path", "scales(self, t)", "t, 1 - t", "t[:1], t[:1]", "t * torch.nan, t",
        "scales",
    ),
    "coupling": Kind(
        "--coupling", "Coupling", "pair(self, x1, label, rng)", "torch.zeros_like(x1), x1",
        "x1[:1], x1", "x1 * torch.nan, x1", "pair",
    ),
    "times": Kind(
        "--times", "TimeLaw", "unit(self, n, rng)", "torch.rand(n, generator=rng)",
        "torch.rand(n, 1)", "torch.full((n,), torch.nan)", "unit",
    ),
    "solver": Kind(
        "--solver", "Solver", "advance(self, f, y, s, t)", "y", "tuple(v[:1] for v in y)",
        "tuple(v * torch.nan for v in y)", "advance",
    ),
    "network": Kind(
        "--network", "Component", "forward(self, x, t, cond=None)", "self.w * x", "self.w * x[:1]",
        "self.w * x * torch.nan", "build", NETWORK,
    ),
    "autoencoder": Kind(
        "--autoencoder", "AutoencoderSpec", "encode(self, x)", "Posterior(x)", "Posterior(x[:1])",
        "Posterior(x * torch.nan)", "build", AUTOENCODER,
    ),
    "target": Kind(
        "target", "TargetSpec", "sample_labelled(self, n, rng)", "torch.zeros(n, 2), None",
        "torch.zeros(n, 3), None", "torch.full((n, 2), torch.nan), None", "build", TARGET,
    ),
    "objective": Kind(
        "--objective", "SelfLagrangian", "residuals(self, at)", "(at.x,)", "(at.x[:1],)",
        "(at.x * torch.nan,)", "learns",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One way to be broken.

    Attributes:
        body: of the method.
        told: what the message says; FILE, LINE and METHOD are filled in.
        init: a method of the component.
        text: of the whole file, instead.
    """

    told: tuple[str, ...]
    body: str = "return RESULT"
    init: str = ""
    text: str = ""


FAULTS = {
    "raises when made": Fault(
        ("FILE, line LINE", "Broken.__post_init__", "ValueError: no such luck"),
        init="def __post_init__(self): raise ValueError('no such luck')  # here",
    ),
    "raises when called": Fault(
        ("FILE, line LINE", "METHOD", "ZeroDivisionError"),
        "a = 1\n        return a / 0  # here",
    ),
    "returns another shape": Fault(("FILE, line LINE", "METHOD", "shape"), "return FLAT"),
    "returns NaN": Fault(("FILE, line LINE", "METHOD", "not finite"), "return NAN"),
    "returns None": Fault(("FILE, line LINE", "METHOD", "None"), "return None"),
    "lacks its method": Fault(
        ("FILE:Broken", "LACKS"), text=HEAD + "class Broken(EMPTY):\n    pass\n"
    ),
    "imports what is not there": Fault(
        ("FILE, line LINE", "nosuchpackage"), text="import nosuchpackage  # here\n"
    ),
    "is of another kind": Fault(
        ("FILE:Broken",), text=HEAD + "class Broken(OTHER):\n    pass\n"
    ),
    "has no base": Fault(("FILE: Broken is no component",), text="class Broken:\n    pass\n"),
    "cannot be read": Fault(
        ("FILE, line LINE", "SyntaxError"), text="x = 1\ndef f(:  # here\n    pass\n"
    ),
    "has another name": Fault(("FILE has no class 'Broken'",), text=HEAD + "class Brokn: pass\n"),
}  # fmt: skip


def source(kind: Kind, fault: Fault) -> str:
    """The text of mine.py."""
    text = fault.text or HEAD + (kind.outer or PLAIN)
    method = f"def {kind.method}:\n        {fault.body}"
    if not fault.body.startswith("a = 1"):
        method = method.replace(":\n", ":  # here\n", 1) if not fault.init else method
    other = "TimeLaw" if kind.base != "TimeLaw" else "Solver"
    empty = "Component" if kind.lacks in ("learns",) else kind.base
    for word, value in {
        "METHOD": method, "INIT": fault.init, "BASE": kind.base, "EMPTY": empty, "OTHER": other,
        "RESULT": kind.result, "FLAT": kind.flat, "NAN": kind.nan,
    }.items():  # fmt: skip
        text = text.replace(word, value)
    return text


def told(kind: Kind, fault: Fault, file: str, text: str) -> list[str]:
    """What the message holds."""
    line = next((n for n, row in enumerate(text.splitlines(), 1) if "# here" in row), 0)
    method = kind.method.partition("(")[0]
    return [
        word.replace("FILE", file)
        .replace("LINE", str(line))
        .replace("METHOD", f".{method}")
        .replace("LACKS", kind.lacks)
        for word in fault.told
    ]
