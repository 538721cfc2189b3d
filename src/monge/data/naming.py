"""Lists of names on the command line: read, and written so that they can be pasted there."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Sequence


def names_in(text: str | None) -> list[str]:
    """Names with commas between; one with a comma in it stands in double quotes.

    >>> names_in('a, b,"c,d"'), names_in("")
    (['a', 'b', 'c,d'], [''])
    """
    if text is None:
        return []
    return next(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True), [""])


def found(name: str, known: Sequence[str]) -> str | None:
    """The known name that is meant: the same, or the only one but for blanks around it.

    >>> found("job", ["age", " job"]), found("jobs", [" job"])
    (' job', None)
    """
    for wanted in (name, name.strip()):
        if wanted in known:
            return wanted
    alike = [own for own in known if own.strip() == name.strip()]
    return alike[0] if len(alike) == 1 else None


def labels_in(text: str, known: Sequence[str]) -> list[str]:
    """Labels with commas between; a label that is the whole text is taken as it is.

    >>> labels_in("warbler, yellow", ["warbler, yellow", "wren"])
    ['warbler, yellow']
    >>> labels_in('"warbler, yellow",wren', ["warbler, yellow", "wren"])
    ['warbler, yellow', 'wren']
    """
    return [text] if text in known else [name.strip() for name in names_in(text)]


def listed(names: Iterable[str]) -> str:
    """Names as one word of a command line, which `names_in` reads.

    >>> print(listed(["a", "kind, sort", ""]), listed([""]))
    'a,"kind, sort",""' '""'
    """
    return shlex.quote(joined(names))


def joined(names: Iterable[str]) -> str:
    """Names as one text, which `names_in` reads.

    >>> joined(["a", "b,c"])
    'a,"b,c"'
    """
    return ",".join(_quoted(name) for name in names)


def flag(option: str, names: Iterable[str]) -> str:
    """An option with names, to be pasted.

    >>> print(flag("--drop", ["size, cm"]))
    --drop '"size, cm"'
    """
    return f"{option} {listed(names)}"


def drop(names: Iterable[str]) -> str:
    """The option that leaves columns out, to be pasted."""
    return flag("--drop", names)


def _quoted(name: str) -> str:
    if name == "" or name != name.strip() or any(sign in name for sign in ',"\r\n'):
        return '"' + name.replace('"', '""') + '"'
    return name
