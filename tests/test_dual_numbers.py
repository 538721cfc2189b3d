"""Dual numbers: each operation against torch, and what is differentiated through them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge import dual_numbers
from monge.networks.mlp import MLPSpec
from monge.networks.transformer import TransformerSpec
from monge.tensors import forward_mode, layer_norm, noise, stream

DOUBLE = torch.float64
WEIGHT = torch.linspace(0.5, 2, 8, dtype=DOUBLE)
MATRIX = torch.randn(3, 8, generator=stream(0, "matrix"), dtype=DOUBLE)

OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sums": lambda x: 1 + x - 2 * x + (3 - x) - WEIGHT + (WEIGHT - x) + WEIGHT,
    "products": lambda x: x * x + 2 * x * WEIGHT + WEIGHT * x,
    "quotients": lambda x: x / (2 + x * x) + 1 / (3 + x * x) + x / WEIGHT,
    "broadcast": lambda x: x[:, :1] + x * x[:, :, :, :1],
    "addcmul": lambda x: torch.addcmul(x, x * 2, 1 + x) + torch.addcmul(WEIGHT, WEIGHT, x),
    "waves": lambda x: torch.cat([x.cos(), x.sin(), torch.ones_like(WEIGHT).expand(2, 6, 5, 8)]),
    "shapes": lambda x: torch.cat(
        [part.transpose(1, 2).reshape(2, -1) for part in (-x).flatten(2).chunk(2, dim=1)], -1
    ),
    "parts": lambda x: x.unbind(1)[2] * x.sum(1) + x[..., None].mean(1).squeeze(-1),
    "activations": lambda x: F.gelu(x) + F.silu(x) * F.gelu(x, approximate="tanh"),
    "linear": lambda x: F.linear(x, MATRIX, MATRIX[:, 0]) + F.linear(x, MATRIX),
    "layer norm": lambda x: F.layer_norm(x, (8,), eps=1e-6),
    "layer norm, weighted": lambda x: F.layer_norm(x, (8,), WEIGHT, WEIGHT, eps=1e-6),
    "rms norm": lambda x: F.rms_norm(x, (8,), eps=1e-6) * F.rms_norm(x, (8,), WEIGHT, eps=1e-6),
    "attention": lambda x: F.scaled_dot_product_attention(x[:, :2], x[:, 2:4], x[:, 4:]),
    "attention to constants": lambda x: F.scaled_dot_product_attention(
        x[:, :2], MATRIX.expand(2, 2, 3, 8), MATRIX.expand(2, 2, 3, 8)
    ),
    "images": lambda x: F.pixel_shuffle(F.pixel_unshuffle(x[:, :, :4], 2).sin(), 2),
    "precision": lambda x: x.to(torch.float32).to(x.dtype) + F.pad(x, (0, 1))[..., 1:],
}


@pytest.fixture
def x() -> Tensor:
    return noise(0, 0, 2, (6, 5, 8), "x").double()


@pytest.fixture
def along() -> Tensor:
    return noise(0, 0, 2, (6, 5, 8), "along").double()


@pytest.mark.parametrize("name", OPERATIONS)
def test_value_and_tangent_are_torchs(name: str, x: Tensor, along: Tensor) -> None:
    f = OPERATIONS[name]
    with forward_mode():
        expected = torch.func.jvp(f, (x,), (along,))  # type: ignore[misc]
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            found = dual_numbers.jvp(f, (x,), (along,))
        assert type(found[0]) is Tensor and type(found[1]) is Tensor
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(
                ours, theirs, rtol=1e-6 if name == "precision" else 1e-12, atol=1e-12
            )


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "precision"])
def test_gradients_of_value_and_tangent_are_those_of_differences(
    name: str, x: Tensor, along: Tensor
) -> None:
    def loss(x: Tensor) -> Tensor:
        value, tangent = dual_numbers.jvp(OPERATIONS[name], (x,), (along,))
        return (value.cos() + value * tangent + tangent.sin()).sum()

    assert_gradient(loss, x)


def assert_gradient(loss: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Along one direction, against central differences."""
    direction = noise(1, 0, len(x), tuple(x.shape[1:]), "direction").to(x)
    start = x.clone().requires_grad_()
    found = (torch.autograd.grad(loss(start), start)[0] * direction).sum()
    with torch.no_grad():
        h = 1e-5
        expected = (loss(x + h * direction) - loss(x - h * direction)) / (2 * h)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_torchs_own_derivative_of_layer_norm_can_be_differentiated_too(
    x: Tensor, along: Tensor
) -> None:
    """In `forward_mode`; torch 2.13 loses a part of this gradient otherwise."""

    def loss(x: Tensor) -> Tensor:
        with forward_mode():
            value, tangent = torch.func.jvp(lambda x: layer_norm(x, 1e-6), (x,), (along,))  # type: ignore[misc]
        return (value * tangent + tangent.sin()).sum()

    assert_gradient(loss, x)
    plain = layer_norm(x, 1e-6)
    with forward_mode():
        torch.testing.assert_close(layer_norm(x, 1e-6), plain, rtol=1e-12, atol=1e-12)


def test_what_is_not_known_is_refused(x: Tensor) -> None:
    with pytest.raises(TypeError, match="no rule for atan"):
        dual_numbers.jvp(torch.atan, (x,), (x,))
    with pytest.raises(TypeError, match="no rule for an attribute that is a tensor"):
        dual_numbers.jvp(lambda x: x.mT @ x, (x,), (x,))
    with pytest.raises(TypeError, match="dropout"):
        dual_numbers.jvp(lambda x: F.dropout(x, 0.5, True), (x,), (x,))
    with pytest.raises(TypeError, match="no rule for add_"):
        dual_numbers.jvp(lambda x: x.add_(1), (x,), (x,))


def test_what_does_not_depend_on_it_has_no_tangent(x: Tensor) -> None:
    value, tangent = dual_numbers.jvp(lambda x, y: y + 1, (x, x), (x, None))
    assert torch.equal(value, x + 1) and not tangent.any()


TRANSFORMER = TransformerSpec(width=32, depth=2, heads=2, patch=2, two_times=True)
GUIDED = TransformerSpec(width=32, depth=2, heads=2, two_times=True, guided=True)

NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "transformer, images": (TRANSFORMER, (2, 4, 4)),
    "transformer, vectors": (GUIDED, (5,)),
    "mlp": (MLPSpec(width=32, depth=2, embed=8, two_times=True), (5,)),
    "mlp with dropout": (MLPSpec(width=32, depth=2, dropout=0.2, two_times=True), (5,)),
}


def made(
    name: str, dtype: torch.dtype
) -> tuple[nn.Module, tuple[Tensor, ...], Callable[..., Tensor]]:
    """A network with weights that are not at their start, points and directions, and a call."""
    spec, shape = NETWORKS[name]
    network = spec.build(shape, 10).eval().to(dtype)
    with torch.no_grad():
        for k, p in enumerate(network.parameters()):
            p.add_(0.05 * torch.randn(p.shape, generator=stream(k, "weights")).to(dtype))
    state, direction = (noise(0, 0, 16, shape, key).to(dtype) for key in ("x", "v"))
    s = torch.linspace(0, 0.5, 16, dtype=dtype)
    label = torch.arange(16) % 10

    def call(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return network(x, t, {"label": label}, s)

    return network, (state, s, s + 0.3, direction, torch.ones_like(s)), call


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("which", ["in t", "in s", "along the flow"])
def test_networks_have_torchs_derivative_and_its_gradient(name: str, which: str) -> None:
    network, (x, s, t, direction, one), call = made(name, DOUBLE)
    zero = torch.zeros_like(one)
    dense = {
        "in t": (0 * x, zero, one),
        "in s": (0 * x, one, zero),
        "along the flow": (direction, one, zero),
    }[which]
    sparse = tuple(d if d.any() else None for d in dense)
    with forward_mode():
        expected = torch.func.jvp(call, (x, s, t), dense)  # type: ignore[misc]
    found = dual_numbers.jvp(call, (x, s, t), sparse)
    gradients = []
    for value, tangent in (expected, found):
        loss = (value * tangent + tangent.square()).sum()
        gradients.append(torch.autograd.grad(loss, list(network.parameters()), allow_unused=True))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", NETWORKS)
def test_under_autocast(name: str) -> None:
    """In bf16 the value is that of the network, the tangent that of float32, both to bf16."""
    network, (x, s, t, direction, one), call = made(name, torch.float32)
    exact = dual_numbers.jvp(call, (x, s, t), (direction, one, None))
    with torch.autocast("cpu", torch.bfloat16):
        found = dual_numbers.jvp(call, (x, s, t), (direction, one, None))
        plain = call(x, s, t)
    assert (found[0] - plain).abs().max() < 0.02 * plain.abs().max()
    assert (found[1] - exact[1]).abs().max() < 0.1 * exact[1].abs().max()
    found[1].square().sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in network.parameters())
