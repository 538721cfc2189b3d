"""How far samples are from data: estimators with intervals, floors and baselines."""

from monge.metrics.coverage import Support, support
from monge.metrics.divergences import Divergences
from monge.metrics.frechet import frechet_at_infinity, frechet_distance, frechet_floor
from monge.metrics.intervals import Interval
from monge.metrics.memorisation import nearest_neighbours
from monge.metrics.mmd import kernel_distance, mmd_squared, mmd_test
from monge.metrics.sinkhorn import sinkhorn_divergence
from monge.metrics.table import Row, Table
from monge.metrics.two_sample import classifier_test, energy_distance, energy_test, permutation_test
from monge.metrics.wasserstein import (
    exact_w2_squared,
    gaussian_w2_squared,
    max_sliced_w2_squared,
    sliced_w2_squared,
)

__all__ = [
    "Divergences",
    "Interval",
    "Row",
    "Support",
    "Table",
    "classifier_test",
    "energy_distance",
    "energy_test",
    "exact_w2_squared",
    "frechet_at_infinity",
    "frechet_distance",
    "frechet_floor",
    "gaussian_w2_squared",
    "kernel_distance",
    "max_sliced_w2_squared",
    "mmd_squared",
    "mmd_test",
    "nearest_neighbours",
    "permutation_test",
    "sinkhorn_divergence",
    "sliced_w2_squared",
    "support",
]


def __dir__() -> list[str]:
    return __all__
