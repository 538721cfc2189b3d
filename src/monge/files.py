"""Files that are never seen half written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from monge.errors import UserError


def write_atomic(path: Path, content: bytes | str) -> Path:
    """Write a file under a temporary name, flush it to disk, then rename it.

    Raises:
        UserError: the folder is not writable or the disk is full; what was there is intact.
    """
    # File names that are no UTF-8 hold lone surrogates, which are escaped as in JSON: "\udcff".
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if temporary.exists():
            temporary.unlink()
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room" if full else "choose another folder"
        raise UserError(f"cannot write {path}: {error.strerror}; {remedy}") from error
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write a value as JSON, atomically."""
    return write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: missing or damaged file, by name.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
