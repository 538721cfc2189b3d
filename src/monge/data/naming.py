"""Reads lists of names on the command line, and writes them ready to be pasted there."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Sequence


def names_in(text: str | None) -> list[str]:
    """Names separated by commas; a name that contains a comma is in double quotes.

    >>> names_in('a, b,"c,d"'), names_in("")
    (['a', 'b', 'c,d'], [''])
    """
    if text is None:
        return []
    return next(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True), [""])


def found(name: str, known: Sequence[str]) -> str | None:
    """The known name equal to a name, or the only one that is equal except for blanks around it.

    >>> found("job", ["age", " job"]), found("jobs", [" job"])
    (' job', None)
    """
    for wanted in (name, name.strip()):
        if wanted in known:
            return wanted
    alike = [own for own in known if own.strip() == name.strip()]
    return alike[0] if len(alike) == 1 else None


def labels_in(text: str, known: Sequence[str]) -> list[str]:
    """Labels separated by commas; a text that is itself a label is that label.

    >>> labels_in("warbler, yellow", ["warbler, yellow", "wren"])
    ['warbler, yellow']
    >>> labels_in('"warbler, yellow",wren', ["warbler, yellow", "wren"])
    ['warbler, yellow', 'wren']
    """
    return [text] if text in known else [name.strip() for name in names_in(text)]


def listed(names: Iterable[str]) -> str:
    """Names as one word of a command line, quoted for the shell; `names_in` reads it.

    >>> print(listed(["a", "kind, sort", ""]), listed([""]))
    'a,"kind, sort",""' '""'
    """
    return shlex.quote(joined(names))


def joined(names: Iterable[str]) -> str:
    """Names as one text; `names_in` reads it.

    >>> joined(["a", "b,c"])
    'a,"b,c"'
    """
    return ",".join(_quoted(name) for name in names)


def flag(option: str, names: Iterable[str]) -> str:
    """An option with names, ready to be pasted.

    >>> print(flag("--drop", ["size, cm"]))
    --drop '"size, cm"'
    """
    return f"{option} {listed(names)}"


def drop(names: Iterable[str]) -> str:
    """The option that leaves columns out, ready to be pasted."""
    return flag("--drop", names)


def _quoted(name: str) -> str:
    if name == "" or name != name.strip() or any(sign in name for sign in ',"\r\n'):
        return '"' + name.replace('"', '""') + '"'
    return name
