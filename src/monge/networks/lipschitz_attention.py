r"""Attention with a global Lipschitz constant: of cosines of tokens, or of their distances.

References:
    | The Lipschitz constant of self-attention (Kim et al., 2021) -- https://arxiv.org/abs/2006.04710
    | LipsFormer (Qi et al., 2023), Sec. 4 -- https://arxiv.org/abs/2304.09856
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from scipy.special import lambertw
from torch import Tensor, nn

from monge.networks.capped import CappedLinear


class CosineAttention(nn.Module):
    r"""Attention with smooth-normed queries, keys and values, over its global constant.

    With :math:`g(z) = z / \sqrt{|z|^2 + \varepsilon}` for each head, of constant
    :math:`\varepsilon^{-1/2}`,

    .. math:: \mathrm{head}_i = \sqrt\varepsilon \sum_j P_{ij} \, g(W_V x_j), \qquad
        P_i = \mathrm{softmax}_j \bigl( \tau \, g(W_Q x_i) \cdot g(W_K x_j) \bigr).

    The output is divided by `attention_constant` for matrices of norm 1.
    """

    def __init__(self, width: int, heads: int, n_tokens: int, tau: float, eps: float) -> None:
        super().__init__()
        self.heads, self.n_tokens = heads, n_tokens
        self.tau, self.eps = tau, eps
        self.radius = math.sqrt(eps)
        self.divisor = attention_constant(1.0, 1.0, 1.0, n_tokens, tau)
        self.qkv = CappedLinear(width, width, groups=3)
        self.out = CappedLinear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, -1)
        size = qkv.shape[-1]
        # z / sqrt(mean z^2 + eps / d) is sqrt(d) g(z).
        qkv = F.rms_norm(qkv, (size,), eps=self.eps / size)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.tau / size)
        mixed = mixed.transpose(1, 2).reshape(batch, tokens, width)
        return self.out(mixed) * (self.radius / math.sqrt(size) / self.divisor)


def mixing_bound(n: int, tau: float) -> float:
    r"""A bound of the spectral norm of the matrix P of attention over n tokens.

    Logits lie in [-tau, tau], so :math:`P_{ij} \le p = 1 / (1 + (n - 1) e^{-2 \tau})`; rows sum to
    one and columns to at most n p, so :math:`\|P\|_2 \le \sqrt{n p}`.
    """
    return math.sqrt(n / (1 + (n - 1) * math.exp(-2 * tau)))


def attention_constant(query: float, key: float, value: float, n: int, tau: float) -> float:
    r"""The Euclidean constant of the heads of `CosineAttention`, side by side.

    .. math:: m \|W_V\| + \tau (\|W_Q\| + m \|W_K\|), \qquad m = \mathrm{mixing\_bound}(n, \tau)

    for the norms of the whole matrices. Proof: the derivative of a head along dx is
    :math:`\sum_j P_{ij} dv_j + \mathrm{Cov}_{P_i}(v, ds_i)`. The first sum has at most the norm
    m |dv|. Values lie in a ball of radius sqrt(eps), so the covariance is at most
    :math:`\sqrt{\varepsilon} \tau (|d\hat q_i| + (\sum_j P_{ij} |d\hat k_j|^2)^{1/2})`. Squares are
    summed over tokens, where columns of P sum to at most m^2, and over heads, where those of the
    parts of W_Q dx add up to |W_Q dx|^2; smooth norms divide by sqrt(eps) at least.
    """
    mixing = mixing_bound(n, tau)
    return mixing * value + tau * (query + mixing * key)


class L2Attention(nn.Module):
    r"""Attention by distances of tied queries and keys, over its global constant.

    With :math:`q_i = W_Q x_i` for each head, of d coordinates,

    .. math:: \mathrm{head}_i = W_V W_Q^\top \sum_j P_{ij} \, q_j / \sqrt{d}, \qquad
        P_i = \mathrm{softmax}_j \bigl( -|q_i - q_j|^2 / \sqrt{d} \bigr).

    The output is divided by `l2_constant` for matrices of norm 1. States need no bound.
    """

    def __init__(self, width: int, heads: int, n_tokens: int) -> None:
        super().__init__()
        self.heads, self.n_tokens = heads, n_tokens
        self.divisor = l2_constant([1.0] * heads, [1.0] * heads, n_tokens, width // heads)
        self.qv = CappedLinear(width, width, groups=2, bias=False)
        self.out = CappedLinear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, value = (w.unflatten(0, (self.heads, -1)) for w in self.qv.weight.chunk(2))
        q = torch.einsum("bnw,hdw->bhnd", x, query)
        root = math.sqrt(q.shape[-1])
        # Up to a number for each row, -|q_i - q_j|^2 is (2 q_i, 1) . (q_j, -|q_j|^2).
        key = torch.cat([q, -q.square().sum(-1, keepdim=True)], -1)
        asked = torch.cat([2 * q, torch.ones_like(q[..., :1])], -1)
        mixed = F.scaled_dot_product_attention(asked, key, q, scale=1 / root)
        heads = mixed @ (query @ value.mT) / root
        return self.out(heads.transpose(1, 2).flatten(2)) / self.divisor


def largest_spread(n: int) -> float:
    r"""The largest :math:`\sum_k P_k |z_k|^2` with P the softmax of :math:`-|z_k|^2`, one z_k = 0.

    It is the solution c of :math:`c \, e^{c + 1} = n - 1`, for n points. Proof: where the
    derivative in :math:`u = |z_k|^2` vanishes, u = 1 + c for every point but the one at 0.
    """
    return float(lambertw((n - 1) / math.e).real)


def l2_constant(query: list[float], value: list[float], n: int, size: int) -> float:
    r"""The Euclidean constant of the heads of `L2Attention`, side by side.

    .. math:: \sqrt{n} \, (4 c + 1) \Bigl( \sum_h \|W_Q^h\|^4 \|W_V^h\|^2 \Bigr)^{1/2} / \sqrt{d},
        \qquad c = \mathrm{largest\_spread}(n);

    without the root of n in the largest norm of a token. Proof: let :math:`y = q / d^{1/4}` and
    :math:`g_i = \sum_j P_{ij} y_j`. Its derivative along dy is
    :math:`\sum_j P_{ij} dy_j + 2 \sum_j P_{ij} (y_j - g_i) \langle y_i - y_j, dy_j \rangle +
    2 \, \mathrm{Cov}_i \, dy_i`. By Cauchy-Schwarz the second sum is at most
    :math:`2 \max_j |dy_j| (\mathrm{tr\,Cov}_i \sum_j P_{ij} |y_i - y_j|^2)^{1/2}`, and both factors
    are at most c. So a token moves by (4 c + 1) max |dy_j| at most. The published constant has
    :math:`\|W_Q\|` in place of its square, which agrees with this for norms of 1.

    Args:
        query, value: spectral norms of the matrices of each head.
        n: tokens.
        size: d, coordinates of a head.
    """
    matrices = sum(q**4 * v**2 for q, v in zip(query, value, strict=True))
    return math.sqrt(n * matrices / size) * (4 * largest_spread(n) + 1)
