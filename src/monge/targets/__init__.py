"""Laws with exact ground truth under any affine path: what every algorithm is first run on."""

from monge.targets.atoms import Atoms
from monge.targets.base import ExactField, JacobianRange, Marginals, Target, TargetSpec
from monge.targets.coordinates import box, hypercube
from monge.targets.densities import Line, Uniform, beta, exponential, laplace, student
from monge.targets.gaussian import Gaussian, GaussianMap
from monge.targets.latent import LinearLatent
from monge.targets.line import QuantileMap
from monge.targets.minimal_loss import minimal_loss_on_the_line
from monge.targets.mixture import GaussianMixture
from monge.targets.noised import Noised
from monge.targets.product import Product
from monge.targets.pushforward import Pushforward
from monge.targets.wasserstein import early_stopping, wasserstein2

__all__ = [
    "Atoms",
    "ExactField",
    "Gaussian",
    "GaussianMap",
    "GaussianMixture",
    "JacobianRange",
    "Line",
    "LinearLatent",
    "Marginals",
    "Noised",
    "Product",
    "Pushforward",
    "QuantileMap",
    "Target",
    "TargetSpec",
    "Uniform",
    "beta",
    "box",
    "early_stopping",
    "exponential",
    "hypercube",
    "laplace",
    "minimal_loss_on_the_line",
    "student",
    "wasserstein2",
]


def __dir__() -> list[str]:
    return __all__
