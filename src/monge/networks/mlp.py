"""A multi-layer perceptron, for small vectors; states of another shape are flattened."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge.components import Component
from monge.errors import UserError
from monge.networks.layers import (
    TIME_SCALE,
    Conditioning,
    PairWeight,
    check_dropout,
    log_variance,
    reset_linear,
    reset_submodules,
)
from monge.tensors import stream
from monge.types import Cond, State, Time


@dataclass(frozen=True, repr=False)
class MLPSpec(Component):
    """A multi-layer perceptron with SiLU; the condition is added before every activation.

    Args:
        width: of the hidden layers.
        depth: how many hidden layers.
        embed: width of the condition's embedding; none: that of the hidden layers. The embedding
            of times then costs more than the layers, if the state is small.
        dropout: probability that a hidden number is dropped in training.
        two_times: whether the network takes a second time, as flow maps do.
        anchor: which of the two is embedded beside their span: the one that it is not
            differentiated in, if the embedding turns fast.
        guided: whether it takes a guidance scale, as maps distilled from a guided teacher do.
        time_scale: what times are multiplied by before they are embedded; less for a network
            that is differentiated in time.

    Raises:
        UserError: settings below 1.
    """

    width: int = 256
    depth: int = 4
    embed: int | None = None
    dropout: float = 0.0
    two_times: bool = False
    anchor: Literal["start", "end"] = "start"
    guided: bool = False
    time_scale: float = TIME_SCALE

    name = "mlp"

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 1 or not (self.embed is None or self.embed >= 1):
            raise UserError(f"network mlp: width, depth and embed must be at least 1, not {self}")
        check_dropout(self.dropout, "network mlp")

    def build(
        self,
        shape: tuple[int, ...],
        n_classes: int | None = None,
        n_vector: int = 0,
        rng: torch.Generator | None = None,
    ) -> MLP:
        """The untrained network for states of a shape; see `TransformerSpec.build`."""
        network = MLP(self, shape, n_classes, n_vector)
        network.reset(stream(0, "weights") if rng is None else rng)
        return network


class _SiLUAlong(torch.autograd.Function):
    """SiLU of a value and its derivatives, and their gradient, as few operations."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, shift: Tensor) -> Tensor:
        at = z[0] + shift
        out = torch.empty_like(z)
        torch.ops.aten.silu.out(at, out=out[0])
        for k in range(1, len(z)):  # its kernel multiplies by the derivative of silu
            torch.ops.aten.silu_backward.grad_input(z[k], at, grad_input=out[k])
        ctx.save_for_backward(z, at)
        ctx.shape = shift.shape
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grads
        z, at = ctx.saved_tensors
        found = torch.empty_like(grad)
        for k in range(len(grad)):
            torch.ops.aten.silu_backward.grad_input(grad[k], at, grad_input=found[k])
        own, along = found[0], grad[1] * z[1]
        for k in range(2, len(grad)):
            along.addcmul_(grad[k], z[k])
        # The second derivative of silu: share (1 - share) (2 + a (1 - 2 share)).
        share = at.sigmoid()
        torch.ops.aten.sigmoid_backward.grad_input(along, share, grad_input=along)
        bend = torch.addcmul(at, at, share, value=-2)
        own.addcmul_(along, bend).add_(along, alpha=2)
        return found, own if own.shape == ctx.shape else own.sum_to_size(ctx.shape)


def silu_along(z: Tensor, shift: Tensor) -> Tensor:
    """SiLU of z[0] + shift, and its derivatives along z[1:], (1 + K, B, W)."""
    return _SiLUAlong.apply(z, shift)  # type: ignore[return-value]


class MLP(nn.Module):
    """What `MLPSpec.build` returns; see `forward`."""

    duals = True
    """Whether `monge.dual_numbers` has a rule for each of its operations."""

    def __init__(
        self, spec: MLPSpec, shape: tuple[int, ...], n_classes: int | None, n_vector: int
    ) -> None:
        super().__init__()
        self.spec = spec
        self.shape = tuple(shape)
        width, size = spec.width, math.prod(self.shape)
        embed = spec.embed or width
        self.conditioning = Conditioning(embed, n_classes, n_vector, spec)
        self.pair_weight = PairWeight() if spec.two_times else None
        sizes = [size, *[width] * spec.depth]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.shifts = nn.Linear(embed, spec.depth * width)
        self.out = nn.Linear(width, size)

    def reset(self, rng: torch.Generator) -> None:
        """Draws the initial weights; the output is zero at the start."""
        reset_submodules(self, rng)
        for linear in (*self.hidden, self.shifts):
            reset_linear(linear, rng)  # type: ignore[arg-type]
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def log_variance(self, s: Tensor, t: Tensor) -> Tensor:
        """Of the error at (s, t), (B,), as far as it is learned; see `PairWeight`."""
        return log_variance(self.pair_weight, s, t)

    def conditioned(
        self, x: State, t: Time, cond: Cond = None, s: Time | None = None
    ) -> tuple[Tensor, ...]:
        """What times and condition add before each activation; of x only type and device count."""
        return self.shifts(self.conditioning(x, t, cond, s)).chunk(len(self.hidden), dim=1)

    def along(
        self, x: State, shifts: tuple[Tensor, ...], directions: Tensor
    ) -> tuple[State, Tensor]:
        """The output, and its derivatives along directions (K, B, *shape), in one pass.

        Args:
            shifts: those of `conditioned`.

        Raises:
            UserError: dropout in training, whose derivative would be of another network.
        """
        if self.spec.dropout and self.training:
            raise UserError("derivatives of a network with dropout in training: use dropout=0")
        h = torch.cat([x[None], directions]).flatten(2)
        for linear, shift in zip(self.hidden, shifts, strict=True):
            h = silu_along(h @ linear.weight.T, linear.bias + shift)  # type: ignore[operator]
        h = (h @ self.out.weight.T).unflatten(2, self.shape)
        bias = self.out.bias.unflatten(0, self.shape)
        return h[0] + bias, h[1:]

    def forward(self, x: State, t: Time, cond: Cond = None, s: Time | None = None) -> State:
        """The output at (x, t), or, with two times, for the walk of x from s to t.

        Arguments and errors as for `Transformer.forward`.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise UserError(f"the network takes states {self.shape}, not {tuple(x.shape[1:])}")
        h = x.flatten(1)
        for linear, shift in zip(self.hidden, self.conditioned(x, t, cond, s), strict=True):
            h = F.silu(linear(h) + shift)
            if self.spec.dropout:
                h = F.dropout(h, self.spec.dropout, self.training)
        return self.out(h).unflatten(1, self.shape).to(x.dtype)
