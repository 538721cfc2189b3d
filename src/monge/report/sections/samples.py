"""The part of a report that shows samples: of the evaluation, by steps, and while training."""

from __future__ import annotations

import re
from pathlib import Path

from monge.errors import UserError
from monge.report.page import card, escaped, picture, read_facts
from monge.runs.layout import BY_STEPS, STEPS

SAMPLES = {
    "by_label.png": "Samples by requested label, one row each; none selected.",
    "samples.png": "Samples, none selected.",
}


def samples(folder: Path) -> str | None:
    found = {folder / "evaluation" / name: caption for name, caption in SAMPLES.items()}
    shown = [card(picture(path, caption)) for path, caption in found.items() if path.exists()]
    if len(shown) < 2:
        return "".join(shown) or None
    return f"<div class='pair'>{''.join(shown)}</div>"


def while_training(folder: Path) -> str | None:
    steps = _numbered(folder, "step")
    blocks = _numbered(folder, "blocks")
    shown = {f"step {n:,}": path for n, path in steps.items()}
    shown |= {f"{n} blocks" if n > 1 else "1 block": path for n, path in blocks.items()}
    if not shown:
        return None
    *_, last = shown
    large = ""
    if not (folder / "evaluation" / "samples.png").exists():
        large = card(picture(shown[last], f"Samples after {last}."))
    if len(shown) == 1:
        return large
    strip = "".join(picture(path, name, most=960) for name, path in shown.items())
    return large + card(f"<div class='strip'>{strip}</div>", "The same noise, as training went on")


def _numbered(folder: Path, word: str) -> dict[int, Path]:
    """The pictures of a run whose names are a word and a number, in order."""
    found = {}
    for path in (folder / "samples").glob(f"{word}-*.png"):
        if match := re.fullmatch(rf"{word}-(\d+)", path.stem):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def by_steps(folder: Path) -> str | None:
    """The same noise with each number of steps, and by the teacher."""
    path = folder / BY_STEPS
    if not path.exists():
        return None
    try:
        rows = (read_facts(folder, STEPS) or {}).get("shown")
    except UserError:  # the section of few steps says that it is damaged
        rows = None
    rows = rows if isinstance(rows, list) else []
    names = "".join(f"<li>{escaped(name)}</li>" for name in rows)
    caption = "The same noise in each column. The rows, from above:"
    return card(picture(path, caption) + f"<ol class='small'>{names}</ol>", "By number of steps")
