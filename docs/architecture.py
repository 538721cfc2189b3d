"""Draw docs/architecture.svg: the rooms of src/monge, their layers and who imports whom.

    python docs/architecture.py            write the picture
    python docs/architecture.py --check    exit with 1 where the picture is not of the present code

A room is a module or a package directly below monge. The imports are read from the source by
`ast`, those inside of functions included; an import of one module by one file counts once. The
order of the layers is that of the first contract of type "layers" in pyproject.toml. Nothing else
about the rooms is written here, so the script needs no change when a room is added or moved.
Numbers of lines are rounded to two digits, so that most edits leave the picture as it is.
"""

from __future__ import annotations

import ast
import math
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "monge"
SOURCE = ROOT / "src" / PACKAGE
PICTURE = ROOT / "docs" / "architecture.svg"

ROW, GAP, BOX = 25, 7, 300
"""Pixels: height of a room's row, space between two layers, width of a box."""

LEFT, TOP = 60, 92
"""Pixels: where the boxes begin."""

REACH = 0.62
"""How far an arrow swings out, as a part of its height."""


@dataclass(frozen=True)
class Room:
    """A module or a package directly below the root package."""

    name: str
    files: int
    lines: int


def rooms_and_imports() -> tuple[dict[str, Room], Counter[tuple[str, str]]]:
    """All rooms by name, and how often the first of two rooms imports the second."""
    files = sorted(SOURCE.rglob("*.py"))
    names = [_room(path) for path in files]
    texts = [path.read_text(encoding="utf-8") for path in files]
    lines: Counter[str] = Counter()
    for name, text in zip(names, texts, strict=True):
        lines[name] += text.count("\n")
    rooms = {name: Room(name, names.count(name), rounded(lines[name])) for name in sorted(lines)}
    counts: Counter[tuple[str, str]] = Counter()
    for path, name, text in zip(files, names, texts, strict=True):
        for module in set(imported(ast.parse(text), path)):
            target = module.split(".")[0]
            if target in rooms and target != name:
                counts[name, target] += 1
    return rooms, counts


def rounded(n: int) -> int:
    """A count with two digits that matter.

    >>> rounded(7), rounded(1234)
    (7, 1200)
    """
    return int(float(f"{n:.2g}"))


def _room(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return PACKAGE if first == "__init__" else first


def imported(tree: ast.Module, path: Path) -> Iterator[str]:
    """The modules below the root package that a file imports, without the package's name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = _from(node, path)
        else:
            continue
        for name in found:
            if name.startswith(f"{PACKAGE}."):
                yield name.removeprefix(f"{PACKAGE}.")


def _from(node: ast.ImportFrom, path: Path) -> list[str]:
    module = node.module or ""
    if node.level:
        above = path.relative_to(SOURCE.parent).parts[: -node.level]
        module = ".".join([*above, *filter(None, [module])])
    if module == PACKAGE:
        return [f"{PACKAGE}.{alias.name}" for alias in node.names]
    return [module]


def layers(rooms: dict[str, Room]) -> list[list[str]]:
    """The rooms of each layer from the top; rooms that no layer names come first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    contract = next(c for c in contracts if c["type"] == "layers")
    found = []
    for layer in contract["layers"]:
        words = [word.strip("() ") for word in re.split(r"[|:]", layer)]
        names = [word.removeprefix(f"{PACKAGE}.").split(".")[0] for word in words]
        found.append([name for name in dict.fromkeys(names) if name in rooms])
    known = {name for layer in found for name in layer}
    return [layer for layer in [sorted(rooms.keys() - known), *found] if layer]


def draw() -> str:
    """The picture as SVG."""
    rooms, counts = rooms_and_imports()
    order = layers(rooms)
    rank = {name: number for number, layer in enumerate(order) for name in layer}
    top: dict[str, float] = {}
    y = float(TOP)
    bands = []
    for layer in order:
        bands.append((y - GAP / 2, ROW * len(layer) + GAP))
        for name in layer:
            top[name] = y
            y += ROW
        y += GAP
    height = y + 34
    widest = REACH * max([abs(top[a] - top[b]) for a, b in counts], default=0)
    width = round(LEFT + BOX + 0.75 * widest + 50)
    n_files = sum(room.files for room in rooms.values())
    total = rounded(sum(room.lines for room in rooms.values()))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" '
        f'width="{width}" height="{height:.0f}" role="img" '
        'font-family="Helvetica, Arial, sans-serif">',
        f"<title>The rooms of {PACKAGE} in layers, and the imports between them</title>",
        f'<rect width="{width}" height="{height:.0f}" rx="8" fill="#fcfcfa" stroke="#d5d5cf"/>',
        _text(LEFT, 34, f"The rooms of {PACKAGE}", 20, "#1b1f24", weight="bold"),
        _text(
            LEFT,
            56,
            f"{len(rooms)} rooms, {n_files} files, about {total:,} lines. "
            "A curve goes from a room down to a room that it imports;",
            12.5,
            "#4a5058",
        ),
        _text(
            LEFT,
            73,
            "it has the colour of the importing room, and its width grows with the number of "
            "imports. Shading in a box: lines of code.",
            12.5,
            "#4a5058",
        ),
    ]
    for number, (start, tall) in enumerate(bands):
        if number % 2 == 0:
            parts.append(
                f'<rect x="18" y="{start:.1f}" width="{width - 36}" height="{tall:.1f}" '
                'fill="#f1f1ec"/>'
            )
    # Long curves are drawn first, so that short ones lie above them.
    for (a, b), n in sorted(counts.items(), key=lambda e: (-abs(top[e[0][0]] - top[e[0][1]]), e)):
        parts.append(_arrow(top[a], top[b], n, _colour(rank[a], len(order)), rank[a] < rank[b]))
    largest = max(room.lines for room in rooms.values())
    for name, room in rooms.items():
        parts.append(_box(room, top[name], _colour(rank[name], len(order)), largest))
    foot = "The top band has the rooms that the contract does not name. "
    if any(rank[a] >= rank[b] for a, b in counts):
        foot += "Dashed red: imports of a room above, or in the same layer."
    else:
        foot += "No room imports one above it, or one in its own layer."
    parts.append(_text(LEFT, height - 16, foot, 12, "#4a5058"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _colour(number: int, of: int) -> str:
    return f"hsl({round(205 + 300 * number / max(of, 1)) % 360}, 52%, 42%)"


def _text(
    x: float,
    y: float,
    text: str,
    size: float,
    fill: str,
    anchor: str = "start",
    weight: str = "normal",
) -> str:
    extra = "" if weight == "normal" else f' font-weight="{weight}"'
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" '
        f'text-anchor="{anchor}"{extra}>{escape(text)}</text>'
    )


def _box(room: Room, y: float, colour: str, largest: int) -> str:
    filled = BOX * room.lines / largest
    middle = y + ROW / 2 + 4
    size = f"{room.files} files, {room.lines:,}" if room.files > 1 else f"{room.lines:,}"
    high = ROW - 5
    return "\n".join(
        [
            f'<rect x="{LEFT}" y="{y + 2.5:.1f}" width="{BOX}" height="{high}" rx="4" '
            f'fill="#ffffff" stroke="{colour}" stroke-width="1.2"/>',
            f'<rect x="{LEFT}" y="{y + 2.5:.1f}" width="{filled:.1f}" height="{high}" rx="4" '
            f'fill="{colour}" fill-opacity="0.22"/>',
            _text(LEFT + 9, middle, room.name, 13, "#1b1f24", weight="bold"),
            _text(LEFT + BOX - 9, middle, size, 11.5, "#3d434b", "end"),
        ]
    )


def _arrow(start: float, end: float, n: int, colour: str, down: bool) -> str:
    """A curve from a room to one that it imports, at the right; at the left what goes upwards."""
    thick = min(0.7 + 0.75 * math.sqrt(n), 9.0)
    # It leaves low and arrives high in the rows, so that heads and tails lie apart.
    a, b = start + ROW * 0.68, end + ROW * 0.38
    side, edge = (1, LEFT + BOX) if down else (-1, LEFT)
    out = edge + side * (12 + REACH * abs(b - a) if down else 30)
    head = 4 + thick
    tip = edge + side * 2
    title = f"<title>{n} {'import' if n == 1 else 'imports'}</title>"
    dash = "" if down else ' stroke-dasharray="4 3"'
    ink = colour if down else "#c0262d"
    return (
        f'<g fill="none" stroke="{ink}" stroke-opacity="{0.42 if down else 0.9}">'
        f'<path d="M{edge} {a:.1f}C{out:.1f} {a:.1f} {out:.1f} {b:.1f} {tip + side * head:.1f} '
        f'{b:.1f}" stroke-width="{thick:.2f}"{dash}>{title}</path>'
        f'<path d="M{tip} {b:.1f}l{side * head:.1f} {-head / 2:.1f}v{head:.1f}z" fill="{ink}" '
        f'fill-opacity="0.8" stroke="none"/></g>'
    )


def main(words: list[str]) -> int:
    """Write the picture, or compare it with what would be written."""
    if words not in ([], ["--check"]):
        print(__doc__)
        return 2
    drawn = draw()
    if not words:
        PICTURE.write_text(drawn, encoding="utf-8")
        return 0
    if PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == drawn:
        return 0
    print("docs/architecture.svg is not of the present code: run python docs/architecture.py")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
