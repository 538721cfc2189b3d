"""The report in a real browser: nothing wider than the window, films turn, pictures open large."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from test_report import EVIL, run_folder

from monge.report.report import write_report

PICTURES = Path(__file__).parents[2] / "docs" / "pictures.py"


def _pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", PICTURES)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pictures = _pictures()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(pictures.browser() is None, reason="no Chromium here"),
]

ACTIONS = """<pre id='found' hidden></pre><script>addEventListener('load',function(){
var d=document,f=d.querySelector('.film'),s=f.querySelector('input'),o=f.querySelector('output'),
b=f.querySelector('button'),found={start:o.textContent};
s.value=0;s.dispatchEvent(new Event('input'));found.moved=o.textContent;
b.click();found.playing=b.textContent;
setTimeout(function(){found.played=o.textContent;found.after=b.textContent;
var before=f.querySelector('canvas').toDataURL();
f.dispatchEvent(new KeyboardEvent('keydown',{key:' ',bubbles:true}));found.space=b.textContent;
found.drawn=before.length;
var z=d.querySelector('button.zoom');z.click();var g=d.querySelector('dialog');
found.open=g.open;found.large=g.querySelector('img').src===z.querySelector('img').src;
g.click();found.closed=!g.open;
var t=d.querySelector('#training details');found.folded=!t.open;
location.hash='#training';
setTimeout(function(){found.unfolded=t.open;
d.getElementById('found').textContent=JSON.stringify(found)},300)},2500)})</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(run_folder(tmp_path_factory.mktemp("shown") / "run")).read_text()


@pytest.mark.parametrize("width", pictures.WIDTHS)
def test_nothing_is_wider_than_the_window(page: str, width: int) -> None:
    found = pictures.shot(pictures.browser(), page, width)
    assert found["width"] == width and found["out"] == [] and found["height"] > 2000


def test_the_probe_notices_what_is_too_wide(page: str) -> None:
    wide = page.replace("<main>", "<main><div style='width:1200px'>planted</div>")
    assert pictures.shot(pictures.browser(), wide, 1024)["out"]


def test_long_names_and_text_from_files_fit(tmp_path: Path) -> None:
    for name in (EVIL, "n" * 60):
        text = write_report(run_folder(tmp_path / str(len(name)), name)).read_text()
        assert pictures.shot(pictures.browser(), text, 420)["out"] == []


def test_films_pictures_and_folds_answer(page: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page.replace("</body>", f"{ACTIONS}</body>"))
    words = [
        str(pictures.browser()), "--headless=new", "--no-sandbox", "--disable-gpu",
        f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=8000", "--dump-dom",
        file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    match = re.search(r"<pre id=\"found\"[^>]*>(.*?)</pre>", done.stdout, re.DOTALL)
    assert match is not None
    found: dict[str, Any] = json.loads(html.unescape(match[1]))
    assert (found["start"], found["moved"], found["played"]) == ("1.00", "0.00", "1.00")
    assert (found["playing"], found["after"], found["space"]) == ("Pause", "Play", "Pause")
    assert found["open"] and found["large"] and found["closed"] and found["drawn"] > 1000
    assert found["folded"] and found["unfolded"]
