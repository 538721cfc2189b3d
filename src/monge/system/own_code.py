"""A user's own components: named by a file, copied into the run, executed only if trusted.

On the command line such a component reads ``mine.py:MyPath`` or ``mine.py:MyPath:key=value``.
`adopt` executes the file, since the user named it, and turns the text into
``code/mine-0123456789ab.py:MyPath``, with the first digits of the file's SHA-256. `keep` copies the
file into the run folder under that name. When the run is opened later, the copy is executed only
after `trust` was called with the folder, or `trust_all` for the whole process.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from monge.errors import UserError, nearest
from monge.system.files import is_regular, write_atomic
from monge.system.loading import as_dataclass, load_file

FOLDER = "code"
"""Subfolder of a run with copies of the files of its own components."""

DIGITS = 12
LARGEST = 2**20
"""Largest size of such a file, in bytes."""

ADOPTED = re.compile(rf"{FOLDER}/[^/:]+-[0-9a-f]{{{DIGITS}}}\.py")
OWN = re.compile(r"(?P<file>[^:]+\.py):(?P<name>[^:]+)(?P<rest>:.*)?", re.DOTALL)

_contents: dict[str, bytes] = {}
_places: dict[str, str] = {}
_classes: dict[str, Any] = {}
_trust_all = False


def is_own(text: str) -> bool:
    """Whether a component's text names a class in a file."""
    return OWN.fullmatch(text) is not None


def split(text: str) -> tuple[str, str]:
    """The name ``FILE.py:CLASS`` of a component in a file, and its settings."""
    found = OWN.fullmatch(text)
    assert found is not None
    return f"{found['file']}:{found['name']}", (found["rest"] or "").removeprefix(":")


def adopt(text: str) -> str:
    """Execute the file of a component; returns the component's text for `keep`.

    Raises:
        UserError: no such file, a file that fails, or no such class in it.
    """
    name, settings = split(text)
    file, _, kind = name.rpartition(":")
    if ADOPTED.fullmatch(file):
        return text
    content = _read(Path(file))
    digest = hashlib.sha256(content).hexdigest()[:DIGITS]
    stem = re.sub(r"\W+", "_", Path(file).stem)
    own = f"{FOLDER}/{stem}-{digest}.py"
    _contents[own], _places[own] = content, file
    class_of(f"{own}:{kind}")
    return f"{own}:{kind}" + (f":{settings}" if settings else "")


def name_of(kind: type) -> str:
    """``FILE.py:CLASS`` of a class that the user has imported.

    Raises:
        UserError: the class is in no file that can be executed again without running a program.
    """
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    if kind.__module__ == "__main__" or file is None or not is_own(f"{file}:{kind.__qualname__}"):
        raise UserError(
            f"{kind.__name__} is a component of your own, and a run keeps a copy of its file: "
            f"put the class in a file of its own, mine.py, and import it from there, or give the "
            f"text 'mine.py:{kind.__name__}'"
        )
    return f"{file}:{kind.__qualname__}"


def source_at(file: str) -> str | None:
    """The name that a run gives to a file of the user's own; None for any other file."""
    return next((source for source, place in _places.items() if place == file), None)


def content_of(source: str) -> bytes:
    """The content of a file of the user's own, by the name that a run gives it."""
    return _contents[source]


def shown(source: str) -> str:
    """Where such a file lies, for messages."""
    return _places.get(source, source)


def shown_name(name: str) -> str:
    """``FILE.py:CLASS`` of a component, with the file as the user knows it."""
    source, _, kind = name.rpartition(":")
    return f"{shown(source)}:{kind}"


def names_in_use() -> list[str]:
    """The components of the user's own that this process has executed."""
    return list(_classes)


def mended(before: str, now: str) -> bool:
    """Whether two texts name the same component of two states of one file."""
    stripped = [
        re.sub(rf"-[0-9a-f]{{{DIGITS}}}\.py:", ".py:", text, count=1) for text in (before, now)
    ]
    return is_own(before) and is_own(now) and stripped[0] == stripped[1]


def class_of(name: str) -> Any:
    """The class of ``code/FILE.py:CLASS``, if its file is trusted.

    Raises:
        UserError: the file is not trusted, fails, or has no such class.
    """
    if name in _classes:
        return _classes[name]
    source, _, kind = name.rpartition(":")
    if source not in _contents:
        raise UserError(
            f"{name} is code that belongs to a run: open the run with --trust-code (Python: "
            "trust_code=True) if you know what it does"
        )
    file = shown(source)
    module = load_file(_contents[source], source, Path(file))
    found = getattr(module, kind, None)
    if not isinstance(found, type):
        known = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        ]
        hint = f": {nearest(kind, known)}" if known else ""
        raise UserError(f"{file} has no class {kind!r}{hint}")
    if not hasattr(found, "in_full"):
        raise UserError(
            f"{file}: {kind} is no component: derive it from monge's base class of its "
            "kind (paths.Path, solvers.Solver, ...) or from monge.components.Component"
        )
    found = as_dataclass(found, file)
    found.name = name  # type: ignore[attr-defined]
    _classes[name] = found
    return found


def trust_all() -> None:
    """Trust the code of every run that this process opens."""
    global _trust_all
    _trust_all = True


def trust(folder: Path) -> None:
    """Trust the code of a run folder, in this process.

    Raises:
        UserError: a file whose hash differs from its name.
    """
    for path in sorted((folder / FOLDER).glob("*.py")):
        name = f"{FOLDER}/{path.name}"
        content = _read(path)
        if name not in _contents:
            digest = hashlib.sha256(content).hexdigest()[:DIGITS]
            if not ADOPTED.fullmatch(name) or not path.stem.endswith(f"-{digest}"):
                raise UserError(f"{path} is not the code that the run was trained with")
            _contents[name], _places[name] = content, str(path)


def require(folder: Path, texts: Iterable[str]) -> None:
    """Refuse a run with components in files that are not trusted.

    Raises:
        UserError: the names of the files and their hashes.
    """
    if _trust_all:
        trust(folder)
    wanted = {split(text)[0].rpartition(":")[0] for text in texts if is_own(text)}
    unknown = sorted(source for source in wanted if source not in _contents)
    if not unknown:
        return
    said = []
    for source in unknown:
        path = folder / source
        known = ADOPTED.fullmatch(source) and is_regular(path)
        digest = hashlib.sha256(_read(path)).hexdigest() if known else None
        said.append(f"{path} ({'sha256 ' + digest if digest else 'missing'})")
    raise UserError(
        f"{folder} uses code of its own, {', '.join(said)}: read it and, if you trust it, give "
        "--trust-code (Python: trust_code=True), which executes it"
    )


def keep(folder: Path, texts: Iterable[str]) -> None:
    """Copy the files of a run's own components into its folder."""
    for source in sorted({split(t)[0].rpartition(":")[0] for t in texts if is_own(t)}):
        path = folder / source
        if not path.exists():
            write_atomic(path, _contents[source])


def _read(path: Path) -> bytes:
    if not is_regular(path):
        raise UserError(f"no such file: {path}")
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} is larger than {LARGEST // 2**20} MB, too large for code")
    return path.read_bytes()
