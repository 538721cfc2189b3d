"""Screenshots of reports at three widths, by day and by night, and what is too wide there.

    python docs/pictures.py RUN... [--out FOLDER]

Each RUN is a run folder or an HTML file. It needs Chromium or Chrome, whose path CHROME may name.
It exits with 1 where a page is wider than its window.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WIDTHS = (1400, 1024, 420)
TALLEST = 15_000
"""Pixels of a picture from above to below, at most: a browser draws no more."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

PROBE = """<script>addEventListener('load',function(){var w=document.documentElement.clientWidth,
out=[];document.querySelectorAll('body *').forEach(function(e){var r=e.getBoundingClientRect();
if(r.width&&r.right>w+1&&!e.closest('nav')&&!e.ownerSVGElement)
out.push(e.tagName+'.'+e.className+': '+Math.round(r.right));});
parent.postMessage(JSON.stringify({width:w,
height:document.body.scrollHeight,out:out.slice(0,5)}),'*')})</script>"""

FRAME = """<!doctype html><meta charset='utf-8'><style>body{{margin:0}}iframe{{border:0}}</style>
<pre id='found' hidden></pre><script>addEventListener('message',function(e){{
document.getElementById('found').textContent=e.data}})</script>
<iframe width='{width}' height='{tall}' srcdoc="{page}"></iframe>"""


def browser() -> str | None:
    """The command of a browser that takes pictures, if there is one."""
    names = [os.environ.get("CHROME", ""), *BROWSERS]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def opened(page: str) -> str:
    """A page with all that folds open, and a probe of its widths."""
    page = re.sub(r"<details(?=[ >])", "<details open", page)
    return page.replace("</body>", f"{PROBE}</body>")


def shot(
    command: str,
    page: str,
    width: int,
    tall: int = 1000,
    *,
    dark: bool = False,
    out: Path | None = None,
) -> dict[str, Any]:
    """A picture of a page in a window of a width, or its height and what is too wide in it.

    Narrow windows are frames, as a browser's own window has a least width.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "frame.html")
        text = FRAME.format(width=width, tall=tall, page=html.escape(opened(page), quote=True))
        file.write_text(text, encoding="utf-8")
        words = [
            command, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={folder}/profile", "--virtual-time-budget=3000",
            f"--window-size={width},{tall}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        ]  # fmt: skip
        asked = ["--dump-dom"] if out is None else [f"--screenshot={out.absolute()}"]
        done = subprocess.run(
            [*words, *asked, file.as_uri()], capture_output=True, text=True, timeout=300, check=True
        )
    if out is not None:
        return {}
    found = re.search(r"<pre id=\"found\"[^>]*>(.*?)</pre>", done.stdout, re.DOTALL)
    if found is None or not found[1]:
        raise SystemExit("the browser has not measured the page")
    return json.loads(html.unescape(found[1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/pictures"))
    given = parser.parse_args()
    command = browser()
    if command is None:
        print(f"no browser: install one of {', '.join(BROWSERS)}, or set CHROME", file=sys.stderr)
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    wide = 0
    for run in given.runs:
        path = run / "report.html" if run.is_dir() else run
        name = run.name if run.is_dir() else f"{run.parent.name}-{run.stem}"
        page = path.read_text(encoding="utf-8")
        for width in WIDTHS:
            found = shot(command, page, width)
            wide += bool(found["out"])
            told = f"too wide: {', '.join(found['out'])}" if found["out"] else "fits"
            print(f"{name} at {width}: {told}", flush=True)
            tall = min(int(found["height"]) + 20, TALLEST)
            shot(command, page, width, tall, out=given.out / f"{name}-{width}.png")
            if width == WIDTHS[0]:
                dark = given.out / f"{name}-{width}-dark.png"
                shot(command, page, width, tall, dark=True, out=dark)
    print(f"pictures in {given.out}")
    return 1 if wide else 0


if __name__ == "__main__":
    raise SystemExit(main())
