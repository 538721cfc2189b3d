"""The help of a verb: its arguments in groups, from the dataclass that `act` takes.

tyro parses the command line; this module makes the page, grouped by topic and as wide as the
terminal.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from monge.verbs.table import Verb

GROUPS: dict[str, tuple[str, ...]] = {
    "data": (
        *("image_size", "image_fit", "image_mode", "image_column", "label_column", "columns"),
        *(
            "drop",
            "condition_columns",
            "categorical",
            "missing",
            "dates",
            "marginals",
            "subset",
            "split",
            "limit",
        ),
        *("allow_bad", "changed_data", "check_cache", "reference", "flip"),
    ),
    "model": (
        *("recipe", "config", "autoencoder", "autoencoder_steps", "network", "path", "output"),
        *("error", "objective", "pairs", "teacher", "teacher_guidance", "coupling", "times"),
        *("label_drop", "conditional", "init_from", "component", "clock", "time_scale"),
    ),
    "training": (
        *("steps", "minutes", "batch", "micro_batch", "lr", "schedule", "warmup"),
        *("weight_decay", "clip", "ema", "seed", "dry_run"),
    ),
    "sampling": (
        *(
            "n",
            "draws",
            "label",
            "condition",
            "solver",
            "grid",
            "guidance",
            "final",
            "interpolate",
            "to",
        ),
        "trajectory",
    ),
    "measuring": (
        *("features", "timings", "quick", "fail_above", "fail_if_different", "selftest"),
    ),
    "computing": ("precision", "compile", "shard", "device", "threads", "jobs", "trust_code"),
    "output": (
        *("out", "format", "save_every", "sample_every", "log_every", "tensorboard", "json"),
    ),
}
"""The arguments under each heading, in this order; others are under "options"."""

TRAINING = ("train", "distil", "autoencoder", "demo")
"""Verbs whose steps and seed refer to training; in other verbs they refer to sampling."""

COLUMN = 26
"""Column of an argument's text, on terminals that are wide enough."""


@dataclass(frozen=True)
class Argument:
    """An argument of a verb.

    Attributes:
        spelt: its flags, or its name in capitals if it is positional.
        text: its meaning, with its default.
    """

    name: str
    spelt: str
    text: str
    positional: bool


def page(verb: Verb, width: int) -> str:
    """The output of ``monge VERB --help``, in lines of at most `width` characters."""
    arguments = list(arguments_of(verb))
    doc = inspect.getdoc(verb.arguments) or ""
    paragraphs = (" ".join(part.split()) for part in doc.split("\n\n"))
    lines = [f"usage: monge {verb.name} {verb.takes} [options]".replace("  ", " "), ""]
    for paragraph in paragraphs:
        lines += [_filled(paragraph, width), ""]
    for title, found in _grouped(verb, arguments):
        lines += [title, *(_shown(argument, width) for argument in found), ""]
    return "\n".join(lines)


def arguments_of(verb: Verb) -> Iterator[Argument]:
    """The arguments of a verb, in the order of its dataclass."""
    texts: dict[str, str] = {}
    for kind in reversed(verb.arguments.__mro__):
        if dataclasses.is_dataclass(kind):
            texts |= field_texts(kind)
    hints = get_type_hints(verb.arguments, include_extras=True)
    takes = iter(verb.takes.split())
    for field in dataclasses.fields(verb.arguments):
        found = _argument(field, hints[field.name], texts.get(field.name, ""))
        named = next(takes, found.spelt) if found.positional else found.spelt
        yield dataclasses.replace(found, spelt=named)


def field_texts(kind: type) -> dict[str, str]:
    """The docstring below each field of a class."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(sys.modules[kind.__module__])))
    texts = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
            for own, below in zip(node.body, node.body[1:], strict=False):
                if not isinstance(own, ast.AnnAssign) or not isinstance(own.target, ast.Name):
                    continue
                if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                    texts[own.target.id] = " ".join(str(below.value.value).split())
    return texts


def flags_of(verb: Verb) -> set[str]:
    """Every flag that a verb takes, with dashes."""
    flags = {"--help"}
    hints = get_type_hints(verb.arguments, include_extras=True)
    for field in dataclasses.fields(verb.arguments):
        if _is_positional(hints[field.name]):
            continue
        flag = field.name.replace("_", "-")
        flags |= {f"--{flag}"} | ({f"--no-{flag}"} if _plain(hints[field.name]) is bool else set())
    return flags


def _argument(field: dataclasses.Field[Any], hint: Any, text: str) -> Argument:
    marks, positional = getattr(hint, "__metadata__", ()), _is_positional(hint)
    plain = _plain(hint)
    flag = "--" + field.name.replace("_", "-")
    aliases = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
    value = "" if plain is bool else _value_of(plain)
    spelt = ", ".join([*aliases, flag]) + (f" {value}" if value else "")
    default = field.default
    silent = default is None or default is dataclasses.MISSING or default is False or default == ()
    if not silent:
        text = f"{text} [{'on' if default is True else default}]"
    return Argument(field.name, field.name.upper() if positional else spelt, text, positional)


def _is_positional(hint: Any) -> bool:
    return any("positional" in repr(mark).lower() for mark in getattr(hint, "__metadata__", ()))


def _plain(hint: Any) -> Any:
    """A type without its annotations and without None."""
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    if typing.get_origin(hint) is not typing.Literal and type(None) in typing.get_args(hint):
        return options[0] if len(options) == 1 else typing.Union[tuple(options)]  # noqa: UP007
    return hint


def _value_of(plain: Any) -> str:
    """The placeholder for a value of a type."""
    if typing.get_origin(plain) is typing.Literal:
        return "|".join(map(str, typing.get_args(plain)))
    if options := typing.get_args(plain):
        return "|".join(dict.fromkeys(_value_of(option) for option in options))
    return {int: "N", float: "X", Path: "PATH"}.get(plain, "TEXT")


def _grouped(verb: Verb, arguments: list[Argument]) -> Iterator[tuple[str, list[Argument]]]:
    """The arguments under their headings."""
    by_name = {a.name: a for a in arguments if not a.positional}
    if positional := [a for a in arguments if a.positional]:
        yield "takes", positional
    for title, names in GROUPS.items():
        if verb.name not in TRAINING and title in ("training", "sampling"):
            ours = {"sampling": ("n", "steps", *names, "seed")}.get(title, names)
            names = tuple(n for n in ours if title == "sampling" or n not in ("steps", "seed"))
        if found := [by_name.pop(name) for name in names if name in by_name]:
            yield title, found
    if by_name:
        yield "options", list(by_name.values())


def _shown(argument: Argument, width: int) -> str:
    column = COLUMN if width >= 2 * COLUMN + 20 else 6
    head = f"  {argument.spelt}"
    text = textwrap.wrap(argument.text, max(20, width - column), break_on_hyphens=False)
    if len(head) + 2 <= column:
        head = head.ljust(column) + (text.pop(0) if text else "")
    return "\n".join([head.rstrip(), *(" " * column + line for line in text)])


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, max(20, width), break_long_words=False, break_on_hyphens=False)
