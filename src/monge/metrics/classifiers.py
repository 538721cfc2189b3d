r"""Classifier two-sample tests as strong as what users run: the strongest of several classifiers.

| classifier | sees | set against |
|---|---|---|
| kernel machine | the numbers of an example, smoothly | shifts, modes, correlations |
| boosted trees | rows of a table in their own units, categories | thresholds, shared values |
| patches | responses of an image to its own whitened patches | texture, blur, noise |

Each is cross-fitted in two halves: an example is scored once, by the classifier that was trained on
the other half. The statistic is the largest of their K areas under the ROC curve. Its p-value is K
times the smallest of theirs (Bonferroni), and its interval is at the level 1 - 0.05 / K, so that
the maximum costs nothing in honesty. The kernel machine alone is `two_sample.classifier_test`.

References:
    | Revisiting classifier two-sample tests (Lopez-Paz and Oquab, 2017)
    |   -- https://arxiv.org/abs/1610.06545
    | An analysis of single-layer networks in unsupervised feature learning (Coates, Ng and Lee,
    |   2011), Sec. 3
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from monge.metrics.intervals import Interval, auc_interval
from monge.metrics.samples import Samples, Values
from monge.metrics.two_sample import ClassifierTest, classifier_test, cross_fitted
from monge.tensors import stream

KERNEL, TREES, PATCHES = "kernel machine", "boosted trees", "patches"

ITERATIONS = 60
LEAVES = 15
BINS = 1000
"""Of all columns of a table together, from 63 to 255 each: the cost of a tree goes by them."""

FILTERS = 48
PATCH_SHARE = 3
"""The side of a patch: that of the image over this, between 2 and 6 pixels."""

BLOCK = 250
"""Images whose responses are computed at once."""


@dataclass(frozen=True)
class Judges:
    """The classifiers of one kind of data.

    Args:
        shape: of an image (C, H, W); None for rows.
        categorical: for each column of a table whether it is a code; None where rows are no
            table. A table's numbers in their own units follow those of the kernel machine.
    """

    shape: tuple[int, ...] | None = None
    categorical: tuple[bool, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The classifiers, in the order of their areas."""
        second = () if self.categorical is None else (TREES,)
        return (KERNEL, *second, *(() if self.shape is None else (PATCHES,)))

    def tests(self, x: Samples, y: Samples, seed: int) -> list[ClassifierTest]:
        """Each classifier's test between two sets of any sizes.

        Args:
            x, y: (n, d) and (m, d); of a table (n, d + columns) and (m, d + columns).
        """
        own = 0 if self.categorical is None else len(self.categorical)
        d = x.shape[1] - own
        found = [classifier_test(x[:, :d], y[:, :d], seed)]
        if self.categorical is not None:
            trees = boosted_trees(self.categorical)
            found.append(cross_fitted(x[:, d:].numpy(), y[:, d:].numpy(), trees, seed))
        if self.shape is not None:
            responses = patch_responses(torch.cat([x, y]), self.shape, seed).numpy()
            found.append(cross_fitted(responses[: len(x)], responses[len(x) :], _linear, seed))
        return found

    def strongest(self, x: Samples, y: Samples, seed: int) -> tuple[float, ...]:
        """The largest area and that classifier's accuracy; then the area of each."""
        found = self.tests(x, y, seed)
        best = max(found, key=lambda test: test.auc)
        return best.auc, best.accuracy, *(test.auc for test in found)

    def interval(self, value: float, n: int) -> Interval:
        """The interval of the largest area, from n scores of each set, of which half count.

        The p-value is two-sided, and below 0.05 exactly where the interval lies above 1/2.
        """
        k = len(self.names)
        found = auc_interval(value, n // 2, n // 2, 1 - 0.05 / k)
        assert found.p_value is not None
        method = found.method if k == 1 else f"{found.method}, for the largest of {k} areas"
        return Interval(found.low, found.high, method, min(1.0, 2 * k * found.p_value))

    def describe(self) -> str:
        """The classifiers in words, for the protocol."""
        words = {
            KERNEL: "RBF-SVM (C = 10)",
            TREES: f"histogram gradient boosting ({ITERATIONS} trees of {LEAVES} leaves, "
            "categories as such)",
            PATCHES: f"logistic regression on responses to {FILTERS} whitened patches",
        }
        several = "; the largest area" if len(self.names) > 1 else ""
        listed = ", ".join(words[name] for name in self.names)
        return f"{listed}, cross-fitted in two halves{several}"


def image_shape(x: Tensor) -> tuple[int, ...] | None:
    """The shape of an image where examples (N, C, H, W) are ones of at least 6 pixels a side.

    >>> image_shape(torch.zeros(3, 1, 8, 8)), image_shape(torch.zeros(3, 2))
    ((1, 8, 8), None)
    """
    large = x.ndim == 4 and min(x.shape[2:]) >= 6 and x.shape[1] in (1, 3)
    return tuple(x.shape[1:]) if large else None


def boosted_trees(categorical: Sequence[bool]) -> Callable[..., Values]:
    """Boosted trees for the numbers of a table's columns; NaN stands for missing."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    each = min(255, max(63, BINS // len(categorical)))

    # Codes above the limit of scikit-learn (255 bins) are taken as numbers.
    def scores(fit: np.ndarray, label: np.ndarray, test: np.ndarray) -> Values:
        fit, test = (np.where(np.asarray(categorical), np.round(z).clip(0), z) for z in (fit, test))
        codes = [
            j
            for j, code in enumerate(categorical)
            if code and not np.isnan(fit[:, j]).all() and np.nanmax(fit[:, j]) < 255
        ]
        most = max((int(np.nanmax(fit[:, j])) + 1 for j in codes), default=0)
        least = int(min(20, max(2, min(label.sum(), len(label) - label.sum()) // 8)))
        machine = HistGradientBoostingClassifier(
            max_iter=ITERATIONS,
            max_leaf_nodes=LEAVES,
            max_bins=max(each, most),
            min_samples_leaf=least,
            early_stopping=False,  # type: ignore[arg-type]
            class_weight="balanced",
            categorical_features=codes or None,  # type: ignore[arg-type]
            random_state=0,
        ).fit(fit, label)
        return torch.from_numpy(machine.decision_function(test))

    return scores


def _linear(fit: np.ndarray, label: np.ndarray, test: np.ndarray) -> Values:
    """Penalised logistic regression on standardised numbers."""
    from sklearn.linear_model import LogisticRegression

    mean, deviation = fit.mean(0), fit.std(0)
    scale = np.where(deviation > 1e-9, deviation, np.inf) * fit.shape[1] ** 0.5
    machine = LogisticRegression(C=10.0, class_weight="balanced", max_iter=200)
    machine.fit((fit - mean) / scale, label)
    return torch.from_numpy(machine.decision_function((test - mean) / scale))


def patch_responses(x: Samples, shape: Sequence[int], seed: int) -> Float[Tensor, "n k"]:
    """What images answer to random patches of themselves: mean and spread, in four quarters.

    The patches are whitened, contrast aside, so that fine texture counts as much as light and
    shade; what is below a tenth of their mean variance counts less, so that rounding to eight bits
    does not. They are drawn from all images and do not depend on which set these are from.

    Args:
        x: (n, c * h * w), images, flattened.
        shape: (c, h, w).
    """
    c, h, w = shape
    side = min(6, max(2, min(h, w) // PATCH_SHARE))
    stride = max(1, min(h, w) // 24)
    images = x.reshape(len(x), c, h, w).double()
    rng = stream(seed, "patches")
    few = images[torch.randperm(len(x), generator=rng)[:BLOCK]]
    patches = F.unfold(few, side, stride=stride).transpose(1, 2).flatten(0, 1)
    patches = patches[torch.randperm(len(patches), generator=rng)[:5000]]
    centred = patches - patches.mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    floor = 0.1 * float(values.mean()) or 1.0
    whiten = (vectors / (values.clamp(min=0) + floor).sqrt()) @ vectors.T
    whiten = whiten - whiten.mean(0)
    chosen = centred[centred.std(1).argsort(descending=True)[: len(centred) // 2 + 1]]
    chosen = chosen[torch.randperm(len(chosen), generator=rng)[:FILTERS]] @ whiten
    filters = (chosen / chosen.norm(dim=1, keepdim=True).clamp(min=1e-9)) @ whiten
    across = (w - side) // stride + 1
    made = []
    for part in images.split(BLOCK):
        # Not by a convolution, whose last digits depend on where its memory lies.
        seen = F.unfold(part, side, stride=stride)
        answer = (filters @ seen).unflatten(2, (-1, across))
        pooled = [answer.relu(), (-answer).relu(), answer.square()]
        made.append(torch.cat([F.adaptive_avg_pool2d(p, 2).flatten(1) for p in pooled], 1))
    return torch.cat(made)
