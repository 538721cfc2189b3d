"""Measure every number of numbers.toml again; fail where one leaves its stated interval.

    python docs/measure.py [WORD]     only the numbers whose name holds WORD

Each command prints JSON; commands that several numbers share run once.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def main(word: str = "") -> int:
    entries = tomllib.loads((HERE / "numbers.toml").read_text())["number"]
    chosen = [entry for entry in entries if word in entry["name"]]
    results: dict[str, Any] = {}
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for entry in chosen:
            command = entry["command"]
            if command not in results:
                print(f"$ {command}", flush=True)
                results[command] = run(command.replace("{tmp}", scratch))
            value = results[command]
            for key in entry["key"]:
                value = None if value is None else value.get(key)
            low, high = entry["interval"]
            good = value is not None and low <= value <= high
            failed += not good
            verdict = "ok  " if good else "FAIL"
            shown = "no value" if value is None else f"{value:.4g}"
            print(f"{verdict} {entry['name']}: {shown}, stated {entry['measured']} [{low}, {high}]")
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


def run(command: str) -> Any:
    """The JSON that a command prints, or None with its error shown."""
    words = shlex.split(command)
    binary = Path(sys.executable).parent
    words[0] = {"monge": str(binary / "monge"), "python": sys.executable}[words[0]]
    done = subprocess.run(words, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        print(done.stderr[-2000:])
        return None
    return json.loads(done.stdout)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
