"""Training objectives: what a network is asked to be."""

from monge.objectives.base import Loss, Objective
from monge.objectives.flow_map import FlowMapMatching
from monge.objectives.flow_matching import FlowMatching, FlowMatchingSpec, ReflowSpec
from monge.objectives.rules.consistency import (
    Consistency,
    ConsistencyTraining,
    ContinuousConsistency,
    ContinuousConsistencyTraining,
)
from monge.objectives.rules.eulerian import Eulerian, ImprovedMeanFlow, MeanFlow, SelfEulerian
from monge.objectives.rules.lagrangian import FlowMapRule, Lagrangian, SelfLagrangian
from monge.objectives.rules.semigroup import Progressive, SelfSemigroup, Shortcut

__all__ = [
    "Consistency",
    "ConsistencyTraining",
    "ContinuousConsistency",
    "ContinuousConsistencyTraining",
    "Eulerian",
    "FlowMapMatching",
    "FlowMapRule",
    "FlowMatching",
    "FlowMatchingSpec",
    "ImprovedMeanFlow",
    "Lagrangian",
    "Loss",
    "MeanFlow",
    "Objective",
    "Progressive",
    "ReflowSpec",
    "SelfEulerian",
    "SelfLagrangian",
    "SelfSemigroup",
    "Shortcut",
]


def __dir__() -> list[str]:
    return __all__
