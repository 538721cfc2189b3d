"""The log of a run, `log.jsonl`: one JSON object per line.

A log line holds what a run computes (step, loss, ...) at its top level and what depends on the
clock under ``wall``; so two runs of the same configuration agree in all but ``wall``.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from monge.errors import UserError, missing_extra
from monge.system import files, schema
from monge.system.files import strict

NAME = "log.jsonl"

ROW = schema.fields(
    {},
    {
        "step": schema.whole(),
        "loss": schema.maybe(schema.portable),
        "grad_norm": schema.maybe(schema.portable),
        "lr": schema.maybe(schema.portable),
        "parts": schema.maybe(schema.table(schema.maybe(schema.portable))),
        "event": schema.text,
    },
)
"""What a line holds."""


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that was torn by a kill is left out.

    Raises:
        UserError: a line before the last is not a JSON object.
    """
    if not path.exists():
        return []
    try:
        *lines, _torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; remove it") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(
                f"{path}, line {number}, is not a JSON object: remove the line or the file"
            ) from None
        schema.check(row, ROW, f"{path}, line {number},", "remove the line or the file")
        rows.append(row)
    return rows


class Journal:
    """Appends lines to a run's log.

    Args:
        folder: the run folder.
        step: the step from which the run goes on; lines of later steps and a torn last line are
            dropped, and the file is rewritten atomically.
        tensorboard: write the numbers to ``folder/tensorboard`` too.

    Raises:
        UserError: the file cannot be read or written.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool = False) -> None:
        self.path = folder / NAME
        kept = [row for row in read(self.path) if row.get("step", 0) <= step]
        with _telling(self.path):
            _rewrite(self.path, kept)
            self._file: TextIO = self.path.open("a", encoding="utf-8")
        self._board = _board(folder / "tensorboard", step) if tensorboard else None

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one line; it has a `step`. Numbers that are not finite become null."""
        with _telling(self.path):
            self._file.write(_line(row))
            self._file.flush()
        if self._board is not None:
            for name, value in _numbers(row):
                self._board.add_scalar(name, value, row["step"])

    def sync(self) -> None:
        """Make sure that what was written survives a power cut."""
        with _telling(self.path):
            os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with _telling(self.path):
            self._file.close()
        if self._board is not None:
            self._board.close()


def _rewrite(path: Path, rows: list[dict[str, Any]]) -> None:
    files.replace_with(path, "".join(map(_line, rows)).encode())


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the log {path}: {error.strerror}; checkpoints are intact: make room "
            "or allow writing, then run the same command again"
        ) from error


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(strict(row), allow_nan=False) + "\n"


def _numbers(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    numbers: list[tuple[str, float]] = []
    for key, value in row.items():
        if isinstance(value, Mapping):
            numbers += _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and key != "step":
            numbers.append((prefix + key, value))
    return numbers


def _board(folder: Path, step: int) -> Any:
    # Points of later steps, from before an interruption, are hidden by purge_step.
    return board_class()(str(folder), purge_step=step + 1)


def board_class() -> Any:
    """What writes TensorBoard files.

    Raises:
        UserError: tensorboard is missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise missing_extra("tensorboard", "track", "--tensorboard") from None
    return SummaryWriter
