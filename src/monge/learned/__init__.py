"""`Learned`: one interface for velocity fields, flow maps and chains.

`LearnedVelocity` is a velocity field that a solver integrates, `LearnedFlowMap` a map that jumps.
An objective names the kind that it trains (`learns`); `kind_of` finds its class. Code outside this
package does not distinguish the kinds.
"""

from monge.learned.base import JUMPS, Draw, Learned, Program, Settings
from monge.learned.flow_map import LearnedFlowMap
from monge.learned.kinds import kind_of
from monge.learned.velocity import LearnedVelocity

__all__ = [
    "JUMPS",
    "Draw",
    "Learned",
    "LearnedFlowMap",
    "LearnedVelocity",
    "Program",
    "Settings",
    "kind_of",
]


def __dir__() -> list[str]:
    return __all__
