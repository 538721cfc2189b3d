"""Faults of a user's own components, named by file, class and line.

`blamed` turns an error that was raised in the user's file, wherever it comes up, into a message.
`fault` makes the message of a component that returns what it must not.
"""

from __future__ import annotations

import ast
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from monge.errors import UserError, reason
from monge.system import own_code

if TYPE_CHECKING:
    from torch import Tensor

CHECK = "monge check {file}:{kind} puts it through the laws of its kind"

MOST_NAMED = 3
"""Components that are named where any of them may be at fault."""


@contextmanager
def blamed(anywhere: bool = False) -> Iterator[None]:
    """Turns what a component of the user's own raises into a message that names its line.

    Args:
        anywhere: do so, too, for what is raised outside the user's files while there are some:
            it comes from what their components returned.

    Raises:
        UserError: in place of any other error of theirs.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        told = _in_own_file(error)
        if told is None and anywhere and not isinstance(error, (OSError, SystemExit)):
            told = _elsewhere(error)
        if told is None:
            raise
        raise UserError(told) from error


def fault(component: Any, method: str, what: str) -> UserError:
    """The error for a method of a user's own component, or of what it has built."""
    kind = component if isinstance(component, type) else type(component)
    for base in kind.__mro__:
        if method in vars(base) and (file := _file_of(base)) is not None:
            return UserError(_place(file, base.__name__, method) + f" {what}")
    file = _file_of(kind)
    plain = str(getattr(component, "__name__", kind.__name__))
    where = plain if file is None else _place(file, kind.__name__, None)
    return UserError(f"{where}: {method} {what}")


def expect(component: Any, method: str, found: Any, like: Sequence[Tensor]) -> None:
    """Refuse what a method has returned unless it is tensors like these, of finite numbers.

    Raises:
        UserError: by file, class and line of the method.
    """
    from torch import Tensor

    wanted = " and ".join(f"{tuple(x.shape)}" for x in like)
    wanted = f"it returns {'a tensor' if len(like) == 1 else 'tensors'} of shape {wanted}"
    if not isinstance(found, (tuple, list)) or len(found) != len(like):
        raise fault(component, method, f"returns {said(found)}; {wanted}")
    for one, other in zip(found, like, strict=True):
        if not isinstance(one, Tensor) or one.shape != other.shape:
            raise fault(component, method, f"returns {said(one)}; {wanted}")
        if not bool(one.isfinite().all()):
            raise fault(component, method, "returns numbers that are not finite")


def shaped_like(found: Any, x: Tensor, network: Any) -> Any:
    """What a network has returned for states x, which is shaped like them.

    Another shape would be broadcast, and a walk of many steps would then fill the memory.

    Raises:
        UserError: it is not.
    """
    if getattr(found, "shape", None) != x.shape:
        wanted = f"it returns a tensor shaped like its states, {tuple(x.shape)}"
        raise fault(network, "forward", f"returns {said(found)}; {wanted}")
    return found


def said(found: Any) -> str:
    """A value that a method has returned, in words."""
    from torch import Tensor

    if isinstance(found, Tensor):
        return f"a tensor of shape {tuple(found.shape)}"
    if isinstance(found, (tuple, list)):
        return f"{len(found)} values ({', '.join(map(_said, found[:3]))})"
    return "None" if found is None else f"a value of type {type(found).__name__}"


def _place(file: str, kind: str, method: str | None) -> str:
    """``FILE, line 12: Kind.method``."""
    line = _line_of(file, kind, method)
    named = kind if method is None else f"{kind}.{method}"
    return f"{own_code.shown(file)}{f', line {line}' if line else ''}: {named}"


def _line_of(file: str, kind: str, method: str | None) -> int | None:
    """The line of a class or of its method in a file that was executed."""
    for node in ast.walk(ast.parse(own_code.content_of(file))):
        if isinstance(node, ast.ClassDef) and node.name == kind:
            inside = (n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == method)
            return next(inside, node).lineno
    return None


def _file_of(kind: type) -> str | None:
    """The file of a user's own that a class is defined in, by the name that a run gives it."""
    module = sys.modules.get(kind.__module__)
    return own_code.source_at(str(getattr(module, "__file__", None)))


def _in_own_file(error: BaseException) -> str | None:
    """What failed at the last line of the user's own that an error came through."""
    frames = traceback.walk_tb(error.__traceback__)
    own = [(frame, line) for frame, line in frames if _own(frame.f_code.co_filename)]
    if not own:
        return None
    frame, line = own[-1]
    code = frame.f_code
    named = getattr(code, "co_qualname", code.co_name).replace("<locals>.", "")
    where = f"{code.co_filename}, line {line}: {named}"
    return f"{where} fails: {_said(error)}"


def _own(file: str) -> bool:
    return own_code.source_at(file) is not None


def _elsewhere(error: Exception) -> str | None:
    """What failed outside the user's files, where components in them are in use."""
    names = own_code.names_in_use()
    if not names:
        return None
    last = traceback.extract_tb(error.__traceback__)[-1]
    kinds = ", ".join(own_code.shown_name(name) for name in names[-MOST_NAMED:])
    return (
        f"it fails where components of your own are used ({kinds}): {_said(error)} "
        f"({last.filename.rpartition('site-packages/')[2]}, line {last.lineno}); "
        + CHECK.format(file="FILE", kind="CLASS")
    )


def _said(error: BaseException) -> str:
    text = reason(error) if isinstance(error, Exception) else str(error)
    name = type(error).__name__
    return name if text == name else f"{name}: {text}"
