"""The strongest classifier: what it must see, what it must not, and how often it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from monge.metrics.classifiers import Judges, patch_responses
from monge.tensors import stream

TABLE = Judges(categorical=(False,) * 6)
IMAGES = Judges(shape=(1, 12, 12))


def rows(n: int, *key: int) -> Tensor:
    """Correlated rows (n, 6), twice: for the kernel machine and for the trees."""
    rng = stream(0, "classifier rows", *key)
    x = torch.randn(n, 3, generator=rng, dtype=torch.float64)
    noise = torch.randn(n, 3, generator=rng, dtype=torch.float64)
    x = torch.cat([x, x.square() + 0.3 * noise], 1)
    return torch.cat([(x - x.mean(0)) / x.std(0), x], 1)


def pictures(n: int, *key: int) -> Tensor:
    """Smooth bumps on 12 x 12 pixels, of eight bits, flattened."""
    rng = stream(0, "pictures", *key)
    at, size = 3 + 6 * torch.rand(n, 2, generator=rng), 1.5 + torch.rand(n, generator=rng)
    grid = torch.arange(12.0)
    one = (grid - at[:, :1]).square()[:, :, None] + (grid - at[:, 1:]).square()[:, None]
    image = 2 * torch.exp(-one / (2 * size.square())[:, None, None]) - 1
    image = image + 0.05 * torch.randn(n, 12, 12, generator=rng)
    return (image.clamp(-1, 1) * 127.5).round().div(127.5).flatten(1).double()


def jitter(x: Tensor) -> Tensor:
    """A tenth of noise on a column that the kernel machine sees standardised."""
    x = x.clone()
    x[:, 6] = torch.where(torch.rand(len(x), generator=stream(1)) < 0.5, 0.0, x[:, 6])
    return x


@pytest.mark.parametrize("n", [200, 1000])
def test_trees_see_an_atom_that_the_kernel_machine_does_not(n: int) -> None:
    x, y = rows(n, 1), jitter(rows(n, 2))
    auc, _, kernel, trees = TABLE.strongest(x, y, 0)
    assert auc == trees > 0.6 and kernel < 0.6
    interval = TABLE.interval(auc, n)
    assert interval.low > 0.5 and interval.p_value is not None and interval.p_value < 0.01


def test_categories_are_taken_as_such() -> None:
    # Classes 1, 4, 6, ... of 40: no threshold tells them, a set of values does.
    rng = np.random.default_rng(0)
    often = rng.permutation(40)[:20]
    codes = [rng.choice(often, 600), rng.integers(0, 40, 600)]
    x, y = (torch.from_numpy(np.stack([rng.normal(size=600), c], 1)) for c in codes)
    auc = Judges(categorical=(True,)).strongest(x, y, 0)[3]
    assert auc == pytest.approx(0.75, abs=0.03)  # y lies outside the set in half of the cases


@pytest.mark.parametrize("cheat", ["blurred", "noisy"])
def test_patches_see_texture(cheat: str) -> None:
    x, y = pictures(300, 1), pictures(300, 2)
    image = x.reshape(-1, 1, 12, 12)
    if cheat == "blurred":
        image = 0.8 * image + 0.2 * torch.nn.functional.avg_pool2d(image, 3, 1, 1)
    else:
        image = image + 0.03 * torch.randn(image.shape, generator=stream(2))
    made = (image.clamp(-1, 1) * 127.5).round().div(127.5).flatten(1)
    auc, _, kernel, patches = IMAGES.strongest(made, y, 0)
    assert auc == max(kernel, patches) and patches > 0.65
    assert cheat == "blurred" or kernel < 0.6  # blur is seen by both
    assert IMAGES.interval(auc, 300).low > 0.5


def test_patches_do_not_tell_rounding_to_eight_bits() -> None:
    x, y = pictures(300, 3), pictures(300, 4)
    unrounded = x + (torch.rand(x.shape, generator=stream(3)) - 0.5) / 127.5
    assert IMAGES.interval(IMAGES.strongest(unrounded, y, 0)[0], 300).low < 0.5
    assert patch_responses(x, (1, 12, 12), 0).shape == (300, 48 * 12)


def test_the_interval_is_that_of_the_maximum() -> None:
    alone, two = Judges().interval(0.56, 500), TABLE.interval(0.56, 500)
    assert two.low < alone.low and two.high > alone.high
    assert two.p_value == pytest.approx(2 * alone.p_value)  # type: ignore[operator]
    for value in np.linspace(0.5, 0.62, 40):
        found = TABLE.interval(float(value), 500)
        assert (found.low > 0.5) == (found.p_value < 0.05), value  # type: ignore[operator]


@pytest.mark.parametrize("repeats", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_equal_laws_are_told_apart_in_at_most_one_of_twenty(repeats: int) -> None:
    alarms = 0
    for k in range(repeats):
        auc = TABLE.strongest(rows(60, k, 0), rows(60, k, 1), k)[0]
        alarms += TABLE.interval(auc, 60).low > 0.5
    print("false alarms", alarms, "of", repeats)
    assert alarms <= stats.binom.ppf(0.999, repeats, 0.05)
