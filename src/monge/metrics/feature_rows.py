"""What a feature network says of samples, as rows of the table.

The Frechet distance in its features, at n and extrapolated to infinite n, by the protocol of every
comparison (`comparisons`): one n for samples, held-out set, floors and baselines. And how often
the network sees the class that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from monge.errors import UserError
from monge.metrics import intervals
from monge.metrics.comparisons import Comparison, Head, draw
from monge.metrics.features import FeatureNetwork, FeatureSet
from monge.metrics.frechet import PARTS, frechet_at_infinity, frechet_distance, frechet_floor
from monge.metrics.intervals import Interval
from monge.metrics.labels import SHUFFLED, agreement, agreement_if_shuffled
from monge.metrics.samples import Samples
from monge.metrics.table import Row

MAX_N = 10_000
"""The most examples of a Frechet distance; its cost grows as n, that of other rows as n^2."""


def feature_rows(
    network: FeatureNetwork,
    samples: FeatureSet,
    train: FeatureSet,
    heldout: FeatureSet,
    baselines: Mapping[str, FeatureSet],
    seed: int = 0,
    max_n: int = MAX_N,
) -> list[Row]:
    """Frechet distance and label agreement under a feature network.

    The distance compares n = the smallest of samples, training and held-out set and `max_n`;
    the agreement, which is missing where samples or held-out examples have no labels, takes all.

    Args:
        train: real examples independent of the held-out ones, up to 3 n for the floor.
        baselines: other sets in the samples' place, at least n, by name; at least one.

    Raises:
        UserError: fewer than 20 examples in a set, or a baseline of fewer than n.
    """
    n = min(len(samples.x), len(train.x), len(heldout.x), max_n)
    for name, data in baselines.items():
        if len(data.x) < n:
            raise UserError(f"baseline {name!r}: {len(data.x)} examples are too few, {n} needed")
    others = {name: data.x for name, data in baselines.items()}
    draws = draw(samples.x, train.x, heldout.x, others, n, seed)
    listed = feature_comparisons(network, draws.real, n, seed)
    rows = [row for comparison in listed for row in comparison.rows(draws, seed)]
    if samples.label is not None and heldout.label is not None:
        rows += _agreement(network, samples, heldout, baselines, seed)
    return rows


def feature_comparisons(
    network: FeatureNetwork, real: Samples, n: int, seed: int
) -> tuple[Comparison, ...]:
    """The comparisons of two sets of n features of a network; `real` are those of real examples."""
    return (_frechet(network, real, n, seed),)


def _frechet(network: FeatureNetwork, real: Samples, n: int, seed: int) -> Comparison:
    name, d = f"Frechet distance ({network.name})", real.shape[1]
    heads = [Head(name, _student, "lower", "feature units²")]
    if extrapolated := n // PARTS[-1] >= d:
        heads.append(Head(f"{name}, n → ∞", _student, "lower", "feature units²"))

    def estimate(x: Samples, y: Samples) -> tuple[float, ...]:
        at_n = frechet_distance(x, y)
        return (at_n, frechet_at_infinity(x, y, seed)) if extrapolated else (at_n,)

    settings = {
        **_protocol(network),
        "estimator": f"means and unbiased covariances of {d} features",
        "analytic floor at n": frechet_floor(real, n),
    }
    if extrapolated:
        settings["n → ∞"] = "line in 1/n through n, n/2, n/3, n/4"
    return Comparison(estimate, tuple(heads), settings)


def _agreement(
    network: FeatureNetwork,
    samples: FeatureSet,
    heldout: FeatureSet,
    baselines: Mapping[str, FeatureSet],
    seed: int,
) -> list[Row]:
    assert samples.label is not None and heldout.label is not None
    if not (samples.label >= 0).any() or not (heldout.label >= 0).any():
        return []
    found = agreement(samples.predicted, samples.label)
    real = agreement(heldout.predicted, heldout.label)
    interval = found.overall_interval()
    others = {
        name: agreement(data.predicted, data.label).overall
        for name, data in baselines.items()
        if data.label is not None and (data.label >= 0).any()
    }
    chance, _ = agreement_if_shuffled(samples.predicted, samples.label)
    return [
        Row(
            name=f"label agreement ({network.name})",
            value=found.overall,
            interval=(interval.low, interval.high),
            interval_method=interval.method,
            floor=real.overall,
            baselines={**others, SHUFFLED: chance},
            n=found.n,
            protocol={
                **_protocol(network),
                "floor": f"the network on {real.n} held-out examples",
                "seed": seed,
            },
            better="higher",
        )
    ]


def _protocol(network: FeatureNetwork) -> dict[str, str | int | float]:
    return {
        "network": network.name,
        "weights": f"sha256 {network.weights}",
        "images": "in [-1, 1]",
    }


def _student(value: float, stderr: float, n: int) -> Interval:
    return intervals.student(value, stderr)
