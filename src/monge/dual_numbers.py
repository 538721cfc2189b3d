r"""Dual numbers: a value and its derivative along a direction, through one forward pass.

A `Dual` is a tensor that carries its tangent. The value of an operation on duals is the operation
on their values, to the bit; a rule for each operation adds the tangent of the result. Both are
ordinary tensors, which autograd differentiates again. `torch.func.jvp` does the same for any
function. For the networks here dual numbers take little more than half its time, because norms,
activations and attention have rules of a few fused kernels. Layer norm and softmax need no kernel
of their own: their Jacobians are symmetric, so torch's backward kernels are their forward
derivatives.

Only the operations below have rules. Others raise a `TypeError`, so no tangent is dropped silently.

References:
    | Automatic differentiation in machine learning: a survey (Baydin et al., 2018), Sec. 3.1
    |   -- https://arxiv.org/abs/1502.05767
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Rule = Callable[..., Any]
"""The tangent of a result from the result and the arguments; None where it has none."""


def jvp(
    f: Callable[..., Tensor],
    primals: Sequence[Tensor],
    tangents: Sequence[Tensor | None],
    *,
    constant: bool = False,
) -> tuple[Tensor, Tensor]:
    """f at the primals and its derivative along the tangents; None stands for zero.

    Args:
        constant: the derivative is a number like any other, without a gradient of its own.

    Raises:
        TypeError: f uses an operation that has no rule here.
    """
    given = [x if v is None else dual(x, v) for x, v in zip(primals, tangents, strict=True)]
    before, _Tangents.constant = _Tangents.constant, constant
    try:
        found = f(*given)
    finally:
        _Tangents.constant = before
    if not isinstance(found, Dual):
        return found, torch.zeros_like(found)
    return value_of(found), found.tangent


class _Tangents:
    constant = False


def are_taken_by(network: nn.Module) -> bool:
    """Whether duals go through a network as it is: no hooks, no dropout, not compiled.

    Its own class says so: one derived from it may compute what they do not know.
    """
    known = vars(type(network)).get("duals", False) and not torch.compiler.is_compiling()
    spec = getattr(network, "spec", None)
    dropping = network.training and getattr(spec, "dropout", 0.0) > 0
    return known and not dropping and not are_hooked(network)


def are_hooked(network: nn.Module) -> bool:
    """Whether modules call others first or afterwards, as those of shards do."""
    return any(m._forward_pre_hooks or m._forward_hooks for m in network.modules())


class Dual(Tensor):
    """A tensor, the value, with the tangent of the same shape beside it."""

    tangent: Tensor

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, kwargs = func.__name__, kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if name not in RULES and name not in LINEAR and name not in FACTS:
                raise TypeError(f"dual numbers have no rule for {name}")
            value, tangent = func(*_values(args), **kwargs), None
            if name in FACTS and isinstance(value, Tensor):  # as x.mT
                raise TypeError("dual numbers have no rule for an attribute that is a tensor")
            with torch.set_grad_enabled(torch.is_grad_enabled() and not _Tangents.constant):
                if name in RULES:
                    tangent = RULES[name](value, *args, **kwargs)
                elif name in LINEAR and isinstance(args[0], Dual):
                    tangent = func(args[0].tangent, *_values(args[1:]), **kwargs)
            return _joined(value, tangent)


def dual(value: Tensor, tangent: Tensor) -> Dual:
    """A value and its tangent, of one shape."""
    with torch._C.DisableTorchFunctionSubclass():
        made = value.as_subclass(Dual)
        made.tangent = tangent
        return made


def value_of(x: Any) -> Any:
    """The value of a dual; anything else as it is."""
    if not isinstance(x, Dual):
        return x
    with torch._C.DisableTorchFunctionSubclass():
        return x.as_subclass(Tensor)


FACTS = frozenset(
    (
        *("__get__", "__len__", "__repr__", "size", "dim", "numel", "stride"),
        *("is_floating_point", "is_complex"),
    )
)
"""What is asked of a tensor that has no derivative."""

LINEAR = frozenset(
    (
        *("view", "reshape", "flatten", "unflatten", "transpose", "squeeze", "unsqueeze"),
        *("expand", "expand_as", "contiguous", "__getitem__", "pixel_unshuffle", "pixel_shuffle"),
        *("to", "neg", "__neg__", "sum", "mean", "chunk", "unbind"),
    )
)
"""What is linear in its first argument and asks no more than the kind of others."""

RULES: dict[str, Rule] = {}
"""The tangent of each operation, by the name of torch's function."""


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def _values(args: Any) -> Any:
    if isinstance(args, (tuple, list)):
        return type(args)(_values(a) for a in args)
    return value_of(args)


def _joined(value: Any, tangent: Any) -> Any:
    if tangent is None:
        return value
    if isinstance(value, Tensor):
        return dual(value, tangent)
    return type(value)(dual(v, d) for v, d in zip(value, tangent, strict=True))


def _tangent(x: Any) -> Tensor | None:
    return x.tangent if isinstance(x, Dual) else None


def _sum(like: Tensor, *parts: Tensor | None) -> Tensor | None:
    """The sum of those parts that there are, in the shape of the result."""
    total = None
    for part in parts:
        if part is not None:
            total = part if total is None else total + part
    return total if total is None or total.shape == like.shape else total.expand_as(like)


def _times(tangent: Tensor | None, factor: Any) -> Tensor | None:
    return None if tangent is None else tangent * factor


@_rule("cat")
def _cat(value: Tensor, tensors: Sequence[Tensor], *args: Any, **kwargs: Any) -> Tensor:
    tangents = [x.tangent if isinstance(x, Dual) else torch.zeros_like(x) for x in tensors]
    return torch.cat(tangents, *args, **kwargs)


@_rule("add", "__add__", "__radd__")
def _add(value: Tensor, a: Any, b: Any) -> Tensor | None:
    return _sum(value, _tangent(a), _tangent(b))


@_rule("sub", "__sub__")
def _sub(value: Tensor, a: Any, b: Any) -> Tensor | None:
    return _sum(value, _tangent(a), _times(_tangent(b), -1))


@_rule("rsub", "__rsub__")
def _rsub(value: Tensor, b: Any, a: Any) -> Tensor | None:
    return _sub(value, a, b)


@_rule("mul", "__mul__", "__rmul__")
def _mul(value: Tensor, a: Any, b: Any) -> Tensor | None:
    return _sum(value, _times(_tangent(a), value_of(b)), _times(_tangent(b), value_of(a)))


@_rule("div", "__truediv__")
def _div(value: Tensor, a: Any, b: Any) -> Tensor | None:
    over = 1 / value_of(b)
    return _sum(value, _times(_tangent(a), over), _times(_tangent(b), -value * over))


@_rule("__rdiv__", "__rtruediv__")
def _over(value: Tensor, b: Dual, a: Any) -> Tensor | None:
    return _div(value, a, b)


@_rule("pad")
def _pad(
    result: Tensor,
    /,
    x: Dual,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Tensor:
    return torch.nn.functional.pad(x.tangent, list(pad), mode)


@_rule("addcmul")
def _addcmul(value: Tensor, a: Any, b: Any, c: Any) -> Tensor | None:
    total = _tangent(a)
    for part, factor in ((_tangent(b), value_of(c)), (_tangent(c), value_of(b))):
        if part is not None:
            total = part * factor if total is None else torch.addcmul(total, part, factor)
    return _sum(value, total)


@_rule("dropout")
def _dropout(
    value: Tensor, x: Dual, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    if training and p:
        raise TypeError("dual numbers have no rule for dropout in training")
    return x.tangent


@_rule("cos")
def _cos(value: Tensor, x: Dual) -> Tensor:
    return -value_of(x).sin() * x.tangent


@_rule("sin")
def _sin(value: Tensor, x: Dual) -> Tensor:
    return value_of(x).cos() * x.tangent


@_rule("silu")
def _silu(value: Tensor, x: Dual, inplace: bool = False) -> Tensor:
    at = value_of(x)
    if not torch.is_grad_enabled():  # the kernel has no derivative of its own
        return torch.ops.aten.silu_backward(x.tangent, at)
    share = at.sigmoid()
    return x.tangent * (share + value * (1 - share))


@_rule("gelu")
def _gelu(value: Tensor, x: Dual, approximate: str = "none") -> Tensor:
    return torch.ops.aten.gelu_backward(x.tangent, value_of(x), approximate=approximate)


@_rule("linear")
def _linear(value: Tensor, x: Dual, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.linear(x.tangent, weight)


@_rule("layer_norm")
def _layer_norm(
    value: Tensor,
    x: Dual,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    at = _precise(value_of(x)).contiguous()
    _, mean, scale = torch.native_layer_norm(at, list(shape), None, None, eps)
    tangent = torch.ops.aten.native_layer_norm_backward(
        x.tangent.to(at.dtype).contiguous(),
        *(at, list(shape), mean, scale, None, None, [True, False, False]),
    )[0]
    return tangent if weight is None else tangent * weight


@_rule("rms_norm")
def _rms_norm(
    value: Tensor,
    x: Dual,
    shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    at, axes = _precise(value_of(x)), tuple(range(-len(shape), 0))
    eps = torch.finfo(at.dtype).eps if eps is None else eps
    scale = torch.rsqrt(at.square().mean(axes, keepdim=True) + eps)
    # x r w has the tangent v r w - (x r w) r^2 <x, v> / n, r the scale and w the weight.
    inner = (at * x.tangent).mean(axes, keepdim=True) * scale.square()
    straight = x.tangent * scale
    return torch.addcmul(straight if weight is None else straight * weight, value, inner, value=-1)


@_rule("scaled_dot_product_attention")
def _attention(value: Tensor, q: Any, k: Any, v: Any) -> Tensor | None:
    """Of a softmax of queries times keys, times values, without mask or dropout."""
    at_q, at_k = value_of(q), value_of(k)
    scale = 1 / math.sqrt(at_q.shape[-1])
    share = (scale * at_q @ at_k.mT).softmax(-1)
    of_q, of_k = _tangent(q), _tangent(k)
    moved = _sum(
        share,
        None if of_q is None else of_q @ at_k.mT,
        None if of_k is None else at_q @ of_k.mT,
    )
    if moved is not None:
        moved = (scale * moved).to(share.dtype)
        # The Jacobian of a softmax is symmetric: its backward kernel is its derivative.
        moved = torch.ops.aten._softmax_backward_data(moved, share, -1, share.dtype)
        moved = moved @ value_of(v)
    own = _tangent(v)
    return _sum(value, moved, None if own is None else share @ own)


def _precise(x: Tensor) -> Tensor:
    """Statistics are taken in float32 at least, as under autocast."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
