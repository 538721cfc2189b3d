"""Tables of cells as text of a given width, and as HTML for notebooks."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence

LEAST = 24
"""Least width of a terminal that is assumed, in characters."""


def aligned(lines: Sequence[Sequence[str]], first: int = 0, width: int | None = None) -> str:
    """Lines of cells as columns: the first flush left and at least `first` wide, the others right.

    Args:
        width: of the terminal; a wider table is split into blocks, one below the other, each
            with the first column. None: no limit.

    >>> print(aligned([["metric", "value"], ["↓ AUC", "0.5"]]))
    metric  value
    ↓ AUC     0.5
    >>> print(aligned([["metric", "value", "floor"], ["↓ AUC", "0.5", "0.4"]], width=24))
    metric  value  floor
    ↓ AUC     0.5    0.4
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths[0] = max(first, widths[0])
    blocks = []
    for columns in _blocks(widths, width):
        rows = [
            "  ".join(
                [line[0].ljust(widths[0]), *(line[i].rjust(widths[i]) for i in columns)]
            ).rstrip()
            for line in lines
        ]
        blocks.append("\n".join(rows))
    return "\n\n".join(blocks)


def _blocks(widths: Sequence[int], width: int | None) -> list[list[int]]:
    """The columns of each block, without the first column."""
    if width is None or sum(widths) + 2 * (len(widths) - 1) <= width:
        return [list(range(1, len(widths)))]
    blocks: list[list[int]] = [[]]
    used = widths[0]
    for i, own in enumerate(widths[1:], 1):
        if blocks[-1] and used + 2 + own > max(width, LEAST):
            blocks.append([])
            used = widths[0]
        blocks[-1].append(i)
        used += 2 + own
    return blocks


def wrapped(text: str, width: int | None, indent: str = "") -> str:
    """Lines of prose, broken at blanks to the width of the terminal."""
    if width is None:
        return text
    return "\n".join(
        textwrap.fill(
            line,
            max(width, LEAST),
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.split("\n")
    )


def as_html(lines: Sequence[Sequence[str]], caption: str = "") -> str:
    """Lines of cells as an HTML table; the first line is the head.

    >>> as_html([["a", "b"], ["<x>", "1"]]).count("&lt;x&gt;")
    1
    """
    head, *rows = lines
    cells = "".join(f"<th scope='col'>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th scope='row' style='text-align:left'>{html.escape(row[0])}</th>"
        + "".join(f"<td style='text-align:right'>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def as_paragraphs(lines: Sequence[str]) -> str:
    """Sentences as HTML paragraphs."""
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines if line)
