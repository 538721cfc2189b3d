"""Laws of every network, and golden values of the transformer and the perceptron."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge.components import build
from monge.errors import UserError
from monge.networks.layers import Attention, Modulation, TimeEmbedding, positional
from monge.networks.lipschitz import LipschitzSpec
from monge.networks.mlp import MLPSpec
from monge.networks.transformer import (
    Block,
    ImageTokens,
    TransformerSpec,
    VectorTokens,
    resize_positions,
)
from monge.tensors import forward_mode, stream, value_and_divergence

SMALL = {"width": 16, "depth": 2, "heads": 2}
NETWORKS = [
    (TransformerSpec(**SMALL), (2, 4, 6)),
    (TransformerSpec(patch=2, **SMALL), (1, 4, 4)),
    (TransformerSpec(**SMALL), (5,)),
    (TransformerSpec(token=4, **SMALL), (9,)),
    (TransformerSpec(two_times=True, **SMALL), (6,)),
    (MLPSpec(width=16, depth=3), (2,)),
    (MLPSpec(width=16, depth=1, two_times=True), (1, 2, 2)),
    (LipschitzSpec(patch=2, **SMALL), (1, 4, 4)),
    (LipschitzSpec(token=1, feed="convex", two_times=True, **SMALL), (3,)),
]
N_CLASSES, N_VECTOR, BATCH = 3, 2, 6


def case_id(value: object) -> str:
    return str(value).replace(" ", "")


every_network = pytest.mark.parametrize(("spec", "shape"), NETWORKS, ids=case_id)


def trained(spec, shape, n_classes=N_CLASSES, n_vector=N_VECTOR) -> nn.Module:
    """A network in float64 with weights as if it were trained: none of them zero."""
    network = spec.build(shape, n_classes, n_vector).double()
    rng = stream(1, "trained")
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3, generator=rng)
    return network


def inputs(shape, seed=0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    rng = stream(seed, "inputs")
    x = torch.randn(BATCH, *shape, dtype=torch.float64, generator=rng)
    t = torch.rand(BATCH, dtype=torch.float64, generator=rng)
    vector = torch.randn(BATCH, N_VECTOR, dtype=torch.float64, generator=rng)
    return x, t, {"label": torch.arange(BATCH) % N_CLASSES, "vector": vector}


@every_network
def test_the_untrained_network_is_the_zero_field(spec, shape):
    x, t, cond = inputs(shape)
    out = spec.build(shape, N_CLASSES, N_VECTOR).double()(x, t, cond)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert torch.equal(out, torch.zeros_like(x))


@pytest.mark.parametrize(("n_classes", "n_vector"), [(N_CLASSES, N_VECTOR), (None, 0)])
@every_network
def test_every_parameter_learns(spec, shape, n_classes, n_vector):
    """None is unused (distributed training forbids it), and none stays where it started."""
    network = spec.build(shape, n_classes, n_vector)
    # The weight of pairs of times belongs to the loss, not to the output.
    ours = {n: p for n, p in network.named_parameters() if not n.startswith("pair_weight")}
    start = {name: p.detach().clone() for name, p in ours.items()}
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(5):
        x, t, cond = inputs(shape, seed=step)
        known = {k: v for k, v in cond.items() if (n_classes if k == "label" else n_vector)}
        if "vector" in known:
            known["vector"] = known["vector"].float()
        loss = (network(x.float(), t.float(), known) - x.float()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in ours.values())
        optimiser.step()
    # The span t - s is 0 here, where its cosines are not: its branch learns too.
    still = [name for name, p in ours.items() if torch.equal(p, start[name])]
    assert still == []


@every_network
def test_jvp_is_the_central_difference(spec, shape):
    network = trained(spec, shape)
    x, t, cond = inputs(shape)
    dx = torch.randn_like(x)
    dt = 1e-2 * torch.ones_like(t)
    h = 1e-6
    with forward_mode(), torch.no_grad():
        value, rate = torch.func.jvp(lambda x, t: network(x, t, cond), (x, t), (dx, dt))
        ahead = network(x + h * dx, t + h * dt, cond)
        behind = network(x - h * dx, t - h * dt, cond)
    torch.testing.assert_close(value, network(x, t, cond))
    torch.testing.assert_close(rate, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-6)


@every_network
def test_divergence_by_vmap_is_the_trace_of_the_jacobian(spec, shape):
    network = trained(spec, shape)
    x, t, cond = inputs(shape)
    with torch.no_grad():
        _, divergence = value_and_divergence(lambda x: network(x, t, cond), x)
    row = {key: value[:1] for key, value in cond.items()}
    jacobian = torch.autograd.functional.jacobian(lambda y: network(y, t[:1], row), x[:1])
    trace = jacobian.reshape(x[0].numel(), x[0].numel()).trace()
    assert float(divergence[0]) == pytest.approx(float(trace), rel=1e-9)


@every_network
def test_examples_do_not_see_each_other(spec, shape):
    network = trained(spec, shape)
    x, t, cond = inputs(shape)
    order = torch.randperm(BATCH, generator=stream(0, "order"))
    shuffled = network(x[order], t[order], {k: v[order] for k, v in cond.items()})
    torch.testing.assert_close(shuffled, network(x, t, cond)[order], rtol=1e-10, atol=1e-10)


@every_network
def test_one_time_for_all_is_the_same_time_for_each(spec, shape):
    network = trained(spec, shape)
    x, _, cond = inputs(shape)
    each = network(x, torch.full((BATCH,), 0.3, dtype=torch.float64), cond)
    torch.testing.assert_close(network(x, torch.tensor(0.3, dtype=torch.float64), cond), each)
    torch.testing.assert_close(network(x, torch.tensor(0.3), cond), each, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(network(x, 0.3, cond), each)


@every_network
def test_the_null_label_is_the_last_row_and_what_a_missing_label_means(spec, shape):
    network = trained(spec, shape)
    x, t, cond = inputs(shape)
    null = network(x, t, cond | {"label": torch.full((BATCH,), -1)})
    torch.testing.assert_close(network(x, t, {"vector": cond["vector"]}), null)
    assert (network(x, t, cond) - null).abs().amax() > 1e-3
    table = network.conditioning.label.weight
    assert len(table) == N_CLASSES + 1
    with torch.no_grad():
        table[-1] += 1
    assert (network(x, t, {"vector": cond["vector"]}) - null).abs().amax() > 1e-3


@every_network
def test_a_vector_of_nan_is_a_missing_vector(spec, shape):
    network = trained(spec, shape)
    x, t, cond = inputs(shape)
    label = {"label": cond["label"]}
    missing = network(x, t, label)
    unknown = torch.full_like(cond["vector"], math.nan)
    torch.testing.assert_close(network(x, t, label | {"vector": unknown}), missing)
    zero = network(x, t, label | {"vector": torch.zeros_like(unknown)})
    assert (zero - missing).abs().amax() > 1e-3


@every_network
def test_the_same_stream_draws_the_same_weights(spec, shape):
    def weights(rng):
        return torch.cat([p.flatten() for p in spec.build(shape, 3, 0, rng).parameters()])

    assert torch.equal(weights(None), weights(None))
    assert torch.equal(weights(stream(5)), weights(stream(5)))
    assert not torch.equal(weights(stream(5)), weights(stream(6)))


@every_network
def test_bfloat16_autocast_keeps_times_and_output_in_float32(spec, shape):
    network = trained(spec, shape).float()
    for parameter in network.parameters():
        parameter.data *= 0.3
    x, t, cond = inputs(shape)
    x, t, cond = x.float(), t.float(), cond | {"vector": cond["vector"].float()}
    seen = []
    network.conditioning.time.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    with torch.no_grad():
        exact = network(x, t, cond)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network(x, t, cond)
    assert seen == [torch.float32, torch.float32]
    assert rough.dtype == torch.float32
    assert 0 < float((rough - exact).norm() / exact.norm()) < 0.03


@every_network
def test_the_whole_forward_is_one_graph(spec, shape):
    """No graph breaks for torch.compile; the backend itself is tried by the slow tests."""
    network = trained(spec, shape)
    x, t, cond = inputs(shape)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, t, cond), network(x, t, cond))
    torch._dynamo.reset()


@pytest.mark.slow
def test_torch_compile_changes_nothing():
    network = trained(*NETWORKS[0])
    x, t, cond = inputs(NETWORKS[0][1])
    compiled = torch.compile(network, fullgraph=True)
    torch.testing.assert_close(compiled(x, t, cond), network(x, t, cond))


@pytest.mark.parametrize("kind", [TransformerSpec, MLPSpec])
@pytest.mark.parametrize("anchor", ["start", "end"])
def test_a_network_of_one_time_becomes_one_of_two_without_change(kind, anchor):
    """At s = t, and until the span's embedding is trained at any span that has its anchor there."""
    settings = SMALL if kind is TransformerSpec else {"width": 16}
    one = trained(kind(**settings), (4,))
    spec = kind(two_times=True, anchor=anchor, **settings)
    two = spec.build((4,), N_CLASSES, N_VECTOR).double()
    missing, unexpected = two.load_state_dict(one.state_dict(), strict=False)
    assert unexpected == []
    assert all(name.startswith(("conditioning.span.", "pair_weight.")) for name in missing)
    x, t, cond = inputs((4,))
    torch.testing.assert_close(two(x, t, cond), one(x, t, cond))
    s, t = (t, t + 0.2) if anchor == "start" else (t - 0.2, t)
    torch.testing.assert_close(two(x, t, cond, s=s), one(x, t if anchor == "end" else s, cond))


def test_two_times_are_told_apart():
    network = trained(TransformerSpec(two_times=True, **SMALL), (4,))
    x, t, cond = inputs((4,))
    same = network(x, t, cond, s=t)
    torch.testing.assert_close(network(x, t, cond), same)
    assert (network(x, t, cond, s=0.5 * t) - same).abs().amax() > 1e-3
    assert (network(x, 0.5 * t, cond, s=t) - same).abs().amax() > 1e-3
    spans = []
    network.conditioning.span.register_forward_hook(lambda m, i, out: spans.append(i[0]))
    network(x, 0.75, cond, s=0.25)
    assert spans == [0.5]
    torch.testing.assert_close(network(x, 0.75, cond, s=0.25), network(x, 0.75 + 0 * t, cond, 0.25))


@pytest.mark.parametrize(("size", "millions"), [("S", 33), ("B", 130), ("L", 458), ("XL", 675)])
def test_parameter_counts_are_the_published_ones(size, millions):
    """DiT's Table 1 and README, for 4-channel 32 x 32 latents, patch 2, 1,000 classes."""
    with torch.device("meta"):
        network = TransformerSpec(size=size, patch=2).build((4, 32, 32), 1000)
    count = sum(p.numel() for p in network.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.005)


def test_a_network_without_conditions_has_no_parameters_for_them():
    names = [name for name, _ in TransformerSpec().build((4,)).named_parameters()]
    assert not [n for n in names if "label" in n or "vector" in n or "span" in n]


def test_positional_embedding_has_dits_values():
    expected = [math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)]
    got = positional(torch.tensor(3.0, dtype=torch.float64), 4)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_time_embedding_keeps_times_apart_that_bfloat16_would_merge():
    embedding = TimeEmbedding(8)
    embedding.reset(stream(0))
    times = torch.tensor([0.999, 0.9995])
    assert times[0].bfloat16() == times[1].bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = embedding(times, times)
    assert (out[0] - out[1]).abs().amax() > 1e-3


def test_block_is_the_published_formula():
    """Written out with explicit softmax and norms, for one example."""
    width, heads, tokens = 8, 2, 3
    block = Block(width, heads).double()
    rng = stream(2)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5, generator=rng)
    h = torch.randn(1, tokens, width, dtype=torch.float64, generator=rng)
    c = torch.randn(1, width, dtype=torch.float64, generator=rng)

    def norm(x):
        return (x - x.mean(-1, keepdim=True)) / (
            x.var(-1, keepdim=True, correction=0) + 1e-6
        ).sqrt()

    def rms(x, weight):
        return weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def attention(x, layer: Attention):
        q, k, v = F.linear(x, layer.qkv.weight, layer.qkv.bias).split(width, dim=-1)
        mixed = []
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            qh, kh = rms(q[:, part], layer.query_norm), rms(k[:, part], layer.key_norm)
            weights = (qh @ kh.T / math.sqrt(width // heads)).softmax(-1)
            mixed.append(weights @ v[:, part])
        return layer.out(torch.cat(mixed, dim=-1))

    linear = block.modulation.linear
    shift, scale, gate, shift2, scale2, gate2 = (linear.weight @ c[0] + linear.bias).chunk(6)
    y = h[0] + gate * attention((1 + scale) * norm(h[0]) + shift, block.attention)
    inner = block.feed_forward.up((1 + scale2) * norm(y) + shift2)
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    expected = y + gate2 * block.feed_forward.down(inner)
    torch.testing.assert_close(block(h, c)[0], expected)


def test_modulation_starts_at_zero():
    modulation = Modulation(4, 3)
    modulation.reset(stream(0))
    assert all(torch.equal(m, torch.zeros(2, 1, 4)) for m in modulation(torch.randn(2, 4)))


def test_image_tokens_are_rows_of_patches():
    x = torch.arange(2 * 4 * 6.0).view(1, 2, 4, 6)
    tokens = ImageTokens((2, 4, 6), 2)
    split = tokens.split(x)
    assert tokens.grid == (2, 3)
    assert split.shape == (1, 6, 8)
    assert split[0, 1].tolist() == [2, 3, 8, 9, 26, 27, 32, 33]
    assert split[0, 3].tolist() == [12, 13, 18, 19, 36, 37, 42, 43]
    assert torch.equal(tokens.join(split), x)


def test_vector_tokens_are_padded_with_zeros():
    x = torch.arange(1.0, 10)[None]
    tokens = VectorTokens((9,), 4)
    split = tokens.split(x)
    assert split.tolist() == [[[1, 2, 3, 4], [5, 6, 7, 8], [9, 0, 0, 0]]]
    assert torch.equal(tokens.join(split), x)


@pytest.mark.parametrize(("size", "tokens"), [(2, 2), (16, 16), (17, 9), (64, 16), (100, 15)])
def test_a_vector_has_at_most_sixteen_tokens(size, tokens):
    assert TransformerSpec(**SMALL).build((size,)).grid == (tokens,)


def test_positions_resize_to_themselves_and_interpolate_between():
    positions = torch.arange(4.0)[:, None] * torch.ones(3)
    torch.testing.assert_close(resize_positions(positions, (2, 2), (2, 2)), positions)
    larger = resize_positions(positions, (2, 2), (3, 3))
    assert larger.shape == (9, 3)
    torch.testing.assert_close(larger[4], torch.full((3,), 1.5))


def test_mlp_of_one_unit_by_hand():
    network = MLPSpec(width=1, depth=1).build((1,)).double()
    with torch.no_grad():
        network.hidden[0].weight.fill_(2.0)
        network.hidden[0].bias.fill_(-1.0)
        network.shifts.weight.fill_(0.0)
        network.shifts.bias.fill_(0.5)
        network.out.weight.fill_(3.0)
        network.out.bias.fill_(0.25)
    x = torch.tensor([[0.75]], dtype=torch.float64)
    inner = 2 * 0.75 - 1 + 0.5
    expected = 3 * inner / (1 + math.exp(-inner)) + 0.25
    assert float(network(x, 0.5).detach()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TransformerSpec(patch=3).build((1, 8, 8)), "patch 3 does not divide"),
        (lambda: TransformerSpec().build((2, 3)), "images .* or vectors"),
        (lambda: TransformerSpec(width=30), "multiple of 4"),
        (lambda: TransformerSpec(depth=0), "depth must be at least 1"),
        (lambda: MLPSpec(width=0), "at least 1"),
        (lambda: build("network", "transformer:size=M"), "unknown value 'M'"),
    ],
)
def test_settings_that_cannot_be_built_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


@every_network
def test_inputs_that_the_network_is_not_built_for_are_refused(spec, shape):
    x, t, cond = inputs(shape)
    plain = spec.build(shape).double()
    with pytest.raises(UserError, match="without labels"):
        plain(x, t, {"label": cond["label"]})
    with pytest.raises(UserError, match="vector was given"):
        plain(x, t, {"vector": cond["vector"]})
    with pytest.raises(UserError, match="takes states"):
        plain(torch.zeros(2, *shape, 1), 0.5)
    with pytest.raises(UserError, match="has 3 entries"):
        spec.build(shape, None, 2).double()(x, t, {"vector": torch.zeros(BATCH, 3)})
    if not spec.two_times:
        with pytest.raises(UserError, match="two_times"):
            plain(x, t, s=t)


def test_text_of_a_spec_builds_it_again():
    spec = build("network", "transformer:size=S,patch=2,depth=3,two_times=true")
    assert spec == TransformerSpec(size="S", patch=2, depth=3, two_times=True)
    assert build("network", repr(spec)) == spec
    assert build("network", "mlp:width=64") == MLPSpec(width=64)
