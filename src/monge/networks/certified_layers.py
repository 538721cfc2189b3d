r"""The constants of the layers of a Lipschitz transformer: a rule with a proof for each type.

A rule reads the weights and what times and conditions decide, and returns a `Step` for each
condition. Where the conditions are not finitely many it takes the worst decision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from monge.networks import lipschitz as blocks
from monge.networks.bounds import Parts, Step, slack, up
from monge.networks.capped import norm_bound
from monge.networks.lipschitz_attention import (
    CosineAttention,
    L2Attention,
    attention_constant,
    l2_constant,
)

Values: TypeAlias = tuple[Tensor, ...]
"""What the conditions decide, (R, 1, size) each, a row for a condition."""


@dataclass(frozen=True)
class Conditions:
    """What is known of times and conditions: embeddings (R, width), or nothing but the bounds."""

    names: tuple[str, ...]
    embedding: Tensor | None

    def decide(self, decisions: blocks.Decisions) -> Values | None:
        """What these conditions decide; None if anything may be decided."""
        return None if self.embedding is None else decisions(self.embedding)


def linear(name: str, module: Any) -> Step:
    norm = norm_bound(module.weight)
    return Step(name, f"|W| = {norm:.6g}", norm, norm)


def attention_block(name: str, module: blocks.AttentionBlock, given: Conditions) -> list[Step]:
    """(1 - a) + a |s| L: the mean's removal is a projection, of constant 1."""
    attention = module.attention
    if isinstance(attention, L2Attention):
        norms, what = _l2_norms(attention), f"n = {attention.n_tokens}, L2"
    else:
        norms = _attention_norms(attention)
        what = f"n = {attention.n_tokens}, tau = {attention.tau:g}"
    decided = given.decide(module.decisions)
    rows = []
    for k in range(len(given.names)):
        scale, share = 1.0, None
        if decided is not None:
            scale = up(float(blocks.input_scale(decided[1][k]).max()))
            share = float(blocks.attention_share(decided[2][k]))
        inner = [up(scale * norm) for norm in norms]
        both = [_mixed(share, inside) for inside in inner]
        amount = "sup" if share is None else f"{share:.4g}"
        rule = (
            f"(1 - a) + a |s| L, a = {amount}, |s| <= {scale:.4g}, L = {norms[0]:.4g} and "
            f"{norms[1]:.4g} ({what})"
        )
        rows.append(Step(name, rule, both[0], both[1]))
    return rows


def _mixed(share: float | None, inner: float) -> float:
    """(1 - a) + a L for a known share a; the largest over a in [0, 1] elsewhere."""
    if share is None:
        return up(max(1.0, inner))
    return up((1 - share) + share * inner)


def _attention_norms(attention: CosineAttention) -> tuple[float, float]:
    r"""The constants of attention in the two norms, from the norms of its matrices.

    Euclidean: see `attention_constant`. Token by token, n or not,
    :math:`S(W_V) + \tau (\|W_Q\| + S(W_K))` with :math:`S(W)^2 = \sum_h \|W^h\|^2` over the rows of
    each head: rows of P sum to one, and the largest token may be another one for each head.
    Both are multiplied by the radius of the values over sqrt(eps), and by the output's norm.
    """
    query, key, value = attention.qkv.matrices
    whole = [norm_bound(w) for w in (query, key, value)]
    by_head = [
        up(math.sqrt(sum(norm_bound(part) ** 2 for part in w.chunk(attention.heads))))
        for w in (key, value)
    ]
    out = norm_bound(attention.out.weight)
    tau, eps = attention.tau, attention.eps
    factor = up(out * attention.radius / math.sqrt(eps) / attention.divisor)
    n = attention.n_tokens
    euclidean = attention_constant(whole[0], whole[1], whole[2], n, tau)
    token_max = by_head[1] + tau * (whole[0] + by_head[0])
    return up(factor * up(euclidean)), up(factor * up(token_max))


def _l2_norms(attention: L2Attention) -> tuple[float, float]:
    """The constants of L2 attention in the two norms; see `l2_constant`."""
    query, value = (
        [norm_bound(part) for part in w.chunk(attention.heads)] for w in attention.qv.matrices
    )
    n, size = attention.n_tokens, attention.qv.weight.shape[1] // attention.heads
    heads = up(l2_constant(query, value, n, size))
    euclidean = up(up(norm_bound(attention.out.weight) * heads) / attention.divisor)
    return euclidean, up(euclidean / math.sqrt(n))


def gradient_flow(name: str, module: blocks.GradientFlow, given: Conditions) -> list[Step]:
    """max(1, h g |W|^2 - 1): the eigenvalues of I - h W^T D W, 0 <= D <= g."""
    norm = norm_bound(module.linear.weight)
    rows = []
    for gate in _gates(module.decisions, given):
        constant = up(max(1.0, up(module.step * gate * norm * norm) - 1.0))
        rule = f"max(1, h g |W|^2 - 1), h = {module.step:g}, g <= {gate:.4g}, |W| = {norm:.6g}"
        rows.append(Step(name, rule, constant, constant))
    return rows


def token_flow(name: str, module: blocks.TokenFlow, given: Conditions) -> list[Step]:
    r"""The same over tokens; token by token, rows of the blocks of the Jacobian.

    Block (i, j) is diagonal, :math:`\delta_{ij} - h \sum_k M_{ki} M_{kj} g_k d_k` with d in [0, 1]
    for each channel: at most max(1, h G_ii - 1) for i = j, and else h times the larger sum of
    terms of one sign.
    """
    matrix = module.linear.weight
    norm, step = norm_bound(matrix), module.step
    decided = given.decide(module.decisions)
    rows = []
    for k, gate in enumerate(_gates(module.decisions, given)):
        euclidean = up(max(1.0, up(step * gate * norm * norm) - 1.0))
        gates = torch.ones(len(matrix)) if decided is None else blocks.hidden_gate(decided[1][k, 0])
        terms = gates[:, None, None] * matrix[:, :, None] * matrix[:, None, :]
        signs = torch.maximum(terms.clamp_min(0).sum(0), (-terms).clamp_min(0).sum(0))
        own = (step * signs.diagonal() - 1).clamp_min(1.0)
        token_max = up(float((own + step * (signs.sum(1) - signs.diagonal())).max()))
        rule = f"max(1, h g |M|^2 - 1), h = {step:g}, g <= {gate:.4g}, |M| = {norm:.6g}"
        rows.append(Step(name, rule, euclidean, token_max))
    return rows


def convex_feed_forward(
    name: str, module: blocks.ConvexFeedForward, given: Conditions
) -> list[Step]:
    """(1 - a) + a g |W_2| |W_1|."""
    norm = up(norm_bound(module.up.weight) * norm_bound(module.down.weight))
    decided = given.decide(module.decisions)
    rows = []
    for k, gate in enumerate(_gates(module.decisions, given)):
        share = None if decided is None else float(blocks.feed_share(decided[2][k]))
        constant = _mixed(share, up(gate * norm))
        amount = "sup" if share is None else f"{share:.4g}"
        rule = f"(1 - a) + a g |W2| |W1|, a = {amount}, g <= {gate:.4g}, |W2| |W1| = {norm:.6g}"
        rows.append(Step(name, rule, constant, constant))
    return rows


def _gates(decisions: blocks.Decisions, given: Conditions) -> list[float]:
    """The largest gate of each condition."""
    decided = given.decide(decisions)
    if decided is None:
        return [1.0] * len(given.names)
    return [up(float(blocks.hidden_gate(row).max())) for row in decided[1]]


def head(
    network: blocks.LipschitzTransformer,
    given: Conditions,
    k: int,
    name: str,
    euclidean: float,
    token_max: float,
    steps: tuple[Step, ...],
) -> list[Parts]:
    """cap (r deep + (1 - r) q x); where r and q may be anything, the corners of their set."""
    cap, decided = network.gain, given.decide(network.decisions)
    spec = network.spec
    clips = spec.clip_in is not None or spec.clip_out is not None
    if decided is None:
        corners = ((1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
    else:
        share, straight = blocks.head_weights(decided[1], decided[2])
        corners = ((float(share[k]), float(straight[k])),)
    found = []
    for share, straight in corners:
        deep = [up(cap * share * inside) for inside in (euclidean, token_max)]
        alpha = cap * (1 - share) * straight
        if clips:  # 1-Lipschitz, but not affine in the state
            deep, alpha = [up(abs(alpha) + inside) for inside in deep], 0.0
        rule = f"cap (r L + (1 - r) q), cap = {cap:.6g}, r = {share:.4g}, q = {straight:.4g}"
        last = Step("head", rule, up(abs(alpha) + deep[0]), up(abs(alpha) + deep[1]))
        rounding = slack(alpha)
        found.append(Parts(name, alpha, deep[0] + rounding, deep[1] + rounding, (*steps, last)))
    return found
