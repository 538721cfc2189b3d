"""The tutorial's commands, run in order as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "your-images.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside the tests")
def test_every_command_of_the_tutorial_runs(tmp_path: Path) -> None:
    binary = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binary}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    told = []
    for language, text in BLOCK.findall(PAGE.read_text()):
        command = ["bash", "-ec", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        told.append(done.stdout + done.stderr)
    everything = "\n".join(told)
    assert "flower/broken.png (no image of a known format)" in everything
    assert "600 images (600 PNG; modes 600 RGB), as RGB 16 x 16" in everything
    assert "domain shift" in everything and "interpolated from" in everything
    for made in ("samples.png", "by_label.png", "evaluation.json"):
        assert (tmp_path / "runs" / "photos" / "evaluation" / made).exists()
