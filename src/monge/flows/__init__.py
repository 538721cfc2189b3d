"""Flow maps: where a sample at time s is at time t. The heart.

`Integrated` makes a map of a velocity field by an ODE solver, `LearnedMap` is a network that
jumps, `Chain` strings maps together. `tangent` leads back to a velocity field, `inverse` undoes
a map. `log_density` carries a density along a flow, `jump_log_density` along the jumps of a map.

Reference: Flow map matching (Boffi et al., 2024), Sec. 2 -- https://arxiv.org/abs/2406.07507
"""

from monge.flows.chain import Chain
from monge.flows.density import Density, log_density, standard_normal_log_density
from monge.flows.integrated import Integrated, Running, check_span
from monge.flows.jump_density import jump_log_density
from monge.flows.maps import Composed, LearnedMap, MeanVelocity, inverse, tangent
from monge.flows.walk import Walk

__all__ = [
    "Chain",
    "Composed",
    "Density",
    "Integrated",
    "LearnedMap",
    "MeanVelocity",
    "Running",
    "Walk",
    "check_span",
    "inverse",
    "jump_log_density",
    "log_density",
    "standard_normal_log_density",
    "tangent",
]


def __dir__() -> list[str]:
    return __all__
