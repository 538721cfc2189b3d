"""Latents in chunks, epochs without repeats, and batches that depend on (seed, step) alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from monge.autoencoders.conv import ConvSpec
from monge.autoencoders.pca import PCASpec
from monge.couplings import MinibatchOT
from monge.latents.batches import DataBatches, Epochs, LatentBatches, encode
from monge.objectives.flow_matching import FlowMatching
from monge.tensors import stream
from monge.types import Posterior


def test_encoding_in_chunks() -> None:
    x = torch.randn(23, 1, 8, 8, generator=stream(0, "x"))
    autoencoder = ConvSpec(width=8, blocks=1).build((1, 8, 8)).eval()
    whole = autoencoder.encode(x)
    told: list[int] = []
    found = encode(autoencoder, x, chunk=5, progress=told.append)
    assert told == [5, 5, 5, 5, 3]
    assert found.logvar is not None and whole.logvar is not None
    torch.testing.assert_close(found.mean, whole.mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.logvar, whole.logvar, rtol=1e-5, atol=1e-6)
    assert not found.mean.requires_grad


def test_encoding_without_noise() -> None:
    x = torch.randn(40, 6, generator=stream(0, "x"))
    pca = PCASpec(3).build((6,)).fit(x)
    found = encode(pca, x, chunk=7)
    assert found.logvar is None and found.mean.shape == (40, 3)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_every_epoch_visits_each_row_once(n: int) -> None:
    epochs = Epochs(n, seed=0)
    orders = [epochs.rows(k * n, (k + 1) * n) for k in range(4)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(n))
    if n > 7:
        assert not torch.equal(orders[0], orders[1])
    # Batches that straddle epochs, in any order of asking, cut the same sequence.
    whole = torch.cat(orders)
    other = Epochs(n, seed=0)
    for start in (3 * n - 1, 0, n // 2, 2 * n):
        stop = min(start + 5, 4 * n)
        assert torch.equal(other.rows(start, stop), whole[start:stop])


def batches(seed: int = 0, **settings: Any) -> LatentBatches:
    mean = torch.randn(50, 3, generator=stream(0, "mean"))
    label = torch.arange(50) % 4
    objective = settings.pop("objective", FlowMatching(label_drop=0.1))
    logvar = settings.pop("logvar", torch.full((50, 3), -2.0))
    return LatentBatches(
        Posterior(mean, logvar), {"label": label}, objective, size=8, seed=seed, **settings
    )


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("span", [1, 3])
def test_a_step_depends_on_seed_and_step_alone(span: int) -> None:
    first = batches(span=span)
    drawn = [first.draw(n) for n in range(9)]
    for n in (8, 0, 5, 4, 7):
        assert same(batches(span=span).draw(n), drawn[n])
        assert same(first.draw(n), drawn[n])
    assert not same(batches(seed=1, span=span).draw(3), drawn[3])
    assert len({d["x0"].flatten()[0].item() for d in drawn}) == 9
    for batch in drawn:
        assert set(batch) == {"x0", "x1", "t", "label"}
        assert all(len(v) == 8 for v in batch.values())


def test_rows_come_with_their_labels() -> None:
    source = batches(logvar=None, objective=FlowMatching())
    for n in range(13):
        batch = source.draw(n)
        where = (batch["x1"][:, None] == source.latents.mean[None]).all(2)
        assert torch.equal(where.sum(1), torch.ones(8, dtype=torch.int64))
        assert torch.equal(batch["label"], where.float().argmax(1) % 4)


def test_an_epoch_of_batches_visits_each_row_once() -> None:
    source = batches(logvar=None)
    rows: list[Tensor] = [source.draw(n)["x1"] for n in range(25)]  # 200 rows: four epochs
    seen = torch.cat(rows).unique(dim=0, return_counts=True)[1]
    assert seen.tolist() == [4] * 50


def test_latents_are_sampled_anew_each_time() -> None:
    """mean + std noise: with 0.1 of the spread away from the mean, and never the same."""
    source = batches(logvar=torch.full((50, 3), 2 * torch.tensor(0.1).log().item()))
    drawn = torch.cat([source.draw(n)["x1"] for n in range(250)])
    distance = (drawn[:, None] - source.latents.mean[None]).square().sum(2)
    nearest = distance.min(1)
    assert len(drawn.unique(dim=0)) == len(drawn)
    residual = drawn - source.latents.mean[nearest.indices]
    assert float(residual.square().mean().sqrt()) == pytest.approx(0.1, rel=0.06)


def test_a_plan_larger_than_the_batch_spans_steps() -> None:
    """The union of a block's steps is one optimal permutation of one draw of noise."""
    plan, span = 24, 3
    paired = batches(span=span, logvar=None, objective=FlowMatching(coupling=MinibatchOT(plan)))
    plain = batches(span=span, logvar=None, objective=FlowMatching())
    for block in (0, 2):
        steps = range(block * span, (block + 1) * span)
        a = [paired.draw(n) for n in steps]
        b = [plain.draw(n) for n in steps]
        x0, x1, label = (torch.cat([s[k] for s in a]) for k in ("x0", "x1", "label"))
        assert torch.equal(x1, torch.cat([s["x1"] for s in b]))
        noise = torch.cat([s["x0"] for s in b])
        assert torch.equal(x0.sort(0)[0], noise.sort(0)[0]) and not torch.equal(x0, noise)
        assert torch.equal(label, torch.cat([s["label"] for s in b]))
        assert float((x0 - x1).square().sum()) < float((noise - x1).square().sum())
        # Rows are matched across the steps of the block.
        origin = (x0[:, None] == noise[None]).all(2).float().argmax(1)
        assert not torch.equal(origin // 8, torch.arange(24) // 8)


def test_labels_are_dropped_at_their_rate() -> None:
    source = batches(objective=FlowMatching(label_drop=0.25))
    label = torch.cat([source.draw(n)["label"] for n in range(400)])
    rate = float((label == -1).double().mean())
    assert abs(rate - 0.25) < 4 * (0.25 * 0.75 / len(label)) ** 0.5


def test_batches_of_data() -> None:
    x = torch.arange(20.0)[:, None]

    def add_noise(batch: Any, rng: torch.Generator) -> Any:
        return {**batch, "noise": torch.randn(len(batch["x"]), generator=rng)}

    source = DataBatches(x, add_noise, size=4, seed=0)
    drawn = [source.draw(n) for n in range(5)]
    assert sorted(torch.cat([d["x"] for d in drawn])[:, 0].tolist()) == list(range(20))
    again = DataBatches(x, add_noise, size=4, seed=0)
    assert all(same(again.draw(n), drawn[n]) for n in (4, 2, 0))
    assert not same(DataBatches(x, add_noise, size=4, seed=1).draw(0), drawn[0])
