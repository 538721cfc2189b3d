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
    steps = {}
    for path in (folder / "samples").glob("step-*.png"):
        if match := re.fullmatch(r"step-(\d+)", path.stem):
            steps[int(match[1])] = path
    if not steps:
        return None
    last = max(steps)
    large = ""
    if not (folder / "evaluation" / "samples.png").exists():
        large = card(picture(steps[last], f"Samples after step {last:,}."))
    if len(steps) == 1:
        return large
    strip = "".join(picture(steps[n], f"step {n:,}", most=960) for n in sorted(steps))
    return large + card(f"<div class='strip'>{strip}</div>", "The same noise, as training went on")


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
