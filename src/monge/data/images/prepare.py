"""Turns prepared images into training and held-out data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from monge.data.arrays import Pixels
from monge.data.base import FEW, Data
from monge.data.cache import plain_name
from monge.data.images import store as stores
from monge.data.images.raw import ImageSource, shown
from monge.data.reading import Reading
from monge.data.split import split_by_content
from monge.errors import UserError
from monge.system.progress import Say

FEWEST = 10
"""Least number of images in a source."""


def load_images(source: ImageSource, reading: Reading, say: Say, check: bool = False) -> Data:
    """The images of a source, prepared and split, with a report.

    Args:
        check: read the cache and the source's files again, and compare their hashes.

    Raises:
        UserError: see `store.prepare`; too few images; with `check`, changed content.
    """
    store = stores.prepare(source, reading, say)
    if check:
        stores.check(store.folder)
        if changed := stores.changed_files(store, source, say):
            raise UserError(
                f"{len(changed)} files of {shown(source.text)} have changed without a change of "
                f"size or time, the first is {changed[0]}: monge cache clear {store.folder.name}"
            )
        say(f"cache: {store.folder.name} and the source's files are unchanged")
    n = len(store.shards)
    if n < FEWEST:
        raise UserError(
            f"{shown(source.text)}: {n} images are too few; at least {FEWEST} are needed"
        )
    warnings = list(store.report["notes"])
    train, heldout = _split(store, warnings)
    if len(train) < FEW:
        warnings.append(
            f"{len(train)} training images are few: expect the model to repeat them; mirrored "
            "copies (photographs) and dropout are used unless set otherwise, and the report "
            "begins with memorisation"
        )
    labels = torch.from_numpy(store.labels)
    labelled = len(store.label_names) > 1
    pick = (lambda rows: labels[rows]) if labelled else (lambda rows: None)
    report = _report(store, train, heldout, warnings)
    pixels = {
        side: Pixels(store.shards, rows.numpy(), store.digests)
        for side, rows in (("train", train), ("heldout", heldout))
    }
    return Data(
        name=plain_name(source.name),
        text=source.text,
        kind="image",
        train=pixels["train"],
        heldout=pixels["heldout"],
        train_label=pick(train),
        heldout_label=pick(heldout),
        label_names=store.label_names if labelled else (),
        rows=(torch.from_numpy(store.rows)[train], torch.from_numpy(store.rows)[heldout]),
        own_split=_own_split(store),
        report=report,
        summary=tuple(describe(report)),
    )


def _split(store: stores.Store, warnings: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """The source's split, else one by content, which keeps exact duplicates together."""
    sides = store.heldout
    if _own_split(store):
        train = torch.from_numpy(np.flatnonzero(sides == 0))
        heldout = torch.from_numpy(np.flatnonzero(sides == 1))
        shared = int(np.isin(store.digests[heldout], store.digests[train]).sum())
        if shared:
            warnings.append(
                f"{shared} held-out images are exact copies of training images: the split is the "
                "source's own, and is kept"
            )
        return train, heldout
    return split_by_content(store.digests)


def _own_split(store: stores.Store) -> bool:
    """Whether the source assigns every image to a side of the split, and both have images."""
    return bool((store.heldout >= 0).all() and store.heldout.min() < store.heldout.max())


def _report(
    store: stores.Store, train: torch.Tensor, heldout: torch.Tensor, warnings: list[str]
) -> dict[str, Any]:
    counts = {name: int((store.labels == k).sum()) for k, name in enumerate(store.label_names)}
    unique = len(np.unique(store.digests))
    return {
        **{key: value for key, value in store.report.items() if key not in ("notes", "seen")},
        "exact_duplicates": len(store.digests) - unique,
        "labels": counts,
        "unlabelled": int((store.labels < 0).sum()) if store.label_names else 0,
        "training": len(train),
        "held_out": len(heldout),
        "split": "the source's own" if _own_split(store) else "by content",
        "warnings": warnings,
    }


def describe(report: dict[str, Any]) -> list[str]:
    """A report of images as lines for the terminal."""

    def counted(values: dict[str, int], most: int = 6) -> str:
        listed = [f"{n} {key}" for key, n in list(values.items())[:most]]
        return ", ".join(listed) + (", ..." if len(values) > most else "")

    channels, height, width = report["prepared_to"]
    kind = {1: "grey", 3: "RGB"}.get(channels, "RGBA")
    lines = [
        f"{report['images']} images ({counted(report['formats'])}; modes "
        f"{counted(report['modes'])}), as {kind} {width} x {height} ({report['fit']}): "
        f"{report['size_because']}",
        f"sizes: {counted(report['sizes'])}; {report['smaller_than_target']} smaller than that; "
        f"{report['exact_duplicates']} exact duplicates; {report['unreadable']} unreadable",
        f"split {report['split']}: {report['training']} to train, {report['held_out']} held out",
    ]
    if report["labels"]:
        lines.insert(1, f"labels: {counted(report['labels'], 10)}")
    if report["unreadable"]:
        named = [f"{name} ({why})" for name, why in report["unreadable_files"].items()]
        lines.append("left out: " + "; ".join(named[:5]))
    if report["ignored_files"]:
        lines.append(f"ignored: {counted(report['ignored_files'])} files")
    return lines + [f"warning: {text}" for text in report["warnings"]]
