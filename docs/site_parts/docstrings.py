"""Docstrings as they stand are read by `help` too; here their plain signs are made safe for Sphinx.

Shapes such as ``(B, *shape)`` and norms such as ``|x - y|`` are text, not markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx


LITERAL = re.compile(r"(``.*?``|:?[a-z]*:?`[^`]*`)")
SHAPE = re.compile(r"(?<![\w*\\])\*(?=\w+(?![\w*]))")
BAR = re.compile(r"(?<!\\)\|")
TABLE = re.compile(r"^\|[-| ]+\|$")


def setup(app: Sphinx) -> dict[str, bool]:
    """Comes before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Changes the lines of one docstring in place."""
    lines[:] = safe(tables(lines))
    if what in ("property", "attribute", "data"):
        lines.insert(0, "")  # else the text before a colon is read as a type


def safe(lines: list[str]) -> Iterator[str]:
    """The lines with their signs escaped, outside formulas, code and line blocks."""
    block: int | None = None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() and block is not None and indent <= block:
            block = None
        if re.match(r"\s*(\.\. |>>> )", line) or line.rstrip().endswith("::"):
            block = indent
        starts = re.match(r"\s*(\| )?", line)
        head = starts.group(0) if starts else ""
        yield line if block is not None else head + escaped(line[len(head) :])


def escaped(text: str) -> str:
    """A piece of a line; what stands in backticks is left alone.

    >>> escaped("(B, *shape) with |x| and `a | b`")
    '(B, \\\\*shape) with \\\\|x\\\\| and `a | b`'
    """
    parts = LITERAL.split(text)
    return "".join(
        part if i % 2 else BAR.sub(r"\\|", SHAPE.sub(r"\\*", part)) for i, part in enumerate(parts)
    )


def tables(lines: list[str]) -> list[str]:
    """Tables of bars, as Markdown has them, as ``list-table``."""
    out: list[str] = []
    i = 0
    while i < len(lines):
        if i + 1 < len(lines) and TABLE.match(lines[i + 1].strip()) and "|" in lines[i]:
            rows = [lines[i]]
            i += 2
            while i < len(lines) and lines[i].strip().startswith("|"):
                rows.append(lines[i])
                i += 1
            out += [".. list-table::", "   :header-rows: 1", ""]
            for row in rows:
                cells = [escaped(cell.strip()) for cell in row.strip().strip("|").split("|")]
                out += [f"   {'* -' if j == 0 else '  -'} {cell}" for j, cell in enumerate(cells)]
            out.append("")
        else:
            out.append(lines[i])
            i += 1
    return out
