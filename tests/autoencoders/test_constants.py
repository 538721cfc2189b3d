"""Certified constants of autoencoders: never exceeded, and near where that can be known."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge.autoencoders import Standardised
from monge.autoencoders.constants import ANGLES, certified_constants, conv_norm
from monge.autoencoders.conv import ConvAutoencoder, GradientStep
from monge.components import build
from monge.errors import UserError
from monge.networks.capped import norm_bound
from monge.tensors import stream
from monge.training.caps import Caps
from monge.verification.adversarial import steepest

KERNELS = {"3x3": (5, 4, 3, 3), "tall": (7, 2, 3, 3), "5x3": (2, 3, 5, 3), "1x1": (4, 4, 1, 1)}


def random(shape: tuple[int, ...], *keys: str | int) -> Tensor:
    return torch.randn(shape, generator=stream(0, *keys), dtype=torch.float64)


def matrix_of(kernel: Tensor, side: int) -> Tensor:
    """The matrix of a convolution with zeros at the border."""
    inputs = kernel.shape[1]
    eye = torch.eye(inputs * side**2, dtype=torch.float64).reshape(-1, inputs, side, side)
    pads = tuple(k // 2 for k in kernel.shape[2:])
    return F.conv2d(eye, kernel, padding=pads).flatten(1)


@pytest.mark.parametrize("name", KERNELS)
def test_the_bound_of_a_convolution_is_above_its_matrix_and_near_it(name: str) -> None:
    for seed in range(5):
        kernel = random(KERNELS[name], "kernel", seed)
        bound = conv_norm(kernel)
        exact = [float(torch.linalg.matrix_norm(matrix_of(kernel, n), 2)) for n in (3, 6, 12)]
        assert exact == sorted(exact)
        assert exact[-1] <= bound
        fine = torch.fft.fft2(kernel, (96, 96)).movedim((0, 1), (-2, -1))
        supremum = float(torch.linalg.matrix_norm(fine, 2).max())
        assert supremum <= bound <= 1.03 * supremum


def test_between_the_angles_the_bound_holds_too() -> None:
    # A wave half an angle off the grid is what the cosines are for.
    turn = math.pi / ANGLES
    wave = torch.tensor([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    kernel = torch.zeros(2, 2, 1, 3, dtype=torch.float64)
    kernel[:, :, 0, 0], kernel[:, :, 0, 2] = wave, wave.T
    fine = torch.fft.fft2(kernel, (1, 64 * ANGLES)).movedim((0, 1), (-2, -1))
    most = float(torch.linalg.matrix_norm(fine, 2).max())
    seen = torch.fft.fft2(kernel, (1, ANGLES)).movedim((0, 1), (-2, -1))
    assert float(torch.linalg.matrix_norm(seen, 2).max()) < 0.997 * most
    assert most <= conv_norm(kernel) <= 1.01 * most


def autoencoder(name: str) -> Standardised:
    """Of random weights in float64, standardised by uneven deviations."""
    text, shape = AUTOENCODERS[name]
    made = build("autoencoder", text).build(shape).double()
    if name == "pca":
        made.fit(random((50, *shape), "data") * torch.linspace(0.2, 3, 6))
    for k, parameter in enumerate(made.parameters()):
        parameter.data = 0.2 * random(tuple(parameter.shape), "weights", k)
    Caps(made).hold()
    if name.startswith("linear"):
        made.encoder.leave.weight.data.zero_()
        made.decoder.leave.weight.data.zero_()
    like = (made.latent_shape[0], 1, 1) if len(made.latent_shape) == 3 else made.latent_shape
    std = torch.linspace(0.5, 2.0, like[0], dtype=torch.float64).reshape(like)
    return Standardised(made, torch.zeros_like(std), std)  # type: ignore[arg-type]


AUTOENCODERS = {
    "identity": ("identity", (6,)),
    "identity of images": ("identity", (2, 3, 3)),
    "pca": ("pca:dim=3", (6,)),
    "conv": ("conv:capped=true,down=2,channels=2,width=8,blocks=2", (1, 8, 8)),
    "linear conv": ("conv:capped=true,down=2,channels=2,width=8,blocks=1", (1, 8, 8)),
    "conv of odd sides": ("conv:capped=true,down=4,channels=2,width=8,blocks=3", (3, 7, 9)),
    "conv of a line": ("conv:capped=true,down=4,channels=1,width=4,blocks=1", (1, 1, 8)),
}


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_no_pair_is_stretched_by_more_than_the_constant(name: str) -> None:
    tested = autoencoder(name)
    shape = tested.data_shape
    scale = torch.linspace(0.7, 1.6, shape[-1], dtype=torch.float64)
    known = certified_constants(tested, scale)
    x = random((8, *shape), "x")
    z = random((8, *tested.latent_shape), "z")  # type: ignore[arg-type]
    ways = {
        "encoder": (lambda x: tested.encode(scale * x).mean, x),  # type: ignore[operator]
        "decoder": (lambda z: unclamped(tested, z) / scale, z),
    }
    for way, (f, states) in ways.items():
        found = float(steepest(f, states, steps=30).max())
        bound = getattr(known, way)
        assert found <= bound * (1 + 1e-9)
        if name.startswith(("identity", "pca")):
            assert found >= 0.98 * bound  # linear: the constant is reached


def unclamped(tested: Standardised, z: Tensor) -> Tensor:
    bare = tested.autoencoder
    if isinstance(bare, ConvAutoencoder):
        return bare.unclamped(tested.unstandardise(z))  # type: ignore[operator]
    return tested.decode(z)  # type: ignore[operator]


def test_padding_stretches_the_border() -> None:
    # One row of pixels is repeated in a cell; an encoder that adds them up sees it three times.
    made = build("autoencoder", "conv:capped=true,down=4,channels=1,width=4,blocks=1").build(
        (1, 5, 4)
    )
    made = made.double()
    for parameter in made.parameters():
        parameter.data.zero_()
    with torch.no_grad():
        made.encoder.skip.weight[0, :, 1, 1] = 0.25
    x = torch.zeros(1, 1, 5, 4, dtype=torch.float64)
    x[0, 0, 4] = 0.5  # of length 1; below it lie two more rows
    with torch.no_grad():
        stretched = float((made.encode(x).mean - made.encode(0 * x).mean).norm())
    assert made.margins()[0] == (1, 2)
    assert certified_constants(made).encoder / math.sqrt(3) < stretched
    assert stretched <= certified_constants(made).encoder


def test_a_gradient_step_shortens_every_pair_and_a_longer_one_does_not() -> None:
    step = GradientStep(4).double()
    step.convolution.reset(stream(0, "bias"))
    step.convolution.weight.data = random((4, 36), "step")
    pairs = random((2, 64, 4, 6, 6), "pairs")
    far = (pairs[0] - pairs[1]).flatten(1).norm(dim=1)
    assert bool(((step(pairs[0]) - step(pairs[1])).flatten(1).norm(dim=1) > far).any())
    Caps(step).hold()
    assert norm_bound(step.convolution.weight) <= 1
    assert conv_norm(step.convolution.kernel) <= 1.02
    assert bool(((step(pairs[0]) - step(pairs[1])).flatten(1).norm(dim=1) <= far).all())


def test_the_order_of_blocks_costs_nothing_of_the_constant() -> None:
    shallow, deep = (
        build("autoencoder", f"conv:capped=true,width=8,blocks={n}").build((1, 8, 8))
        for n in (1, 9)
    )
    for made in (shallow, deep):
        for part in (made.encoder, made.decoder):
            nn.init.constant_(part.leave.weight, 0.1)
    assert certified_constants(deep).decoder < 1.1 * certified_constants(shallow).decoder + 1


def test_what_has_no_rule_is_refused_by_name() -> None:
    made = build("autoencoder", "conv:width=8").build((1, 8, 8))
    with pytest.raises(UserError, match=r"GroupNorm: its constant is unbounded; train .*capped"):
        certified_constants(made)
    with pytest.raises(UserError, match="Linear: there is no rule"):
        certified_constants(nn.Linear(2, 2))
    hooked = build("autoencoder", "identity").build((2,))
    hooked.register_forward_hook(lambda *_: None)
    with pytest.raises(UserError, match="it has hooks"):
        certified_constants(hooked)
