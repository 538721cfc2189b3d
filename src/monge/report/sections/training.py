"""The parts of a report that show the autoencoder and the course of training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monge.report import figures
from monge.report.page import card, escaped, number, picture, read_facts, tiles
from monge.runs.layout import QUALITY
from monge.training import journal


def quality(folder: Path) -> str | None:
    quality = read_facts(folder, QUALITY)
    if quality is None:
        return None
    shape = " × ".join(map(str, quality["latent_shape"]))
    items = [
        (escaped(quality["kind"]), "autoencoder"),
        (escaped(shape), f"latent shape, {number(quality['numbers'])} numbers"),
    ]
    if (psnr := quality.get("psnr_db")) is not None:
        pca = quality.get("pca_psnr_db")
        beside = f"; PCA of the same dimension {number(pca)} dB" if pca is not None else ""
        items.append((f"{number(psnr)} dB", f"PSNR on held-out data{beside}"))
    if (rmse := quality.get("rmse")) is not None:
        items.append((number(rmse), "RMSE on held-out data"))
    if home := quality.get("home"):
        items.append((number(home["rmse"]), "RMSE on the autoencoder's own data"))
    return tiles(items)


def reconstructions(folder: Path) -> str | None:
    path = folder / "autoencoder" / "reconstructions.png"
    if not path.exists():
        return None
    caption = "Held-out examples above their reconstructions. Samples leave the same decoder."
    return card(picture(path, caption))


def autoencoder_curves(folder: Path) -> str | None:
    return _curves(folder / "autoencoder" / journal.NAME)


def training_curves(folder: Path) -> str | None:
    return _curves(folder / journal.NAME)


CURVES = {"loss": "loss", "grad_norm": "gradient norm", "lr": "learning rate"}
"""Keys of a log line that are drawn, with the names of their axes."""


def _curves(path: Path) -> str | None:
    lines = journal.read(path)
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in lines:
        named = {label: row.get(key) for key, label in CURVES.items()}
        parts = row.get("parts") or {}
        if len(parts) > 1:
            named |= {f"part of the loss: {name}": value for name, value in parts.items()}
        for label, value in named.items():
            if value is not None:
                curves.setdefault(label, []).append((row["step"], float(value)))
    plots = "".join(
        card(figures.curve(points, label, noisy=label != "learning rate"))
        for label, points in curves.items()
        if len(points) > 1
    )
    events = "".join(
        f"<li>step {number(row.get('step'))}: {_event(row)}</li>" for row in lines if "event" in row
    )
    events = card(f"<ul>{events}</ul>", "What happened on the way") if events else ""
    return (f"<div class='pair trio'>{plots}</div>" if plots else "") + events or None


def _event(row: Mapping[str, Any]) -> str:
    rest = {k: v for k, v in row.items() if k not in ("event", "step", "wall")}
    return escaped(row["event"]) + "".join(f"; {escaped(k)} {escaped(v)}" for k, v in rest.items())
