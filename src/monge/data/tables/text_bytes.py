"""The bytes of a table's text file: gzip and encoding, found by its content.

A file is UTF-8. A file that is not, and has no other sign beyond ASCII before its first such byte,
is read as Windows-1252, of which Latin-1 text is a part.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import stat
import zlib
from pathlib import Path

from monge.errors import UserError, reason

UTF8 = "utf-8"
WINDOWS = "cp1252"
GZIP = b"\x1f\x8b"
MARK = codecs.BOM_UTF8

BLOCK = 2**22
"""Bytes read at once."""


class NotUtf8(UserError):
    """A byte that is not UTF-8; `plain` if all before it was ASCII."""

    def __init__(self, message: str, plain: bool) -> None:
        super().__init__(message)
        self.plain = plain


def open_regular(path: Path) -> io.BufferedReader:
    """A regular file, opened for reading.

    Raises:
        UserError: a pipe or a device, or not readable.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise UserError(f"cannot read {path}: it is no file, but a pipe or a device")
    return file


def is_gzip(path: Path) -> bool:
    """Whether a file is compressed by gzip, by its first bytes."""
    with open_regular(path) as file:
        return file.read(2) == GZIP


def open_bytes(path: Path) -> io.BufferedIOBase:
    """The bytes of a file, decompressed if it is gzip.

    Raises:
        UserError: see `open_regular`.
    """
    file = open_regular(path)
    if file.peek(2)[:2] != GZIP:
        return file
    return gzip.GzipFile(fileobj=file)


def size_of(path: Path) -> int:
    """The size of a file's text in bytes; of gzip a lower bound, by its last four bytes."""
    size = os.path.getsize(path)
    if not is_gzip(path) or size < 18:
        return size
    with open_regular(path) as file:
        file.seek(-4, os.SEEK_END)
        return max(size, int.from_bytes(file.read(4), "little"))


def not_utf8(path: Path, content: bytes, at: int, lines: int, plain: bool = False) -> NotUtf8:
    """The error for a byte that is not UTF-8.

    Args:
        content: a part of the file, with the byte.
        lines: number of lines before that part.
        plain: whether all before that part was ASCII.
    """
    line = lines + content.count(b"\n", 0, at) + 1
    told = f"{path}, line {line}: byte {content[at]:#04x} is not UTF-8: save the file as UTF-8"
    return NotUtf8(told, plain and content[:at].isascii())


def zero_byte(path: Path, lines: int) -> UserError:
    """The error for a zero byte after `lines` lines."""
    return UserError(f"{path} is no csv file: line {lines + 1} holds a zero byte")


def read_bytes(file: io.BufferedIOBase, size: int, path: Path) -> bytes:
    """Up to `size` bytes of a file.

    Raises:
        UserError: damaged gzip.
    """
    try:
        return file.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from None


class Utf8Stream(io.RawIOBase):
    """The text of a file as UTF-8, in blocks, checked.

    Args:
        file: opened by `open_bytes`, at the first byte to read.
        lines: number of lines before it.
    """

    def __init__(
        self, file: io.BufferedIOBase, path: Path, lines: int, encoding: str = UTF8
    ) -> None:
        self.file, self.path, self.lines, self.encoding = file, path, lines, encoding
        self.rest = self.ready = b""
        self.plain = True

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        size = BLOCK if size < 0 else size
        if self.encoding == UTF8:
            content = read_bytes(self.file, size, self.path)
            self._check(content)
            return content
        while len(self.ready) < size and (content := read_bytes(self.file, size, self.path)):
            self._check_zero(content)
            self.ready += self._converted(content)
            self.lines += content.count(b"\n")
        found, self.ready = self.ready[:size], self.ready[size:]
        return found

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _converted(self, content: bytes) -> bytes:
        try:
            return content.decode(self.encoding).encode()
        except UnicodeDecodeError as error:
            raise not_utf8(self.path, content, error.start, self.lines) from None

    def _check_zero(self, content: bytes) -> None:
        if (at := content.find(b"\0")) >= 0:
            raise zero_byte(self.path, self.lines + content.count(b"\n", 0, at))

    def _check(self, content: bytes) -> None:
        self._check_zero(content)
        whole = self.rest + content
        try:
            whole.decode(UTF8)
            self.rest = b""
        except UnicodeDecodeError as error:
            if not content or error.start < len(whole) - 3:
                raise not_utf8(self.path, whole, error.start, self.lines, self.plain) from None
            self.rest = whole[error.start :]
        self.plain = self.plain and whole[: len(whole) - len(self.rest)].isascii()
        self.lines += content.count(b"\n")
