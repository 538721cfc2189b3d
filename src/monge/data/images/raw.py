"""The common interface of a folder, a parquet file and the hub as sources of encoded images."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from monge.data.images.image_files import Unreadable


@dataclass(frozen=True)
class Raw:
    """One encoded image.

    Attributes:
        name: for messages.
        load: reads its bytes; raises OSError if they cannot be read now, and `Unreadable` if
            there are none.
        label: its class, or None.
        heldout: whether the source holds it out; None without a split.
        bytes: its approximate size, if known in advance.
    """

    name: str
    load: Callable[[], bytes]
    label: str | None = None
    heldout: bool | None = None
    bytes: int = 0


MOST_BYTES = 2**30
"""Larger files are not read: an image with the most pixels allowed needs fewer bytes."""


def content_of_file(path: Path) -> bytes:
    """The bytes of a regular file of at most `MOST_BYTES`.

    Raises:
        Unreadable: no regular file, or a larger one.
        OSError: the file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("no file, but a folder, a pipe or a device")
        if status.st_size > MOST_BYTES:
            raise Unreadable(f"a file of {status.st_size / 2**30:.1f} GB: too large for an image")
        return file.read()


@runtime_checkable
class ImageSource(Protocol):
    """Encoded images in a fixed order."""

    @property
    def name(self) -> str:
        """A short name, for folders."""
        ...

    @property
    def text(self) -> str:
        """The source as a text that is valid in any working directory."""
        ...

    @property
    def total(self) -> int | None:
        """The number of images, if known; used only for display."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """Everything that the images depend on: equal facts mean equal images."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Notes for people."""
        ...

    @property
    def missing(self) -> Sequence[tuple[str, str]]:
        """Names of missing images, with the reason."""
        ...

    def rows(self, start: int) -> Iterator[Raw]:
        """All images in order, from number `start` on.

        Raises:
            UserError: the source itself fails, such as a file of many images.
        """
        ...

    def sample(self, n: int) -> Iterator[Raw]:
        """About n of the images, to choose size and colour."""
        ...


def shown(name: str) -> str:
    """A file name of any bytes in printable form, on one line.

    >>> print(shown("two\\nlines"))
    two\\nlines
    """
    try:
        text = os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate, which JSON can hold but a file name cannot
        text = name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown_lines(text: str) -> str:
    """A text of several lines in printable form, whatever names and values it quotes."""
    return "\n".join(map(shown, text.split("\n")))
