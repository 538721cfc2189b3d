"""What a feature network says of samples, as rows of the table.

The Frechet distance in its features, at n and extrapolated to infinite n, and the kernel distance,
by the protocol of every comparison (`comparisons`): one n for samples, held-out set, floors and
baselines. How often the network sees the class that was asked for. And copies of training
examples, which may be shifted or recoloured out of sight of the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

from monge.errors import UserError
from monge.metrics import intervals
from monge.metrics.catalogue import Comparison, Head, draw
from monge.metrics.copies import Searched, copies_row
from monge.metrics.evaluate import TRAINING_SET
from monge.metrics.features import FeatureNetwork, FeatureSet
from monge.metrics.frechet import PARTS, frechet_at_infinity, frechet_distance, frechet_floor
from monge.metrics.intervals import Interval
from monge.metrics.labels import SHUFFLED, agreement, agreement_if_shuffled
from monge.metrics.memorisation import distance_rows, nearest_neighbours
from monge.metrics.mmd import BLOCK, kernel_distance
from monge.metrics.samples import Samples
from monge.metrics.table import Row

MAX_N = 10_000
"""The most examples of a comparison; its cost grows as n."""

MAX_KNOWN = 50_000
"""The most training examples whose features are taken; copies are looked for among them."""


def feature_rows(
    network: FeatureNetwork,
    samples: FeatureSet,
    train: FeatureSet,
    heldout: FeatureSet,
    baselines: Mapping[str, FeatureSet],
    seed: int = 0,
    max_n: int = MAX_N,
    searched: Searched | None = None,
) -> list[Row]:
    """Frechet and kernel distance, label agreement and copies under a feature network.

    Distances compare n = the smallest of samples, training and held-out set and `max_n`; the
    agreement, which is missing where samples or held-out examples have no labels, takes all, and
    so do the nearest training examples.

    Args:
        train: the training examples, or as many as can be had.
        baselines: other sets in the samples' place, at least n, by name; at least one.
        searched: features among which copies are looked for, if not in those of `train`.

    Raises:
        UserError: fewer than 20 examples in a set, or a baseline of fewer than n.
    """
    n = min(len(samples.x), len(train.x), len(heldout.x), max_n)
    for name, data in baselines.items():
        if len(data.x) < n:
            raise UserError(f"baseline {name!r}: {len(data.x)} examples are too few, {n} needed")
    others = {name: data.x for name, data in baselines.items()}
    draws = draw(samples.x, train.x, heldout.x, others, n, seed)
    group, settings = f"In the features of {network.name}", _protocol(network)
    listed = feature_comparisons(network, draws.real, n, seed, withhold=True)
    rows = [row for comparison in listed for row in comparison.rows(draws, seed)]
    if samples.label is not None and heldout.label is not None:
        rows += _agreement(network, samples, heldout, baselines, seed, group)
    beside = {k: nearest_neighbours(x, train.x) for k, x in draws.baselines.items()}
    near, far = (nearest_neighbours(x.x, train.x) for x in (samples, heldout))
    direct = searched is None
    searched = searched or Searched.directly(samples.x, heldout.x, train.x, seed)
    apart = {k: x for k, x in draws.baselines.items() if direct or k != TRAINING_SET}
    rows.append(copies_row(searched, apart, space=network.name, group=group, settings=settings))
    return rows + distance_rows(
        near, far, beside, len(train.x), space=network.name, group=group, settings=settings
    )


def feature_comparisons(
    network: FeatureNetwork, real: Samples, n: int, seed: int, withhold: bool = False
) -> tuple[Comparison, ...]:
    """The comparisons of two sets of n features of a network; `real` are those of real examples."""
    group, settings = f"In the features of {network.name}", _protocol(network)
    name, unit = f"({network.name})", "feature units²"
    return (
        frechet(name, real, n, seed, unit, group, settings, withhold),
        kernel(name, seed, group, settings),
    )


def frechet(
    name: str,
    real: Samples,
    n: int,
    seed: int,
    unit: str,
    group: str,
    settings: Mapping[str, str | int | float],
    withhold: bool = True,
) -> Comparison:
    """The Frechet distance at n and, where n is well above the dimension, at infinite n.

    Args:
        name: of the space, for the rows.
        real: (n, d), examples for the analytic floor.
        withhold: whether it is withheld where n is no larger than d. Covariances are singular then,
            and the bias depends on the samples more than their distance does: narrow sets seem
            better than real data. Two sets at equal n against one reference are still compared.
    """
    title, d = f"Frechet distance {name}", real.shape[1]
    heads = [Head(title, _student, "lower", unit)]
    if extrapolated := n // PARTS[-1] >= d:
        heads.append(Head(f"{title}, n → ∞", _student, "lower", unit))

    def estimate(x: Samples, y: Samples) -> tuple[float, ...]:
        at_n = frechet_distance(x, y)
        return (at_n, frechet_at_infinity(x, y, seed)) if extrapolated else (at_n,)

    protocol = {
        **settings,
        "estimator": f"means and unbiased covariances of {d} numbers",
        "analytic floor at n": frechet_floor(real, n),
    }
    if extrapolated:
        protocol["n → ∞"] = "line in 1/n through n, n/2, n/3, n/4"
    reason = meaningless(d, n) if withhold else ""
    return Comparison(estimate, tuple(heads), protocol, group=group, withheld=reason)


def meaningless(d: int, n: int) -> str:
    """Why a Frechet distance of d numbers from n examples is withheld; empty where it is not.

    >>> meaningless(256, 160)
    'withheld: 160 examples cannot give the covariance of 256 numbers; more than 256 are needed'
    >>> meaningless(64, 160)
    ''
    """
    if n > d:
        return ""
    return (
        f"withheld: {n} examples cannot give the covariance of {d} numbers; more than {d} are "
        "needed"
    )


def kernel(
    name: str, seed: int, group: str, settings: Mapping[str, str | int | float]
) -> Comparison:
    """The kernel distance, unbiased at every n."""
    protocol = {
        **settings,
        "estimator": "unbiased MMD² of the kernel (x·y/d + 1)³",
        "blocks of at most": BLOCK,
    }
    return Comparison(
        lambda x, y: (kernel_distance(x, y, seed),),
        (Head(f"kernel distance {name}", _student_of_root, "lower"),),
        protocol,
        group=group,
    )


def _agreement(
    network: FeatureNetwork,
    samples: FeatureSet,
    heldout: FeatureSet,
    baselines: Mapping[str, FeatureSet],
    seed: int,
    group: str,
) -> list[Row]:
    assert samples.label is not None and heldout.label is not None
    if samples.predicted is None or heldout.predicted is None:
        return []
    if not (samples.label >= 0).any() or not (heldout.label >= 0).any():
        return []
    found = agreement(samples.predicted, samples.label)
    real = agreement(heldout.predicted, heldout.label)
    interval = found.overall_interval()
    others = {
        name: agreement(data.predicted, data.label).overall
        for name, data in baselines.items()
        if data.label is not None and data.predicted is not None and (data.label >= 0).any()
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
            group=group,
        )
    ]


def _protocol(network: FeatureNetwork) -> dict[str, str | int | float]:
    return {"network": network.name, **network.settings}


def _student(value: float, stderr: float, n: int) -> Interval:
    return intervals.student(value, stderr)


def _student_of_root(value: float, stderr: float, n: int) -> Interval:
    return intervals.student_of_root(value, stderr)
