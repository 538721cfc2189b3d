"""Networks: functions of (x, t, cond) shaped like x. They know no flow."""

from monge.networks.bounds import Certificate
from monge.networks.certificate import velocity_certificate
from monge.networks.exact import ExactNetwork
from monge.networks.lipschitz import LipschitzSpec, LipschitzTransformer
from monge.networks.mlp import MLP, MLPSpec
from monge.networks.piecewise import Piecewise, PiecewiseSpec
from monge.networks.transformer import Transformer, TransformerSpec

__all__ = [
    "MLP",
    "Certificate",
    "ExactNetwork",
    "LipschitzSpec",
    "LipschitzTransformer",
    "MLPSpec",
    "Piecewise",
    "PiecewiseSpec",
    "Transformer",
    "TransformerSpec",
    "velocity_certificate",
]


def __dir__() -> list[str]:
    return __all__
