"""Comparing two sources of samples, alone or with a reference, and the folder it fills."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from monge.comparison.page import COMPARISON, PICTURE, write_page
from monge.comparison.sets import REST, Taken, take_all
from monge.data.reading import Reading
from monge.errors import UserError
from monge.metrics.columns import Columns
from monge.metrics.compare import FEWEST, MAX_N, Compared, Set, compare
from monge.metrics.feature_sources import load_network
from monge.metrics.features import FeatureNetwork
from monge.metrics.labels import Labelled
from monge.runs.provenance import card, flags, network_word, reading_flags, source_word
from monge.runs.restore import pick_device
from monge.sampling import images
from monge.system import ownership
from monge.system.files import write_json
from monge.system.progress import Say, counting, quiet, survived

SHOWN = 64
"""Examples of each set in a grid."""

READING = Reading()


def compare_sources(
    a: str,
    b: str,
    reference: str | None = None,
    *,
    reading: Reading = READING,
    n: int = MAX_N,
    seed: int = 0,
    features: str | None = None,
    target: str | None = None,
    device: str = "auto",
    out: Path | None = None,
    say: Say = quiet,
) -> tuple[Compared, dict[str, Any]]:
    """Compare what two texts name; with a reference, ask which of them is closer to it.

    Args:
        a, b, reference: whatever `monge train` reads, or run folders; see `compared_sets`.
        n: examples of each set, at most.
        features: a feature network for images, ``NAME:FILE``.
        target: the column of tables that models learn to predict from A and from B.
        device: where runs are sampled.
        out: a folder for ``comparison.json``, pictures and ``comparison.html``: new or empty, or
            one that holds nothing but an earlier comparison, which is replaced.

    Returns:
        The result, and the content of ``comparison.json``.

    Raises:
        UserError: sources that cannot be read or do not go together, or a folder in use.
    """
    if n < FEWEST:
        raise UserError(f"a comparison needs n of at least {FEWEST}, not {n}")
    if out is not None:
        ownership.refuse_foreign(out)
    network = None if features is None else load_network(features)
    texts = {"A": a, "B": b} | ({} if reference is None else {"reference": reference})
    taken = take_all(texts, reading, n, seed, device, say)
    result = _compared(taken, network, target, n, seed, say)
    words = ["monge", "compare", source_word(a), source_word(b), "-n", str(n)]
    settings = {
        "reference": reference and source_word(reference),
        "seed": seed,
        "features": features and network_word(features),
        "target": target,
        "device": str(pick_device(device)),
    }
    command = [*words, *flags(settings), *reading_flags(reading)]
    found = {"format_version": 1, "card": _card(command, result, taken, network)}
    found |= result.to_json()
    if out is not None:
        _keep(out, found, taken)
    return result, found


def _compared(
    taken: Sequence[Taken],
    network: FeatureNetwork | None,
    target: str | None,
    n: int,
    seed: int,
    say: Say,
) -> Compared:
    """The sets compared, with progress shown."""
    first, second, *real = (_as_set(t) for t in taken)
    with counting("comparing", 100, say) as advance:
        done = 0

        def progress(_: str, fraction: float) -> None:
            nonlocal done
            advance(round(100 * fraction) - done)
            done = round(100 * fraction)

        return compare(
            first,
            second,
            *real[:1],
            rest=real[1] if len(real) > 1 else None,
            network=network,
            **_columns(taken),
            target=target,
            trained=any(t.name == REST for t in taken),
            n=n,
            seed=seed,
            progress=progress,
        )


def _card(
    command: list[str], result: Compared, taken: Sequence[Taken], network: FeatureNetwork | None
) -> dict[str, Any]:
    """How to repeat this comparison, and what was compared."""
    return card(
        command,
        seed=result.seed,
        n=result.n,
        sets={t.name: t.facts for t in taken},
        features=network and {"network": network.name, **network.settings},
    )


def _columns(taken: Sequence[Taken]) -> dict[str, Any]:
    """What `compare` is told of the columns of tables."""
    plain = {t.name: t.plain for t in taken if t.plain is not None}
    return {"table": plain, "columns": Columns(taken[0].names, taken[0].codes)} if plain else {}


def _as_set(t: Taken) -> Set:
    return t.x if t.label is None else Labelled(t.x, t.label)


def _keep(out: Path, found: dict[str, Any], taken: Sequence[Taken]) -> None:
    """The comparison's files, made elsewhere and then put in the place of an earlier one's."""
    with tempfile.TemporaryDirectory() as made:
        write_json(Path(made) / COMPARISON, found)
        with survived("the pictures of the comparison were not drawn"):
            _pictures(Path(made), taken)
        write_page(Path(made))
        ownership.write(out, {p.name: p.read_bytes() for p in sorted(Path(made).iterdir())})


def _pictures(out: Path, taken: Sequence[Taken]) -> None:
    """A grid of each set of images; of tables, A and B over what they are compared with."""
    by_name = {t.name: t for t in taken}
    if taken[0].kind == "image":
        for name in by_name.keys() & PICTURE.keys():
            t = by_name[name]
            rows = torch.linspace(0, len(t.x) - 1, min(SHOWN, len(t.x))).long()
            text = {"source": t.facts["source"]}
            images.save_png(images.grid(t.x[rows], round(SHOWN**0.5)), out / PICTURE[name], text)
        return
    below = "reference" if "reference" in by_name else "B"
    for name in "AB":
        if name != below:
            plot = images.table_plot(
                by_name[name].x, by_name[below].x, taken[0].columns, (below, name)
            )
            images.save_png(plot, out / PICTURE[name])
