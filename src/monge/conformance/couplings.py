"""The laws of couplings, on 512 rows of four classes that lie far apart."""

from __future__ import annotations

import itertools

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from monge.conformance.measuring import DoesNotApply, Outcome, gap, holds, normal, within, worst
from monge.couplings import Coupling, MinibatchOT, source_like
from monge.tensors import stream

N, DIM, CLASSES = 512, 4, 4

LABEL = torch.arange(N) % CLASSES

DATA = normal(N, DIM, key="data") + 6 * normal(CLASSES, DIM, key="centres")[LABEL]

KOLMOGOROV = 2.2
"""sqrt(n) times the Kolmogorov-Smirnov statistic stays below it with probability 0.9999."""


def drawn(coupling: Coupling, label: Tensor | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    return coupling.pair(DATA.clone(), label, stream(seed, "pairs"))


def normality(x: Tensor) -> float:
    """sqrt(n) times the Kolmogorov-Smirnov distance of the pooled numbers from N(0, 1)."""
    flat = x.flatten().double().numpy()
    return float(scipy.stats.kstest(flat, "norm").statistic * np.sqrt(len(flat)))


def law_data_stay_in_place(coupling: Coupling) -> Outcome:
    """The data come back as they were given, row by row."""
    found = [drawn(coupling, label)[1] for label in (None, LABEL)]
    return worst(*(within("change of the data", gap(x1, DATA), 0.0) for x1 in found))


def law_source_is_standard_normal(coupling: Coupling) -> Outcome:
    """The source samples, taken together, are N(0, I)."""
    x0, _ = drawn(coupling)
    variance = (x0.square().mean() - 1) * (x0.numel() / 2) ** 0.5
    covariance = (x0.T @ x0 / N - torch.eye(DIM)).abs().max() * N**0.5
    return worst(
        within("sqrt(n) Kolmogorov distance from N(0, 1)", normality(x0), KOLMOGOROV),
        within("sqrt(n/2) |mean square - 1|", variance, 4.0),
        within("sqrt(n) |covariance - I|", covariance, 6.0),
    )


def law_each_noise_is_used_once(coupling: Coupling) -> Outcome:
    """No two data are joined to the same noise: nothing is drawn with replacement."""
    x0, _ = drawn(coupling)
    used = len(torch.unique(x0, dim=0))
    return holds(used == N, f"{N} data are joined to {used} different source samples")


def law_source_does_not_tell_the_class(coupling: Coupling) -> Outcome:
    """With labels, the source samples of each class are N(0, I): guidance starts from there."""
    x0, _ = drawn(coupling, LABEL)
    return worst(
        *(
            within(
                f"sqrt(n) Kolmogorov distance from N(0, 1) in class {k}",
                normality(x0[k == LABEL]),
                KOLMOGOROV,
            )
            for k in range(CLASSES)
        )
    )


def law_generator_decides(coupling: Coupling) -> Outcome:
    """Equal generators give equal pairs, others different ones."""
    for label in (None, LABEL):
        first, again = drawn(coupling, label)[0], drawn(coupling, label)[0]
        holds(torch.equal(first, again), "two draws by equal generators differ")
        other = drawn(coupling, label, seed=1)[0]
        holds(not torch.equal(first, other), "generators with different seeds give the same pairs")
    return within("difference", gap(first, again), 0.0)


def law_keeps_shape_and_precision(coupling: Coupling) -> Outcome:
    """Source samples have the shape and dtype of the data, images too."""
    found = []
    for dtype in (torch.float32, torch.float64):
        images = normal(8, 3, 4, 4, dtype=dtype)
        x0, x1 = coupling.pair(images, None, stream(0, "images"))
        same = x0.shape == x1.shape == images.shape and x0.dtype == x1.dtype == dtype
        holds(same, f"{tuple(images.shape)} {dtype} is joined to {tuple(x0.shape)} {x0.dtype}")
        found.append(within("change of the images", gap(x1, images), 0.0))
    return worst(*found)


def law_gaussian_means_independent(coupling: Coupling) -> Outcome:
    """Where it is declared Gaussian given the data, source and data are not correlated."""
    if not coupling.gaussian:
        return DoesNotApply("it is declared not to be Gaussian given the data")
    x0, x1 = drawn(coupling)
    centred = (x1 - x1.mean(0)) / x1.std(0)
    return within("sqrt(n) correlation", x0.T @ centred / N**0.5, 4.5)


def law_golden_value(coupling: Coupling) -> Outcome:
    """Monge's own: independent draws as they come, and the cheapest of all permutations."""
    if coupling.name not in ("independent", "ot"):
        return DoesNotApply("no pairs are known for it")
    x1 = normal(6, 2, key="few")
    draws = source_like(x1, stream(0, "few"))
    x0, _ = coupling.pair(x1, None, stream(0, "few"))
    cost = float((x0 - x1).square().sum())
    if not isinstance(coupling, MinibatchOT) and coupling.name == "independent":
        return within("difference from the generator's own draws", gap(x0, draws), 0.0)
    orders = torch.tensor(list(itertools.permutations(range(6))))
    least = float((draws[orders] - x1).square().sum((1, 2)).min())
    return within(f"cost above the least of 720 permutations, {least:.4g}", cost - least, 1e-9)
