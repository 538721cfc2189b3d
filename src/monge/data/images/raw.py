"""Encoded images before they are read: what a folder, a parquet file and a hub have in common."""

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
        load: reads its bytes; raises OSError where they cannot be had now, and `Unreadable` where
            there are none.
        label: its class, or None.
        heldout: whether the source holds it out; None where it does not say.
        bytes: about how many it has, if that is known before.
    """

    name: str
    load: Callable[[], bytes]
    label: str | None = None
    heldout: bool | None = None
    bytes: int = 0


MOST_BYTES = 2**30
"""Larger files are not read: no image of as many pixels as are decoded needs more."""


def content_of_file(path: Path) -> bytes:
    """The bytes of a regular file of a bearable size; a pipe or a device has no end.

    Raises:
        Unreadable: it is neither, with its size.
        OSError: it cannot be read.
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
        """Short, for folder names."""
        ...

    @property
    def text(self) -> str:
        """What names the source, from any working directory."""
        ...

    @property
    def total(self) -> int | None:
        """How many there are, if that is known; it is for show."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What the images depend on; equal facts, equal images."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a person should know."""
        ...

    @property
    def missing(self) -> Sequence[tuple[str, str]]:
        """Names of images that cannot be had, and why."""
        ...

    def rows(self, start: int) -> Iterator[Raw]:
        """All images in order, from number `start` on.

        Raises:
            UserError: the source itself fails, as a file of many images can.
        """
        ...

    def sample(self, n: int) -> Iterator[Raw]:
        """Some of the images, about n, for a look at what they are."""
        ...


def shown(name: str) -> str:
    """A file name that can be printed: on one line, whatever its bytes.

    >>> print(shown("two\\nlines"))
    two\\nlines
    """
    try:
        text = os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # no file name: half a character, as JSON can hold it
        text = name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown_lines(text: str) -> str:
    """A text of several lines that can be printed, whatever names and values it quotes."""
    return "\n".join(map(shown, text.split("\n")))
