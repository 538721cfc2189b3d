"""A run folder in which one thing is damaged or hostile, drawn from a seed."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXTS = ("config.yaml", "log.jsonl")
DEEP = 100_000

NASTY: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: -1,
    lambda: 0,
    lambda: 2**60,
    lambda: 10**30,
    lambda: 1e308,
    lambda: float("nan"),
    lambda: 0.5,
    lambda: "",
    lambda: "nn",
    lambda: "../../etc/passwd",
    lambda: "x" * 10_000,
    lambda: "\ud800",
    list,
    lambda: [[]],
    dict,
    lambda: {"": None},
)

VALUES = (
    "",
    "-1",
    "0",
    "1e99",
    "nan",
    "null",
    "[]",
    "{a: 1}",
    "x:y=z",
    "true",
    "9" * 30,
    "é\u0000",
)


def mutate(folder: Path, seed: int) -> str:
    """Damage one file of a run folder; returns what was done."""
    rng = random.Random(seed)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "lock")
    wanted = [p for p in files if p.suffix in (".json", ".yaml", ".jsonl", ".safetensors")]
    # As often each kind of file as the other, whatever their numbers.
    suffix = rng.choice([".json", ".json", ".yaml", ".jsonl", ".safetensors"])
    path = rng.choice([p for p in wanted if p.suffix == suffix] or wanted)
    if suffix == ".json" and rng.random() < 0.8:
        what = _in_json(path, rng)
    elif suffix == ".yaml" and rng.random() < 0.8:
        what = _in_yaml(path, rng)
    else:
        what = _in_bytes(path, rng)
    return f"seed {seed}: {path.relative_to(folder)}: {what}"


def _in_json(path: Path, rng: random.Random) -> str:
    value = json.loads(path.read_text())
    if rng.random() < 0.05:
        opening, closing = rng.choice(["[]", ('{"a":', "}")])
        path.write_text(opening * DEEP + ("" if opening == "[" else "1") + closing * DEEP)
        return "nested deep"
    places = list(_places(value, ()))
    place = rng.choice(places)
    new = rng.choice(NASTY)()
    how = rng.choice(["replace", "replace", "replace", "remove", "rename", "double"])
    changed = _changed(value, place, how, new)
    path.write_text(json.dumps(changed), encoding="utf-8", errors="surrogatepass")
    return f"{how} {'.'.join(map(str, place)) or 'all'} {str(new)[:30]!r}"


def _places(value: Any, at: tuple[Any, ...]) -> Any:
    yield at
    if isinstance(value, (dict, list)):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(each, (*at, key))


def _changed(value: Any, place: tuple[Any, ...], how: str, new: Any) -> Any:
    if not place:
        return new
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    key = place[-1]
    if how == "remove":
        del holder[key]
    elif how == "rename" and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    elif how == "double" and isinstance(holder, list):
        holder.append(holder[key])
    else:
        holder[key] = new
    return value


def _in_yaml(path: Path, rng: random.Random) -> str:
    lines = path.read_text().splitlines()
    i = rng.randrange(len(lines))
    key, _, _ = lines[i].partition(":")
    value = rng.choice(VALUES)
    how = rng.choice(["value", "value", "value", "remove", "twice", "key", "setting"])
    if how == "value":
        lines[i] = f"{key}: {value}"
    elif how == "remove":
        del lines[i]
    elif how == "twice":
        lines.append(lines[i])
    elif how == "key":
        lines[i] = f"? {{a: [{value}]}}\n: 1"
    else:  # a number within a component's text
        number = rng.choice(["-1", "0", "1000000000", "nan", "1e9", ""])
        lines[i] = lines[i].replace("=", f"={number}", 1)
    path.write_text("\n".join(lines))
    return f"{how} {lines[min(i, len(lines) - 1)][:60]!r}"


def _in_bytes(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    how = rng.choice(["cut", "flip", "flip", "zeros", "empty", "noise", "folder"])
    if how == "cut":
        content = content[: rng.randrange(len(content) + 1)]
    elif how == "flip" and content:
        for _ in range(rng.choice([1, 4, 64])):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif how == "zeros":
        content = bytearray(len(content))
    elif how == "empty":
        content = bytearray()
    elif how == "noise":
        content = bytearray(rng.randbytes(min(len(content), 4000)))
    path.unlink()
    if how == "folder":
        path.mkdir()
    else:
        path.write_bytes(bytes(content))
    return how


def copy(run: Path, place: Path) -> Path:
    """A copy of a run folder, in the place of an earlier one."""
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(run, place))
