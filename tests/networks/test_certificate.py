"""Certified constants: exact where they are known by hand, and never exceeded by search."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from monge.errors import UserError
from monge.fields import Predict
from monge.networks import lipschitz
from monge.networks.bounds import Certificate, Parts, Step
from monge.networks.capped import capped_layers, hold
from monge.networks.certificate import certificate, velocity_certificate
from monge.networks.certified_layers import (
    Conditions,
    attention_block,
    convex_feed_forward,
    gradient_flow,
    token_flow,
)
from monge.networks.lipschitz import LipschitzSpec
from monge.networks.lipschitz_attention import (
    L2Attention,
    attention_constant,
    l2_constant,
    largest_spread,
    mixing_bound,
)
from monge.networks.transformer import TransformerSpec
from monge.paths import Linear
from monge.tensors import stream
from monge.verification.adversarial import TokenMax, euclidean, farthest, steepest

SEEDS = 50
SMALL = {"width": 8, "depth": 2, "heads": 2}
NETWORKS: list[tuple[LipschitzSpec, tuple[int, ...]]] = [
    (LipschitzSpec(cap=3, **SMALL), (4,)),
    (LipschitzSpec(cap=3, token=1, **SMALL), (5,)),
    (LipschitzSpec(cap=2, token=2, temperature=4.0, **SMALL), (5,)),
    (LipschitzSpec(cap=0.5, patch=2, feed="convex", **SMALL), (1, 4, 4)),
    (LipschitzSpec(cap=3, token=1, ratio=2, clip_in=1.5, clip_out=2.0, **SMALL), (3,)),
    (LipschitzSpec(cap=3, token=2, two_times=True, **SMALL), (4,)),
    (LipschitzSpec(cap=3, token=1, attention="l2", **SMALL), (5,)),
]
every_network = pytest.mark.parametrize(("spec", "shape"), NETWORKS, ids=repr)


def hold_caps(network: nn.Module) -> None:
    """As the training loop does."""
    layers = capped_layers(network)
    for layer, held in zip(layers, hold([m.matrices for m in layers]), strict=True):
        layer.matrices.copy_(held)


def capped(network: nn.Module, seed: int = 0, size: float = 2.0) -> nn.Module:
    """A network with large random weights, whose capped matrices are held at their caps."""
    network = network.double().eval()
    rng = stream(seed, "certificate")
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(size * torch.randn(p.shape, generator=rng, dtype=torch.float64))
        hold_caps(network)
    return network


def states(shape: tuple[int, ...], n: int = SEEDS) -> Tensor:
    return torch.randn(n, *shape, generator=stream(4, "states"), dtype=torch.float64)


Map = Callable[[Tensor], Tensor]


def largest(f: Map, x: Tensor, split: Map, steps: int = 20) -> tuple[float, float]:
    """The largest ratios that search finds, Euclidean and token by token."""
    pairs = farthest(f, x, euclidean, steps=steps)
    return (
        float(torch.maximum(pairs, steepest(f, x, steps=steps // 3)).max()),
        float(farthest(f, x, TokenMax(split), steps=steps).max()),
    )


def hold_against_search(network: nn.Module, t: float, n: int, steps: int) -> None:
    """The bounds at a time and at all times, against states of all labels."""
    shape, cap = network.shape, network.spec.cap
    label = torch.arange(n) % 3 - 1
    two, most = largest(
        lambda y: network(y, t, {"label": label}), states(shape, n), network.tokens.split, steps
    )
    found, always = certificate(network, t), certificate(network)
    assert two <= found.euclidean <= always.euclidean <= cap
    assert most <= found.token_max <= always.token_max
    assert found.one_sided <= found.euclidean


@every_network
def test_search_never_exceeds_the_certificate(spec, shape) -> None:
    hold_against_search(capped(spec.build(shape, 2)), 0.83, 9, 10)


@pytest.mark.slow
@every_network
@pytest.mark.parametrize("seed", range(1, 4))
def test_longer_search_does_not_either(spec, shape, seed) -> None:
    for t in (0.0, 0.6):
        hold_against_search(capped(spec.build(shape, 2), seed), t, SEEDS, 40)


@pytest.mark.slow
@every_network
def test_search_never_exceeds_it_after_training(spec, shape) -> None:
    network = spec.build(shape).double()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-2)
    for step in range(40):
        x = torch.randn(32, *shape, generator=stream(step, "x"), dtype=torch.float64)
        loss = (network(x, 0.5) + 9 * x.roll(1, -1).sin()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        hold_caps(network)
    two, most = largest(lambda y: network(y, 0.5), states(shape, 9), network.tokens.split)
    found = certificate(network, 0.5)
    assert 0.05 * found.euclidean <= two <= found.euclidean <= spec.cap
    assert most <= found.token_max


WIDTH, TOKENS = 8, 5
SPEC = LipschitzSpec(width=WIDTH, heads=2, temperature=3.0)
BY_DISTANCE = LipschitzSpec(width=WIDTH, heads=2, attention="l2")
LAYERS = {
    "attention": (lambda: lipschitz.AttentionBlock(SPEC, TOKENS), attention_block),
    "l2": (lambda: lipschitz.AttentionBlock(BY_DISTANCE, TOKENS), attention_block),
    "tokens": (lambda: lipschitz.TokenFlow(WIDTH, TOKENS), token_flow),
    "flow": (lambda: lipschitz.GradientFlow(WIDTH, 2 * WIDTH), gradient_flow),
    "convex": (lambda: lipschitz.ConvexFeedForward(WIDTH, 2 * WIDTH), convex_feed_forward),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("uncapped", [False, True])
def test_search_never_exceeds_the_constant_of_a_layer(kind, uncapped) -> None:
    """Also of weights far above their caps: the certificate reads the weights."""
    make, rule = LAYERS[kind]
    for seed in range(2):
        layer = capped(make(), seed, 0.7)
        if uncapped:
            with torch.no_grad():
                for inner in capped_layers(layer):
                    inner.weight *= 1.5
        c = torch.randn(1, WIDTH, generator=stream(seed, "c"), dtype=torch.float64)
        with torch.no_grad():
            (step,) = rule(kind, layer, Conditions(("all",), c))
            (worst,) = rule(kind, layer, Conditions(("all",), None))
        two, most = largest(
            lambda h, f=layer, c=c: f(h, c), states((TOKENS, WIDTH), 20), lambda h: h
        )
        assert two <= step.euclidean <= worst.euclidean
        assert most <= step.token_max <= worst.token_max
        assert uncapped or worst.euclidean <= 1 + 1e-6
        if kind in ("tokens", "flow") and not uncapped:
            assert two >= 0.5 * step.euclidean


def test_two_layers_by_hand() -> None:
    """|W2| |W1| = 3 * 2, and GELU between them; both are reached where all slopes are 1."""
    first, second = nn.Linear(2, 2).double(), nn.Linear(2, 3).double()
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
        second.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    network = nn.Sequential(first, nn.ReLU(), second)
    found = certificate(network)
    assert found.euclidean == pytest.approx(6.0, rel=1e-8) and found.euclidean >= 6.0
    assert found.token_max == pytest.approx(6.0, rel=1e-8)
    assert found.one_sided == pytest.approx(6.0, rel=1e-8)
    assert [s.euclidean for s in found.steps] == pytest.approx([2.0, 1.0, 3.0], rel=1e-8)
    x = torch.tensor([[1.0, 5.0]], dtype=torch.float64)
    assert float(steepest(network, x, steps=1, power=20)) == pytest.approx(6.0, rel=1e-6)
    bent = certificate(nn.Sequential(first, nn.GELU(), second))
    assert bent.euclidean == pytest.approx(6 * 1.12905, rel=1e-8)
    assert certificate(nn.Sequential(first, first)).euclidean == pytest.approx(4.0, rel=1e-8)


def test_slopes_of_activations_are_bounded() -> None:
    from monge.networks.certificate import SLOPES

    z = torch.linspace(-16, 16, 320_001, dtype=torch.float64).requires_grad_()
    for kind, slope in SLOPES.items():
        (found,) = torch.autograd.grad(kind()(z).sum(), z)
        assert slope - 2e-4 <= float(found.abs().max()) <= slope * (1 + 1e-12)


def test_a_transformer_of_one_block_by_hand() -> None:
    """Decisions are zero: g = sigmoid(3), r = 1/2, q = 0."""
    network = LipschitzSpec(cap=4, width=4, depth=1, heads=1).build((3,)).double()
    (layer,) = network.layers
    with torch.no_grad():
        for module, norm in ((network.embed, 0.9), (layer.linear, 1.2), (network.out, 0.5)):
            module.weight *= 0
            module.weight[:3, :3] = norm * torch.eye(3, dtype=torch.float64)
        layer.linear.weight[3, 3] = 1.1
    gate = 1 / (1 + math.exp(-3))
    flow = 2 * gate * 1.44 - 1
    expected = 4 * (1 - 1e-4) * 0.5 * 0.9 * flow * 0.5
    found = certificate(network, 0.3)
    assert found.euclidean == pytest.approx(expected, rel=1e-7)
    assert found.token_max == pytest.approx(expected, rel=1e-7)
    # q = tanh(-1): the state itself, which lowers the one-sided constant.
    with torch.no_grad():
        network.decisions.linear.bias[-1] = -1.0
    straight = 4 * (1 - 1e-4) * 0.5 * math.tanh(1.0)
    found = certificate(network, 0.3)
    assert found.euclidean == pytest.approx(expected + straight, rel=1e-7)
    assert found.one_sided == pytest.approx(expected - straight, rel=1e-6)


def test_the_constant_of_attention_by_hand() -> None:
    """n = 3, tau = 2: m^2 = 3 / (1 + 2 e^-4); m V + tau (Q + m K) for the norms 0.5, 0.25, 0.8."""
    m = math.sqrt(3 / (1 + 2 * math.exp(-4)))
    assert mixing_bound(3, 2.0) == pytest.approx(m)
    assert mixing_bound(1, 2.0) == 1.0 and mixing_bound(9, 50.0) == pytest.approx(3.0)
    by_hand = m * 0.8 + 2 * (0.5 + m * 0.25)
    assert attention_constant(0.5, 0.25, 0.8, 3, 2.0) == pytest.approx(by_hand)
    spec = LipschitzSpec(width=4, heads=2, temperature=2.0, eps=0.3)
    block = lipschitz.AttentionBlock(spec, 3).double()
    with torch.no_grad():
        for p in block.parameters():
            p.zero_()
        for matrix, norm in zip(block.attention.qkv.matrices, (0.5, 0.25, 0.8), strict=True):
            matrix.copy_(norm * torch.eye(4))
        block.attention.out.weight.copy_(0.7 * torch.eye(4))
        block.decisions.linear.bias[-1] = 1.5  # the share is 1/2
        c = torch.zeros(1, 4, dtype=torch.float64)
        (step,) = attention_block("block", block, Conditions(("all",), c))
    divisor = m + 2 * (1 + m)
    scale = 1 / (1 + math.exp(-2))
    assert step.euclidean == pytest.approx(0.5 + 0.5 * scale * 0.7 * by_hand / divisor, rel=1e-7)
    heads = math.sqrt(2)  # two heads of the same norm
    by_token = heads * 0.8 + 2 * (0.5 + heads * 0.25)
    assert step.token_max == pytest.approx(0.5 + 0.5 * scale * 0.7 * by_token / divisor, rel=1e-7)


def test_rows_of_attention_that_look_at_one_token_reach_the_norm_of_mixing() -> None:
    """All tokens look at the first: P has a column of p and the rest is shared equally."""
    n, tau = 6, 3.0
    logits = torch.full((n, n), -tau, dtype=torch.float64)
    logits[:, 0] = tau
    norm = float(torch.linalg.matrix_norm(logits.softmax(-1), 2))
    assert 0.98 * mixing_bound(n, tau) <= norm <= mixing_bound(n, tau)


def test_there_is_a_bound_for_each_label() -> None:
    """A label whose embedding opens the straight path alone raises the bound."""
    network = LipschitzSpec(cap=3, width=8, depth=1, heads=1).build((2,), 2).double()
    with torch.no_grad():
        network.conditioning.label.weight[1] = 50.0  # of label 1
        network.decisions.linear.weight[-1] = 1.0
    found = {p.condition: abs(p.alpha) for p in certificate(network, 0.5).parts}
    assert list(found) == ["no label", "0", "1"]
    assert found["1"] > 1.4 and found["no label"] < 1
    assert certificate(network, 0.5).euclidean >= found["1"]
    bare = LipschitzSpec(width=8, depth=1, heads=1).build((2,), 2, 3)
    assert [p.condition for p in certificate(bare, 0.5).parts] == ["all"] * 3


def test_a_velocity_of_a_denoiser_is_the_affine_image_of_its_bound() -> None:
    """(D - x) / (1 - t), Lip(D) <= L: at most (1 + L) / (1 - t), one-sided (L - 1) / (1 - t)."""
    network = capped(LipschitzSpec(cap=0.7, clip_out=2.0, width=8, heads=2).build((3,)))
    field = Predict(network, Linear(), "data")
    inner = certificate(network, 0.75)
    found = velocity_certificate(field, 0.75)
    assert found.one_sided == pytest.approx((inner.euclidean - 1) / 0.25, rel=1e-6)
    assert found.euclidean == pytest.approx((inner.euclidean + 1) / 0.25, rel=1e-6)
    assert found.one_sided < 0
    always = velocity_certificate(field, 0.75, certificate(network))
    assert always.one_sided == pytest.approx((0.7 - 1) / 0.25, rel=2e-3)
    x = states((3,))
    assert float(farthest(lambda y: field(y, 0.75), x, steps=20).max()) <= found.euclidean
    assert velocity_certificate(Predict(network, Linear()), 0.75) == inner.affine(0.0, 1.0)
    with pytest.raises(UserError, match="no certificate for function"):
        velocity_certificate(Predict(lambda x, t, cond: x, Linear()), 0.5)


def test_affine_images_keep_signs_apart() -> None:
    known = Certificate(0.5, (Parts("all", -2.0, 3.0, 4.0, (Step("f", "", 5.0, 6.0),)),))
    found = known.affine(1.0, -0.5)
    assert found.euclidean == pytest.approx(2.0 + 1.5)
    assert found.token_max == pytest.approx(2.0 + 2.0)
    assert found.one_sided == pytest.approx(2.0 + 1.5)
    assert known.one_sided == pytest.approx(1.0)


class Sly(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 100 * x


def test_what_has_no_rule_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="no certificate for Transformer"):
        certificate(TransformerSpec().build((2,)))
    with pytest.raises(UserError, match=r"module '1', a LayerNorm"):
        certificate(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
    with pytest.raises(UserError, match="exact GELU alone"):
        certificate(nn.GELU(approximate="tanh"))
    network = LipschitzSpec(**SMALL).build((4,))
    network.layers.append(Sly())
    with pytest.raises(UserError, match=r"module 'layers\.2', a Sly"):
        certificate(network)
    network = LipschitzSpec(**SMALL).build((4,))
    network.embed.register_forward_hook(lambda m, x, y: 100 * y)
    with pytest.raises(UserError, match=r"module 'embed', a CappedLinear: it has hooks"):
        certificate(network)
    network = LipschitzSpec(**SMALL).build((4,))
    network.layers.append(nn.ModuleList())
    with pytest.raises(UserError, match="a ModuleList"):
        certificate(network)


def test_a_block_that_stands_there_twice_counts_twice() -> None:
    network = capped(LipschitzSpec(**SMALL).build((4,)))
    with torch.no_grad():
        network.layers[0].linear.weight *= 1.5
    once = certificate(network, 0.5)
    network.layers[1] = network.layers[0]
    twice = certificate(network, 0.5)
    factor = once.steps[1].euclidean
    assert factor > 1.5
    assert twice.steps[2].euclidean == factor


def test_attention_is_the_published_formula() -> None:
    """Written out with explicit softmax and smooth norms, for one example."""
    width, heads, n, tau, eps = 6, 2, 4, 2.0, 0.3
    layer = capped(lipschitz.CosineAttention(width, heads, n, tau, eps))
    x = states((n, width), 1)

    def smooth(z: Tensor) -> Tensor:
        return z / (z.square().sum(-1, keepdim=True) + eps).sqrt()

    parts = []
    for w, b in zip(layer.qkv.matrices, layer.qkv.bias.chunk(3), strict=True):
        parts.append((x[0] @ w.T + b).chunk(heads, dim=-1))
    mixed = []
    for q, k, v in zip(*parts, strict=True):
        share = (tau * smooth(q) @ smooth(k).T).softmax(-1)
        mixed.append(math.sqrt(eps) * share @ smooth(v))
    m = mixing_bound(n, tau)
    expected = (torch.cat(mixed, -1) @ layer.out.weight.T) / (m + tau * (1 + m))
    # The bias of the output is scaled as the rest is, by the constants of the normed vectors.
    scale = math.sqrt(eps) / math.sqrt(width // heads) / (m + tau * (1 + m))
    torch.testing.assert_close(layer(x)[0], expected + scale * layer.out.bias)


def test_attention_by_distances_is_the_published_formula() -> None:
    """Written out with explicit distances, for one example."""
    width, heads, n = 6, 2, 4
    layer = capped(L2Attention(width, heads, n))
    x, d = states((n, width), 1), width // heads
    parts = []
    for q, v in zip(*(w.chunk(heads) for w in layer.qv.matrices), strict=True):
        share = (-torch.cdist(x[0] @ q.T, x[0] @ q.T).square() / math.sqrt(d)).softmax(-1)
        parts.append(share @ x[0] @ q.T @ q @ v.T / math.sqrt(d))
    c = largest_spread(n)
    constant = math.sqrt(n * heads / d) * (4 * c + 1)
    expected = torch.cat(parts, -1) @ layer.out.weight.T + layer.out.bias
    torch.testing.assert_close(layer(x)[0], expected / constant)
    assert c * math.exp(c + 1) == pytest.approx(n - 1)


def test_the_constant_of_attention_by_distances_by_hand() -> None:
    """Queries count with their square: once in the distances, once more in the values."""
    assert l2_constant([1.0], [1.0], 1, 4) == pytest.approx(0.5)  # one token: W_V W_Q^T W_Q / 2
    once = l2_constant([0.5, 0.25], [0.8, 0.4], 9, 3)
    assert l2_constant([1.0, 0.5], [0.8, 0.4], 9, 3) == pytest.approx(4 * once)
    by_hand = math.sqrt(9 / 3 * (0.5**4 * 0.8**2 + 0.25**4 * 0.4**2)) * (4 * largest_spread(9) + 1)
    assert once == pytest.approx(by_hand)


def test_no_points_spread_farther_than_the_bound() -> None:
    """P the softmax of -|z|^2 with one z at 0: the sum of P |z|^2, climbed from random points."""
    for n in (2, 5, 16):
        z = torch.randn(20, n - 1, generator=stream(n, "z"), dtype=torch.float64).requires_grad_()
        optimiser = torch.optim.Adam([z], lr=0.05)
        for _ in range(400):
            squares = torch.cat([torch.zeros(20, 1).double(), z.square()], 1)
            spread = ((-squares).softmax(1) * squares).sum(1)
            optimiser.zero_grad()
            (-spread.sum()).backward()
            optimiser.step()
        found, most = float(spread.detach().max()), largest_spread(n)
        assert 0.99 * most <= found <= most * (1 + 1e-12)  # attained, up to rounding


def test_queries_that_are_far_apart_move_tokens_by_more_than_their_norm_allows() -> None:
    """With norms of 3 the constant without the square of the queries' norm is exceeded."""
    layer = L2Attention(2, 1, 2).double()
    with torch.no_grad():
        for w in (*layer.qv.matrices, layer.out.weight):
            w.copy_(torch.eye(2, dtype=torch.float64))
        layer.qv.matrices[0].mul_(6.0)
        layer.out.bias.zero_()
    found = float(steepest(layer, 0.2 * states((2, 2), 40), steps=60).max()) * layer.divisor
    right = l2_constant([6.0], [1.0], 2, 2)
    assert right / 6 < found <= right


@pytest.mark.parametrize("setting", [{"temperature": 2.0}, {"eps": 0.1}])
def test_settings_of_the_other_attention_are_refused(setting) -> None:
    with pytest.raises(UserError, match="of cosine attention"):
        LipschitzSpec(attention="l2", **setting)
