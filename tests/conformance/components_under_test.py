"""Every component of monge's, by family: adding a component adds a row here."""

from __future__ import annotations

from typing import Any

import torch

import tiny_models
from monge.autoencoders import standardise
from monge.autoencoders.pca import PCASpec
from monge.components import FAMILIES, build
from monge.fields import Counted, Guided, Piecewise, Predict, posterior_mean
from monge.flows import Chain, Integrated, LearnedMap, tangent
from monge.networks.exact import ExactNetwork
from monge.networks.mlp import MLPSpec
from monge.paths import Linear, OrnsteinUhlenbeck, Path, Power, Trigonometric
from monge.solvers import RK4, Dopri5, Euler, Heun
from monge.targets.atoms import Atoms
from monge.targets.gaussian import Gaussian, GaussianSpec
from monge.targets.latent import LinearLatent
from monge.targets.mixture import GaussianMixture, MixtureSpec
from monge.targets.noised import noised
from monge.targets.product import Product
from monge.tensors import expand, stream
from monge.times import Geometric, Shifted, Uniform

SETTINGS = {
    "path": """ou:horizon=2 linear_beta:b0=0.5,b1=10 power:kappa=0.75 power:kappa=1
        power:kappa=2""",
    "coupling": "ot:plan=64",
    "times": "logit_normal:mean=-1,std=0.5",
    "grid": """uniform:n=1 uniform:n=7,stop=0.9 shifted:n=3,shift=0.5,stop=0.99
        geometric:n=9,stop=0.5""",
    "solver": "dopri5:rtol=1e-3,atol=1e-6",
    "network": """transformer:width=32,depth=2,heads=2,patch=2,token=4 mlp:width=32,depth=1
        lipschitz:cap=2,width=16,depth=1,heads=2,patch=2,token=4,feed=convex,clip_out=3
        piecewise:transformer:width=16+depth=1+heads=2,pieces=2""",
    "autoencoder": "pca:dim=3 conv:down=2,channels=2,width=8,blocks=1",
    "target": """gaussian:dim=1 mixture:dim=1,modes=2 gaussian:dim=6,condition=50
        mixture:dim=3,modes=3,covariance=shared mixture:dim=3,modes=3,covariance=full
        box:dim=1 hypercube:dim=3,half=2 product:dim=2,laws=student+exponential
        latent:dim=4,noise=0,modes=2""",
}
"""Texts beside the default settings of each component."""

NEED_FILES = ("diffusers", "taesd", "mlp_vae")
"""Autoencoders that have no default settings: weights come from files."""


def texts(family: str) -> list[str]:
    """What is built of a family: default settings, others, and tiny models where files are due."""
    defaults = [name for name in FAMILIES[family] if name not in NEED_FILES]
    files = tiny_models.texts().values() if family == "autoencoder" else ()
    return [*defaults, *SETTINGS[family].split(), *(text for some in files for text in some)]


NAMED: dict[str, list[Any]] = {
    family: [build(family, text) for text in texts(family)] for family in SETTINGS
}
"""Of all families that have laws; objectives and pairs of times have tests of their own."""

assert FAMILIES.keys() - SETTINGS.keys() == {"objective", "pairs"}

PATHS: list[Path] = NAMED["path"]

MIXTURE = MixtureSpec(dim=2, modes=3, spread=1.0, covariance="full").build()

GAUSSIAN = GaussianSpec(dim=3, condition=20.0).build()

LINE = GaussianMixture(
    torch.tensor([[-1.5], [1.0]]), torch.tensor([0.2, 0.5]), torch.tensor([0.4, 0.6])
)

POINTS = Atoms(
    torch.randn(6, 2, generator=stream(0, "points"), dtype=torch.float64),
    torch.arange(1.0, 7.0),
    torch.tensor([0, 1, 2, 2, 1, 0]),
)

EXACT = MIXTURE.field(Linear())


def image_field(x: torch.Tensor, t: Any, cond: Any = None) -> torch.Tensor:
    """A field on images that is not linear and mixes the pixels of an image."""
    rate = expand(torch.as_tensor(t, dtype=x.dtype), x)
    return torch.sin(x.roll(1, -1) + 2 * rate) - rate * x


class ImageField:
    """`image_field`, which says what its states are."""

    shape = (1, 4, 4)

    def __call__(self, x: torch.Tensor, t: Any, cond: Any = None) -> torch.Tensor:
        return image_field(x, t, cond)


def trained_mlp() -> Any:
    """A network that is not zero, with labels."""
    network = MLPSpec(width=16, depth=2).build((2,), 2).double()
    rng = stream(0, "test")
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=rng).double()
    return network


FIELDS: list[Any] = [
    EXACT,
    GAUSSIAN.field(Power(0.75)),
    ImageField(),
    *(
        Predict(ExactNetwork(MIXTURE, path, output), path, output)
        for path in PATHS
        for output in ("velocity", "data", "noise", "score")
    ),
    Predict(trained_mlp(), Trigonometric(), "data"),
    Guided(EXACT, 1.0),
    Guided(EXACT, 2.0),
    Guided(EXACT, 3.0, (0.2, 0.7)),
    Guided(EXACT, 0.5, (0.4, 1.0)),
    Guided(Predict(trained_mlp(), OrnsteinUhlenbeck(), "noise"), 2.0, (0.0, 0.5)),
    Piecewise((EXACT, MIXTURE.field(Trigonometric()), EXACT), (0.0, 0.3, 0.8, 1.0)),
    Piecewise((Guided(EXACT, 2.0, (0.1, 0.6)), EXACT), (0.0, 0.5, 1.0)),
    Counted(Guided(EXACT, 2.0, (0.2, 0.7))),
    posterior_mean(EXACT, Linear()),
    tangent(Chain((Integrated(EXACT), Integrated(MIXTURE.field(Power(0.75)))))),
    tangent(LINE.flow_map(Linear())),
]

FLOWS: list[Any] = [
    GAUSSIAN.flow_map(Linear()),
    Gaussian(torch.zeros(2), torch.tensor([0.5, 2.0])).flow_map(Power(0.75)),
    LINE.flow_map(OrnsteinUhlenbeck()),
    Product([LINE, GAUSSIAN]).flow_map(Trigonometric()),
    LinearLatent(LINE, torch.eye(2)[:, :1].double(), 0.3).flow_map(Trigonometric()),
    *(Integrated(EXACT, solver, Uniform(6)) for solver in (Euler(), RK4(), Dopri5())),
    *(Integrated(EXACT, Heun(), grid) for grid in (Shifted(5), Geometric(5))),
    Integrated(EXACT, Heun(), per_span=4),
    Integrated(MIXTURE.field(OrnsteinUhlenbeck()), RK4(), Uniform(8)),
    Integrated(
        Predict(ExactNetwork(MIXTURE, Linear(), "noise"), Linear(), "noise"), Heun(), Uniform(8)
    ),
    Integrated(Guided(EXACT, 2.0, (0.2, 0.7)), Heun(), Uniform(8)),
    Integrated(Guided(EXACT, 2.0, (0.2, 0.7)), Dopri5()),
    Integrated(Piecewise((EXACT, MIXTURE.field(Trigonometric())), (0.0, 0.45, 1.0)), Euler()),
    Integrated(ImageField(), RK4(), Uniform(5)),
    Chain((Integrated(EXACT, Heun(), Uniform(4)), Integrated(MIXTURE.field(Power(0.75))))),
    Chain((LINE.flow_map(Linear()), Integrated(LINE.field(Trigonometric())))),
    LearnedMap(lambda x, s, t, cond: torch.sin(x) + expand(s * t, x)),
]

OTHERS: dict[str, list[Any]] = {
    "field": FIELDS,
    "flow": FLOWS,
    "autoencoder": [
        standardise(
            PCASpec().build((1, 4, 4)).fit(torch.randn(99, 1, 4, 4, generator=stream(0, "x"))),
            torch.randn(99, 1, 4, 4, generator=stream(1, "x")),
        )
    ],
    "network": [ExactNetwork(MIXTURE, Power(0.75), "score"), trained_mlp()],
    "target": [
        GAUSSIAN,
        MIXTURE,
        LINE,
        Gaussian(torch.zeros(2), torch.tensor(4.0)),
        POINTS,
        Product([LINE, GAUSSIAN, LINE]),
        noised(POINTS, 0.8, 0.3),
        noised(build("target", "box:dim=1").build(), 1.0, 0.2),
    ],
}
