"""Whether a change of the code leaves every number and every text as it was.

    python tests/same_numbers.py record FILE      before the change
    python tests/same_numbers.py compare FILE     after it; exits with 1 where something differs

Trains on the digits, a folder of images, a table and, by distilling, a map; runs the verbs on each;
records their text, their JSON files and SHA-256 hashes of weights, samples and encodings. Times,
paths and versions are left out. The same machine, torch and number of threads are assumed:
about four minutes of one thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STEPS = 200
SMALL = f"--steps {STEPS} --batch 32 --threads 1 --sample-every {STEPS}"
NETWORK = "--network mlp:width=32,depth=2"

COMMANDS = [
    f"train digits --autoencoder pca:dim=8 {NETWORK} {SMALL} --out digits",
    f"train photos --autoencoder conv:down=2,channels=2,width=8 --autoencoder-steps 20 --flip no"
    f" --network transformer:width=16,depth=1,heads=2 {SMALL} --out photos-run",
    f"train table.csv --label-column kind {NETWORK} {SMALL} --out table",
    f"train table.csv --condition a --drop kind {NETWORK} {SMALL} --out conditions",
    f"train target:mixture:dim=2,modes=3 {NETWORK} {SMALL} --out law",
    f"distil law --steps {STEPS} --threads 1 --out map",
    f"train digits --autoencoder pca:dim=8 {NETWORK},time_scale=20 {SMALL}"
    " --objective self-lagrangian --out digits-map",
    f"train digits --autoencoder pca:dim=8 {NETWORK},time_scale=20 {SMALL}"
    " --objective consistency-training --out data-map",
]
RUNS = ("digits", "photos-run", "table", "conditions", "law", "map", "digits-map", "data-map")
COMMANDS += [
    command
    for run in RUNS
    for command in (
        f"sample {run} -n 40 --threads 1 --format npz",
        f"evaluate {run} -n 40 --threads 1",
        f"verify {run} -n 60 --quick --threads 1",
        f"info {run}",
        f"export {run} --threads 1",
    )
]
COMMANDS += [
    "sample map -n 40 --steps 2 --threads 1 --out two-jumps",
    "sample digits -n 20 --label all --guidance 2 --threads 1 --out guided",
    "evaluate map -n 40 --steps 1,2,4 --threads 1",
    "encode table table.csv --limit 20 --threads 1 --out noise.npz",
    "decode table noise.npz --threads 1 --out decoded",
    "compare table.csv law -n 40 --threads 1 --out comparison",
    "compare photos photos-run -n 20 --threads 1 --out pictures",
    "recipes",
    "train nothing-here.csv",
    "sample digits --label eleven",
]

UNSTABLE = (
    "seconds",
    "train_s",
    "autoencoder_s",
    "sample_s",
    "evaluate_s",
    "encode_s",
    "wall_s",
    "rate",
    "monge",
    "device",
    "date",
    "settings",
)
"""Keys of JSON files that differ from one run to the next. `settings` is a hash of config.yaml
with the absolute path of a teacher; the text of that file is recorded."""

TIMES = re.compile(
    r"[\d.e+-]+ \w+/s|(ETA|take|until \w+) [\d:]+|[\d.]+ [GM]B (free|at most)|\w+_s [\d.e+-]+"
    r"|\d+(\.\d+)?( ?(s|min|h|ms)\b|/s)|20\d\d-\d\d-\d\d[ T][\d:]+"
)


def make_data(home: Path) -> None:
    """A folder of images in two classes and a table, from a fixed seed."""
    rng = np.random.default_rng(0)
    for k in range(60):
        path = home / "photos" / "ab"[k % 2] / f"{k:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 128, (16, 16, 3)) + 100 * (k % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    a = rng.normal(size=200)
    b = a**2 + 0.1 * rng.normal(size=200)
    rows = [f"{x:.4f},{y:.4f},{'xy'[i % 2]}" for i, (x, y) in enumerate(zip(a, b, strict=True))]
    (home / "table.csv").write_text("\n".join(["a,b,kind", *rows]) + "\n")


def measured() -> dict[str, str]:
    """Everything that is recorded, by name."""
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        make_data(home)
        given = {"MONGE_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
        for command in COMMANDS:
            print(command, file=sys.stderr, flush=True)
            done = subprocess.run(
                [sys.executable, "-m", "monge", *command.split()],
                cwd=home,
                env={**os.environ, **given},
                capture_output=True,
                text=True,
            )
            text = f"exit {done.returncode}\n{done.stdout}\n{_notes(done.stderr)}"
            found[f"$ {command}"] = TIMES.sub("#", text.replace(folder, "HOME"))
        for path in sorted(home.rglob("*")):
            name = str(path.relative_to(home))
            if not path.is_file() or name.startswith(("cache/", "photos/")):
                continue
            if path.suffix == ".json" and path.name not in ("environment.json", ".monge.json"):
                found[name] = json.dumps(
                    _stable(json.loads(path.read_text().replace(folder, "HOME"))), sort_keys=True
                )
            elif path.suffix == ".safetensors" and "state" not in path.parts:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            elif path.suffix == ".npz":
                found[name] = _hash_of_arrays(path)
            elif path.suffix in (".csv", ".yaml"):
                found[name] = path.read_text().replace(folder, "HOME")
    return found


def _notes(text: str) -> str:
    """What went to standard error, without progress bars."""
    return "\n".join(line for line in text.splitlines() if "\r" not in line and "━" not in line)


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _stable(v) for k, v in value.items() if k not in UNSTABLE}
    return [_stable(v) for v in value] if isinstance(value, list) else value


def _hash_of_arrays(path: Path) -> str:
    digest = hashlib.sha256()
    with np.load(path, allow_pickle=False) as arrays:
        for name in sorted(arrays.files):
            digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
            digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """A line for each name that is missing, new or changed."""
    lines = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            lines.append(f"{name}\n  before {old!r:.600}\n  after  {new!r:.600}")
    return lines


def main() -> int:
    """Record or compare; returns the exit code."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("record", "compare"):
        print(__doc__, file=sys.stderr)
        return 2
    file, found = Path(sys.argv[2]), measured()
    if sys.argv[1] == "record":
        file.write_text(json.dumps(found, indent=1, sort_keys=True))
        print(f"{len(found)} texts, files and hashes recorded in {file}")
        return 0
    lines = differences(json.loads(file.read_text()), found)
    print("\n".join(lines) or f"all {len(found)} are the same")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
