"""Measure every number of numbers.toml again; fail where one leaves its stated interval.

    python docs/measure.py [WORD]     only the numbers whose name holds WORD

Each command prints JSON; commands that several numbers share run once. Data that the user must
bring stands in a command as {data}, the folder that the environment variable MONGE_DATA names;
where it, or a file of it, is absent, the number is skipped, and said to be. Several commands with
";" between are run in order, and the last one's JSON counts. A key that meets a list takes the row
of that name, or, if it is a number, that entry.
"""

from __future__ import annotations

import json
import os
import re
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
    failed = skipped = 0
    with tempfile.TemporaryDirectory() as scratch:
        for entry in chosen:
            command = entry["command"]
            if missing := absent(command):
                print(f"SKIP {entry['name']}: needs {missing}")
                skipped += 1
                continue
            if command not in results:
                print(f"$ {command}", flush=True)
                results[command] = run(command.replace("{tmp}", scratch))
            value = results[command]
            for key in entry["key"]:
                value = found(value, key)
            low, high = entry["interval"]
            good = value is not None and low <= value <= high
            failed += not good
            verdict = "ok  " if good else "FAIL"
            shown = "no value" if value is None else f"{value:.4g}"
            print(f"{verdict} {entry['name']}: {shown}, stated {entry['measured']} [{low}, {high}]")
    print(f"{len(chosen) - failed - skipped} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


def absent(command: str) -> str | None:
    """What of the user's data a command needs and has not; None where it has all."""
    files = list(dict.fromkeys(re.findall(r"\{data\}/(\S+)", command)))
    folder = os.environ.get("MONGE_DATA")
    if files and folder is None:
        return f"MONGE_DATA, a folder with {', '.join(files)}"
    missing = [name for name in files if not Path(folder or "", name).exists()]
    return f"{', '.join(missing)} in {folder}" if missing else None


def found(value: Any, key: str | int) -> Any:
    """An entry of JSON, or the row of that name in a list of rows; None where there is none."""
    if isinstance(value, list) and isinstance(key, int):
        return value[key] if -len(value) <= key < len(value) else None
    if isinstance(value, list):
        return next((row for row in value if row["name"] == key), None)
    return None if value is None else value.get(key)


def run(command: str) -> Any:
    """The JSON that the last of some commands prints, or None with the error shown."""
    command = command.replace("{data}", os.environ.get("MONGE_DATA", ""))
    *before, last = command.split(" ; ")
    for step in before:
        if output(step) is None:
            return None
    printed = output(last)
    return None if printed is None else json.loads(printed)


def output(command: str) -> str | None:
    """What a command prints, or None with its error shown."""
    words = shlex.split(command)
    binary = Path(sys.executable).parent
    words[0] = {"monge": str(binary / "monge"), "python": sys.executable}[words[0]]
    done = subprocess.run(words, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        print(done.stderr[-2000:])
        return None
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
