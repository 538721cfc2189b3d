"""The HTML of a report: one page without external requests, for phone and desktop, day and night.

Everything that comes from a file passes through `escaped`; the rest of this module only joins.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monge.errors import UserError
from monge.report.style import DARK, LIGHT, SCRIPT, STYLE
from monge.runs import schemas

DAMAGED = (UserError, OSError, ValueError, LookupError, TypeError, AttributeError)
"""What a file that is not as monge writes it can raise when it is shown."""


class Markup(str):
    """Text that is HTML already."""


def escaped(value: object) -> str:
    """Text that is safe inside an element or a quoted attribute.

    >>> escaped('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(str(value), quote=True)


def number(value: object, digits: int = 3) -> str:
    """A number for people: three significant digits, thousands apart, a dash for none.

    >>> number(0.012345), number(0.5), number(1234567), number(97.25), number(None), number(0.0)
    ('0.0123', '0.500', '1,234,567', '97.2', '–', '0')
    """
    if value is None or value != value:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return escaped(value)
    if isinstance(value, int) or value == 0 or 10**digits <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def count(value: object) -> str:
    """A count or a setting for people: no more digits than it has.

    >>> count(40.0), count(1.5), count(1571524), count(None), count("heun")
    ('40', '1.5', '1,571,524', '–', 'heun')
    """
    if isinstance(value, float) and value.is_integer():
        return f"{value:,.0f}"
    return f"{value:.4g}" if isinstance(value, float) and value == value else number(value)


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(8.25), duration(98), duration(208), duration(1500), duration(7300)
    ('8.2 s', '98 s', '3 min 28 s', '25 min', '2 h 2 min')
    """
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 600:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def card(body: str, heading: str = "") -> str:
    """A box with a heading; both already HTML."""
    title = f"<h3>{heading}</h3>" if heading else ""
    return f"<div class='card'>{title}{body}</div>"


def tiles(items: Iterable[tuple[str, str]]) -> str:
    """Large numbers with a line below each; both already HTML."""
    cells = "".join(f"<div class='tile'><b>{n}</b><span>{s}</span></div>" for n, s in items)
    return f"<div class='tiles'>{cells}</div>" if cells else ""


def facts(values: Mapping[str, object]) -> str:
    """A list of names and values from files; those that are none are left out."""
    rows = "".join(
        f"<dt>{escaped(k)}</dt><dd>{v if isinstance(v, Markup) else escaped(v)}</dd>"
        for k, v in values.items()
        if v is not None and v != ""
    )
    return f"<dl>{rows}</dl>"


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], caption: str, *, text: Collection[int] = ()
) -> str:
    """A table; on a narrow screen each row becomes a list of names and values.

    Args:
        head: the columns' names, HTML; the first is that of the rows' headings.
        rows: HTML cells, the first the row's heading; one cell alone is the heading of a group.
        caption: HTML.
        text: columns that hold words: all others hold numbers and are aligned at their ends.
    """
    classes = ["" if j in (0, *text) else " class='n'" for j in range(len(head))]
    names = "".join(
        f"<th scope='col'{c}>{h}</th>" if h else "<td></td>"
        for h, c in zip(head, classes, strict=True)
    )
    body = ""
    for first, *cells in rows:
        if not cells:
            span = f"colspan='{len(head)}'"
            body += f"<tr class='group'><th scope='rowgroup' {span}>{first}</th></tr>"
            continue
        body += f"<tr><th scope='row'>{first}</th>" + "".join(
            f"<td{c} data-name='{_words(h)}'><span>{cell}</span></td>" if cell else f"<td{c}></td>"
            for h, c, cell in zip(head[1:], classes[1:], cells, strict=True)
        )
        body += "</tr>"
    return (
        f"<div class='wide'><table><caption>{caption}</caption><thead><tr>{names}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _words(heading: str) -> str:
    """The words of a heading that is HTML, for an attribute."""
    return re.sub(r"<[^>]*>", " ", heading).replace("'", "&#x27;")


def folded(summary: str, body: str) -> str:
    """A part that opens on request; both already HTML."""
    return f"<details><summary>{summary}</summary>{body}</details>"


def note(message: str) -> str:
    """What could not be shown, and why."""
    return f"<div class='note'>{escaped(message)}</div>"


def read_facts(folder: Path, name: str) -> dict[str, Any] | None:
    """The JSON object in a file of a run folder; None where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    return schemas.read_if_there(folder, name)


def picture(path: Path, caption: str = "", *, most: int = 1600) -> str:
    """An image file inside the page, at most `most` pixels wide; a note if it is no image.

    A click, or the enter key, shows it as large as the window.
    """
    from PIL import Image

    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            width, height = image.size
            if width > most:
                width, height = most, round(height * most / width)
                buffer = io.BytesIO()
                image.convert("RGB").resize((width, height)).save(buffer, format="PNG")
                data = buffer.getvalue()
    except (OSError, ValueError, SyntaxError):
        return note(f"{path.parent.name}/{path.name} is damaged: it is not an image")
    encoded = base64.b64encode(data).decode()
    below = f"<figcaption>{escaped(caption)}</figcaption>" if caption else ""
    return (
        f"<figure><button class='zoom' aria-label='Enlarge: {escaped(caption)}'>"
        f"<img width='{width}' height='{height}' alt='{escaped(caption)}' "
        f"src='data:image/png;base64,{encoded}'></button>{below}</figure>"
    )


def page(
    title: str,
    top: str,
    sections: Iterable[tuple[str, str, str]],
    foot: str,
    closed: Collection[str] = (),
) -> str:
    """The whole page.

    Args:
        title: plain text.
        top: HTML above the navigation.
        sections: (anchor, title, HTML) of each.
        foot: HTML.
        closed: anchors of sections that open on request.
    """
    sections = list(sections)
    links = "".join(f"<a href='#{anchor}'>{escaped(name)}</a>" for anchor, name, _ in sections)
    body = "".join(
        f"<section id='{anchor}'>{_section(name, content, anchor in closed)}</section>\n"
        for anchor, name, content in sections
    )
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{escaped(title)}</title><style>{_variables()}{STYLE}</style></head><body>\n"
        f"<header class='top'>{top}</header>\n<nav><div>{links}</div></nav>\n"
        f"<main>{body}</main>\n<footer>{foot}</footer>\n"
        f"<dialog aria-label='Picture'></dialog><script>{SCRIPT}</script></body></html>\n"
    )


def _section(name: str, content: str, closed: bool) -> str:
    heading = f"<h2>{escaped(name)}</h2>"
    if not closed:
        return heading + content
    return f"<details class='fold'><summary>{heading}</summary>{content}</details>"


def _variables() -> str:
    light, dark = (
        ";".join(f"--{name}:{colour}" for name, colour in theme.items()) for theme in (LIGHT, DARK)
    )
    return f":root{{{light}}}\n@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
