r"""Dual numbers: a value and its derivative along a direction, through one forward pass.

A `Dual` is a tensor that carries the tangent beside it. A function computed on duals computes its
derivative too, op by op, and the result can be differentiated again by autograd: both the value
and the tangent are ordinary tensors. `torch.func.jvp` does the same for any function; for the
networks here duals take half its time, since norms, activations and attention have a rule of one
or two fused kernels instead of a decomposition into many. Layer norm and softmax need none of their
own: their Jacobians are symmetric, so that torch's backward kernels are their forward derivatives.

Only the operations of the table below are known. Others raise a `TypeError`: a tangent is never
lost in silence.

References:
    | Automatic differentiation in machine learning: a survey (Baydin et al., 2018), Sec. 3.1
    |   -- https://arxiv.org/abs/1502.05767
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Rule = Callable[..., Any]


def jvp(
    f: Callable[..., Tensor], primals: Sequence[Tensor], tangents: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """f at the primals and its derivative along the tangents; None stands for zero.

    Raises:
        TypeError: f uses an operation that has no rule here.
    """
    given = [
        x if v is None else dual(x, v) for x, v in zip(primals, tangents, strict=True)
    ]  # fmt: skip
    found = f(*given)
    if not isinstance(found, Dual):
        return found, torch.zeros_like(found)
    return value_of(found), found.tangent


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
        name = func.__name__
        with torch._C.DisableTorchFunctionSubclass():
            if name in FACTS:  # of the value alone: no derivative
                return func(*_values(args), **(kwargs or {}))
            rule = RULES.get(name)
            if rule is None:
                raise TypeError(f"dual numbers have no rule for {name}")
            return rule(func, *args, **(kwargs or {}))


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
        "__get__",
        "size",
        "dim",
        "numel",
        "is_floating_point",
        "is_complex",
        "stride",
        "__len__",
        "__repr__",
    )
)
"""What does not depend on the numbers in a tensor."""

RULES: dict[str, Rule] = {}
"""The derivative of each operation, by the name of torch's function."""


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def _values(args: Any) -> Any:
    if isinstance(args, (tuple, list)):
        return type(args)(_values(a) for a in args)
    return value_of(args)


def _tangent(x: Any) -> Tensor | None:
    return x.tangent if isinstance(x, Dual) else None


def _with(value: Tensor, *parts: Tensor | None) -> Tensor:
    """The value, with the sum of those parts of its tangent that there are."""
    total = None
    for part in parts:
        if part is not None:
            total = part if total is None else total + part
    if total is None:
        return value
    return dual(value, total if total.shape == value.shape else total.expand_as(value))


@_rule(
    *("view", "reshape", "flatten", "unflatten", "transpose", "squeeze", "unsqueeze", "expand"),
    *("expand_as", "contiguous", "__getitem__", "pixel_unshuffle", "pixel_shuffle", "pad", "_pad"),
    *("to", "type", "float", "double", "neg", "__neg__", "sum", "mean", "chunk", "unbind", "split"),
)
def _linear_in_first(func: Rule, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    args = _values(args)
    if not isinstance(x, Dual):  # p.to(x) has the kind of a dual alone
        return func(x, *args, **kwargs)
    value, tangent = func(value_of(x), *args, **kwargs), func(x.tangent, *args, **kwargs)
    if isinstance(value, Tensor):
        return dual(value, tangent)
    return type(value)(dual(v, d) for v, d in zip(value, tangent, strict=True))


@_rule("cat")
def _cat(func: Rule, tensors: Sequence[Tensor], *args: Any, **kwargs: Any) -> Dual:
    values = [value_of(x) for x in tensors]
    tangents = [
        torch.zeros_like(v) if (d := _tangent(x)) is None else d
        for x, v in zip(tensors, values, strict=True)
    ]
    return dual(func(values, *args, **kwargs), func(tangents, *args, **kwargs))


@_rule("add", "__add__", "__radd__")
def _add(func: Rule, a: Any, b: Any) -> Tensor:
    return _with(value_of(a) + value_of(b), _tangent(a), _tangent(b))


@_rule("sub", "__sub__")
def _sub(func: Rule, a: Any, b: Any) -> Tensor:
    return _with(value_of(a) - value_of(b), _tangent(a), _negative(_tangent(b)))


@_rule("rsub", "__rsub__")
def _rsub(func: Rule, b: Any, a: Any) -> Tensor:
    return _sub(func, a, b)


@_rule("mul", "__mul__", "__rmul__")
def _mul(func: Rule, a: Any, b: Any) -> Tensor:
    x, y = value_of(a), value_of(b)
    return _with(x * y, _times(_tangent(a), y), _times(_tangent(b), x))


@_rule("div", "__truediv__")
def _div(func: Rule, a: Any, b: Any) -> Tensor:
    x, y = value_of(a), value_of(b)
    found = x / y
    own, other = _tangent(a), _tangent(b)
    return _with(
        found,
        None if own is None else own / y,
        None if other is None else -found * other / y,
    )


@_rule("reciprocal", "__rdiv__", "__rtruediv__")
def _reciprocal(func: Rule, x: Dual, over: Any = 1.0) -> Tensor:
    return _div(func, over, x)


@_rule("addcmul")
def _addcmul(func: Rule, a: Any, b: Any, c: Any) -> Tensor:
    x, y, z = value_of(a), value_of(b), value_of(c)
    parts = _tangent(a), _tangent(b), _tangent(c)
    value = torch.addcmul(x, y, z)
    tangent = parts[0]
    for part, factor in ((parts[1], z), (parts[2], y)):
        if part is not None:
            tangent = (
                part * factor if tangent is None else torch.addcmul(tangent, part, factor)
            )  # fmt: skip
    return _with(value, tangent)


@_rule("cos")
def _cos(func: Rule, x: Dual) -> Dual:
    value = value_of(x)
    return dual(value.cos(), -value.sin() * x.tangent)


@_rule("sin")
def _sin(func: Rule, x: Dual) -> Dual:
    value = value_of(x)
    return dual(value.sin(), value.cos() * x.tangent)


@_rule("silu")
def _silu(func: Rule, x: Dual, inplace: bool = False) -> Dual:
    value = value_of(x)
    if not torch.is_grad_enabled():  # the kernel has no derivative of its own
        return dual(F.silu(value), torch.ops.aten.silu_backward(x.tangent, value))
    share = value.sigmoid()
    found = value * share
    return dual(found, x.tangent * (share + found * (1 - share)))


@_rule("gelu")
def _gelu(func: Rule, x: Dual, approximate: str = "none") -> Dual:
    value = value_of(x)
    tangent = torch.ops.aten.gelu_backward(x.tangent, value, approximate=approximate)
    return dual(F.gelu(value, approximate=approximate), tangent)


@_rule("linear")
def _linear(func: Rule, x: Dual, weight: Tensor, bias: Tensor | None = None) -> Dual:
    return dual(F.linear(value_of(x), weight, bias), F.linear(x.tangent, weight))


@_rule("layer_norm")
def _layer_norm(
    func: Rule,
    x: Dual,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Dual:
    shape, value = list(shape), _precise(value_of(x))
    normed, mean, scale = torch.native_layer_norm(value, shape, None, None, eps)
    along = x.tangent.to(value.dtype).contiguous()
    kept = [True, False, False]
    tangent = torch.ops.aten.native_layer_norm_backward(
        along, value.contiguous(), shape, mean, scale, None, None, kept
    )[0]
    if weight is not None:
        normed, tangent = normed * weight, tangent * weight
    return dual(normed if bias is None else normed + bias, tangent)


@_rule("rms_norm")
def _rms_norm(
    func: Rule,
    x: Dual,
    shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Dual:
    value, axes = _precise(value_of(x)), tuple(range(-len(shape), 0))
    eps = torch.finfo(value.dtype).eps if eps is None else eps
    scale = torch.rsqrt(value.square().mean(axes, keepdim=True) + eps)
    normed = value * scale
    inner = (normed * x.tangent).mean(axes, keepdim=True)
    tangent = (x.tangent - normed * inner) * scale
    if weight is None:
        return dual(normed, tangent)
    return dual(normed * weight, tangent * weight)


@_rule("scaled_dot_product_attention")
def _attention(func: Rule, q: Any, k: Any, v: Any) -> Tensor:
    """Softmax of queries times keys, times values, without mask or dropout."""
    x, y, z = value_of(q), value_of(k), value_of(v)
    scale = 1 / math.sqrt(x.shape[-1])
    share = (scale * x @ y.mT).softmax(-1)
    logits = _with(
        share,
        None if (d := _tangent(q)) is None else scale * d @ y.mT,
        None if (d := _tangent(k)) is None else scale * x @ d.mT,
    )
    moved = None
    if isinstance(logits, Dual):
        # The Jacobian of a softmax is symmetric: its backward kernel is its derivative.
        along = logits.tangent.to(share.dtype)
        along = torch.ops.aten._softmax_backward_data(along, share, -1, share.dtype)
        moved = along @ z
    own = _tangent(v)
    return _with(share @ z, moved, None if own is None else share @ own)


def _precise(x: Tensor) -> Tensor:
    """Statistics are taken in float32 at least, as under autocast."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _times(tangent: Tensor | None, factor: Any) -> Tensor | None:
    return None if tangent is None else tangent * factor


def _negative(tangent: Tensor | None) -> Tensor | None:
    return None if tangent is None else -tangent
