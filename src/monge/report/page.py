"""The HTML of a report: one page without external requests, for phone and desktop, day and night.

Everything that comes from a file passes through `escaped`; the rest of this module only joins.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monge.errors import UserError
from monge.runs import schemas

DAMAGED = (UserError, OSError, ValueError, LookupError, TypeError, AttributeError)
"""What a file that is not as monge writes it can raise when it is shown."""

LIGHT = {
    "paper": "#fbfaf8",
    "card": "#ffffff",
    "ink": "#1c2024",
    "soft": "#60646c",
    "line": "#dcdfe4",
    "accent": "#c2410c",
    "second": "#2563a8",
    "third": "#7a5195",
    "good": "#2f7d4f",
    "bad": "#b42318",
}
DARK = {
    "paper": "#14161a",
    "card": "#1c1f25",
    "ink": "#eceef2",
    "soft": "#a2a9b4",
    "line": "#343a44",
    "accent": "#fb8b4b",
    "second": "#74aef0",
    "third": "#c39be0",
    "good": "#6cc492",
    "bad": "#ff8a7d",
}

STYLE = """
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
main,header.top,footer{max-width:62rem;margin:0 auto;padding:0 1.1rem}
header.top{padding-top:2.2rem}
.brand{color:var(--accent);font-weight:650;letter-spacing:.02em;font-size:.95rem}
h1{font-size:clamp(1.6rem,5vw,2.4rem);line-height:1.15;margin:.2rem 0 .4rem;
 overflow-wrap:anywhere;letter-spacing:-.02em}
h2{font-size:1.35rem;margin:0 0 .7rem;letter-spacing:-.01em}
h3{font-size:1rem;margin:0 0 .6rem}.card>:last-child{margin-bottom:0}
p{margin:.4rem 0 .8rem;max-width:46rem}
.lead{font-size:1.08rem;color:var(--soft)}
nav{position:sticky;top:0;z-index:2;background:var(--paper);border-bottom:1px solid var(--line);
 margin-top:1.2rem}
nav div{max-width:62rem;margin:0 auto;padding:.55rem 1.1rem;display:flex;gap:1.2rem;
 overflow-x:auto;white-space:nowrap;font-size:.92rem}
a{color:var(--second);text-decoration:none}a:hover{text-decoration:underline}
nav a{color:var(--soft)}
section{margin:2.2rem 0;scroll-margin-top:3.2rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1.1rem 1.2rem;
 margin:0 0 1rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.8rem;
 margin:1.2rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:.8rem 1rem}
.tile b{display:block;font-size:clamp(1.2rem,4.5vw,1.55rem);overflow-wrap:anywhere;
 font-weight:640;letter-spacing:-.02em;line-height:1.25;
 font-variant-numeric:tabular-nums}
.tile span{display:block;color:var(--soft);font-size:.85rem;line-height:1.35}
.small,small{color:var(--soft);font-size:.85rem}
.soft{color:var(--soft)}
figure{margin:0}figcaption{color:var(--soft);font-size:.85rem;margin-top:.5rem}
figure img{display:block;max-width:100%;height:auto;border-radius:6px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:1rem}
.pair>.card{margin:0}.pair{margin:0 0 1rem}
.trio{grid-template-columns:repeat(auto-fit,minmax(min(17rem,100%),1fr))}
.strip{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(12rem,42%),1fr));gap:.9rem}
.strip figcaption{margin-top:.25rem;text-align:center}.strip img{width:100%}
svg{display:block;width:100%;height:auto;margin:0 auto}
svg text{font-family:inherit}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .7rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
tr:last-child>td,tr:last-child>th{border-bottom:0}
thead th{color:var(--soft);font-weight:550;font-size:.82rem;vertical-align:bottom}
tbody th{font-weight:600;min-width:12rem}th small{font-weight:400;display:block}
td.n{white-space:nowrap}td.n small{display:block}
.badge{display:inline-block;border-radius:99px;padding:.02rem .55rem;font-size:.75rem;
 font-weight:600;white-space:nowrap;color:var(--good);border:1px solid var(--good)}
.note{border-left:4px solid var(--bad);padding:.6rem .9rem;background:var(--card);
 border-radius:0 8px 8px 0;margin:.6rem 0;overflow-wrap:anywhere}
ul.verdicts{list-style:none;margin:0;padding:0}
ul.verdicts li{padding:.35rem 0 .35rem 1.3rem;position:relative}
ul.verdicts li:before{content:"";position:absolute;left:.15rem;top:.95rem;width:.5rem;height:.5rem;
 border-radius:50%;background:var(--accent)}
dl{display:grid;grid-template-columns:minmax(7rem,max-content) 1fr;gap:.25rem 1.2rem;margin:0;
 font-size:.92rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
code,pre{font:.88em/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem;
 overflow-x:auto;margin:.5rem 0 1rem}
.bar{display:flex;height:1.4rem;border-radius:6px;overflow:hidden;gap:2px;margin:.3rem 0 .7rem}
.bar i{display:block;min-width:2px}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1.3rem;font-size:.88rem}
.key{margin-bottom:.8rem}
.key i{display:inline-block;width:.7rem;height:.7rem;border-radius:2px;margin-right:.4rem}
summary{cursor:pointer;color:var(--second);margin:.6rem 0}
footer{color:var(--soft);font-size:.85rem;padding-top:1rem;padding-bottom:3rem;
 border-top:1px solid var(--line)}
@media(max-width:36rem){.card{padding:.9rem}th,td{padding:.4rem .5rem}tbody th{min-width:8rem}
 dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}}
@media print{nav{position:static}.card,.tile{break-inside:avoid}}
"""


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
    """An image file inside the page, at most `most` pixels wide; a note if it is no image."""
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
        f"<figure><img width='{width}' height='{height}' alt='{escaped(caption)}' "
        f"src='data:image/png;base64,{encoded}'>{below}</figure>"
    )


def page(title: str, top: str, sections: Iterable[tuple[str, str, str]], foot: str) -> str:
    """The whole page.

    Args:
        title: plain text.
        top: HTML above the navigation.
        sections: (anchor, title, HTML) of each.
        foot: HTML.
    """
    sections = list(sections)
    links = "".join(f"<a href='#{anchor}'>{escaped(name)}</a>" for anchor, name, _ in sections)
    body = "".join(
        f"<section id='{anchor}'><h2>{escaped(name)}</h2>{content}</section>\n"
        for anchor, name, content in sections
    )
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{escaped(title)}</title><style>{_variables()}{STYLE}</style></head><body>\n"
        f"<header class='top'>{top}</header>\n<nav><div>{links}</div></nav>\n"
        f"<main>{body}</main>\n<footer>{foot}</footer></body></html>\n"
    )


def _variables() -> str:
    light, dark = (
        ";".join(f"--{name}:{colour}" for name, colour in theme.items()) for theme in (LIGHT, DARK)
    )
    return f":root{{{light}}}\n@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
