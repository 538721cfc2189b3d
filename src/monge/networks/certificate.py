r"""Certified Lipschitz constants: derived from the weights, module by module, in float64.

`certificate` walks the modules of a network. Each type that it knows has a rule with a proof; a
module of any other type, or one with hooks, is refused by name. The result is a bound for all
states, in exact arithmetic with the stored weights, at one time or at all times.

There is a bound for each label; the network's is the largest of them. The norms are the Euclidean
norm of all numbers, and the largest Euclidean norm of a token.

References:
    | The Lipschitz constant of self-attention (Kim et al., 2021) -- https://arxiv.org/abs/2006.04710
    | The logarithmic norm: Hairer, Norsett & Wanner, Solving ODEs I, Sec. I.10
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator

import torch
from torch import nn

from monge.errors import UserError
from monge.fields import Predict
from monge.networks import lipschitz as blocks
from monge.networks.bounds import Certificate, Parts, Step, up
from monge.networks.capped import CappedLinear
from monge.networks.certified_layers import (
    Conditions,
    attention_block,
    convex_feed_forward,
    gradient_flow,
    head,
    linear,
    token_flow,
)
from monge.networks.layers import Conditioning, PairWeight
from monge.networks.lipschitz_attention import CosineAttention, L2Attention
from monge.networks.piecewise import Piecewise


def certificate(network: nn.Module, t: float | None = None, s: float | None = None) -> Certificate:
    """The certified Lipschitz constant of a network in its state.

    Args:
        t: the time; None for one bound at all times and conditions.
        s: the second time of a network of two.

    Raises:
        UserError: a module for which there is no rule, by name.

    >>> layer = nn.Linear(2, 2, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 3.0], [-2.0, 0.0]]))
    >>> round(certificate(nn.Sequential(layer, nn.ReLU(), layer)).euclidean, 6)
    9.0
    """
    for name, module in network.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        if any(hooks) or "forward" in vars(module):
            raise _refusal(name, module, "it has hooks, which may change what it computes")
    if type(network) is blocks.LipschitzTransformer:
        return _of_transformer(network, t, s)
    if type(network) is Piecewise:
        return _of_pieces(network, t)
    euclidean = token_max = 1.0
    steps = []
    for step in _walk("", network):
        euclidean, token_max = up(euclidean * step.euclidean), up(token_max * step.token_max)
        steps.append(step)
    return Certificate(t, (Parts("all", 0.0, euclidean, token_max, tuple(steps)),))


def _refusal(name: str, module: nn.Module, why: str = "there is no rule for it") -> UserError:
    where = f"module {name!r}, a {type(module).__name__}" if name else type(module).__name__
    return UserError(
        f"no certificate for {where}: {why}; train with --network lipschitz:cap=.., or use the "
        "observed constants"
    )


SLOPES: dict[type[nn.Module], float] = {
    nn.Identity: 1.0,
    nn.ReLU: 1.0,
    nn.Tanh: 1.0,
    nn.Softplus: 1.0,
    nn.Sigmoid: 0.25,
    nn.GELU: 1.12905,
    nn.SiLU: 1.09985,
}
"""The largest slopes of activations, rounded up: of GELU at sqrt(2), 1.128904."""


def _walk(name: str, module: nn.Module) -> Iterator[Step]:
    """The steps of a chain of layers that act on the last axis."""
    kind = type(module)
    if isinstance(module, nn.Sequential) and kind is nn.Sequential:
        for key, inner in enumerate(module):  # with those that stand there twice
            yield from _walk(f"{name}.{key}" if name else str(key), inner)
    elif kind in SLOPES:
        if kind is nn.GELU and getattr(module, "approximate", "none") != "none":
            raise _refusal(name, module, "the constant is known for the exact GELU alone")
        yield Step(name, f"largest slope {SLOPES[kind]:g}", SLOPES[kind], SLOPES[kind])
    elif kind is nn.Linear or (kind is CappedLinear and module.groups == 1):
        yield linear(name, module)
    else:
        raise _refusal(name, module)


def _of_pieces(network: Piecewise, t: float | None) -> Certificate:
    """The largest over the pieces that hold t: two at a knot, all of them without a time."""
    spans = itertools.pairwise(network.knots)
    found = [
        certificate(piece, t)
        for piece, (lo, hi) in zip(network.pieces, spans, strict=True)
        if t is None or lo <= t <= hi
    ]
    return Certificate(t, tuple(parts for known in found for parts in known.parts))


@torch.no_grad()
def _of_transformer(
    network: blocks.LipschitzTransformer, t: float | None, s: float | None
) -> Certificate:
    network = copy.deepcopy(network).to("cpu", torch.float64)
    _refuse_unknown(network)
    given = _conditions(network, t, s)
    rows = len(given.names)
    euclidean, token_max = [1.0] * rows, [1.0] * rows
    steps: list[list[Step]] = [[] for _ in range(rows)]
    for found in _layers(network, given):
        for k, step in enumerate(found if len(found) == rows else found * rows):
            euclidean[k] = up(euclidean[k] * step.euclidean)
            token_max[k] = up(token_max[k] * step.token_max)
            steps[k].append(step)
    parts: list[Parts] = []
    n = math.prod(network.grid)
    for k, name in enumerate(given.names):
        by_token = min(token_max[k], up(math.sqrt(n) * euclidean[k]))
        if by_token < token_max[k]:
            rule = f"at most sqrt(n) times the Euclidean bound, n = {n}"
            steps[k].append(Step("norms", rule, 1.0, by_token / token_max[k]))
            token_max[k] = by_token
        parts += head(network, given, k, name, euclidean[k], token_max[k], tuple(steps[k]))
    return Certificate(t, tuple(parts))


KNOWN: tuple[type[nn.Module], ...] = (
    blocks.LipschitzTransformer,
    blocks.AttentionBlock,
    CosineAttention,
    L2Attention,
    blocks.TokenFlow,
    blocks.GradientFlow,
    blocks.ConvexFeedForward,
    blocks.Decisions,
    CappedLinear,
    nn.ModuleList,
)
"""What a `LipschitzTransformer` may be made of, beside the embeddings of conditions."""


def _refuse_unknown(network: nn.Module) -> None:
    """Refuse modules that have no rule, and embeddings in places where they see the state."""
    blind: list[str] = []
    for name, module in network.named_modules():
        if any(name.startswith(f"{outer}.") for outer in blind):
            continue
        inside = (("conditioning", Conditioning), ("pair_weight", PairWeight))
        if (name, type(module)) in inside or name.endswith("decisions.linear"):
            blind.append(name)
        elif type(module) not in KNOWN:
            raise _refusal(name, module)


def _conditions(
    network: blocks.LipschitzTransformer, t: float | None, s: float | None
) -> Conditions:
    """The embeddings of a time and all labels; only bounds where conditions are not finitely many.

    A guidance scale and a vector are not.
    """
    conditioning = network.conditioning
    if t is None or conditioning.vector is not None or conditioning.guidance is not None:
        return Conditions(("all",), None)
    like = torch.zeros(1, dtype=torch.float64)
    if conditioning.label is None:
        return Conditions(("all",), conditioning(like, t, None, s))
    labels = torch.arange(-1, conditioning.label.num_embeddings - 1)
    names = ("no label", *(str(k) for k in labels[1:].tolist()))
    found = conditioning(
        like,
        torch.full((len(labels),), t, dtype=torch.float64),
        {"label": labels},
        None if s is None else torch.full((len(labels),), s, dtype=torch.float64),
    )
    return Conditions(names, found)


def _layers(network: blocks.LipschitzTransformer, given: Conditions) -> Iterator[list[Step]]:
    """Of each layer, in order, the steps of all conditions, or one for all of them."""
    yield [linear("embed", network.embed)]
    for k, layer in enumerate(network.layers):  # with those that stand there twice
        name = f"layers.{k}"
        if isinstance(layer, blocks.AttentionBlock):
            yield attention_block(name, layer, given)
        elif isinstance(layer, blocks.TokenFlow):
            yield token_flow(name, layer, given)
        elif isinstance(layer, blocks.GradientFlow):
            yield gradient_flow(name, layer, given)
        elif isinstance(layer, blocks.ConvexFeedForward):
            yield convex_feed_forward(name, layer, given)
        else:
            raise _refusal(name, layer)
    yield [linear("out", network.out)]


def velocity_certificate(field: Predict, t: float, known: Certificate | None = None) -> Certificate:
    """The certified constant of the velocity field that is made of a network's output.

    Args:
        t: a time of the field's domain.
        known: of the network, if it is certified already; None certifies it at t.

    Raises:
        UserError: no certificate for the network.
    """
    network = field.net
    if not isinstance(network, nn.Module):
        raise UserError(f"no certificate for {type(network).__name__}: it is no network of layers")
    known = certificate(network, t) if known is None else known
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    at = torch.tensor(t, dtype=torch.float64)
    a = field.path.to_velocity(field.output, zero, one, at)
    b = field.path.to_velocity(field.output, one, zero, at)
    return known.affine(float(a), float(b))
