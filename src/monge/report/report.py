"""The report of a run: one HTML page made of whatever the run folder holds.

A section is a title, the command that makes it, and parts: functions of the folder that return
HTML, or None where their files are absent. A part whose file is damaged becomes a note. A new
kind of result adds its parts and one row to `SECTIONS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monge.errors import UserError
from monge.report.page import (
    DAMAGED,
    escaped,
    note,
    page,
)
from monge.report.sections import chain as chain_section
from monge.report.sections import (
    columns,
    measured,
    plane,
    samples,
    tabular,
    top,
    training,
    what_was_run,
)
from monge.report.sections import maps as map_section
from monge.report.sections import verify as verify_section
from monge.report.sections.reading import memorisation_first, reading
from monge.system.files import write_atomic

Part = Callable[[Path], str | None]


REPORT = "report.html"


@dataclass(frozen=True)
class Section:
    """A section of the report; absent, with its command as a hint, if all its parts are.

    Attributes:
        folded: whether it opens on request, as it is for those who ask how.
        optional: whether it is not missed where it is absent.
    """

    title: str
    command: str
    parts: tuple[Part, ...]
    folded: bool = False
    optional: bool = False

    @property
    def anchor(self) -> str:
        return re.sub(r"\W+", "-", self.title.lower())


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from the files of a run folder; what is absent is left out.

    Raises:
        UserError: the folder does not exist or cannot be written.
    """
    return write_atomic(Path(folder) / REPORT, report_of(Path(folder)))


def report_of(folder: Path) -> str:
    """The page that `write_report` writes."""
    if not folder.is_dir():
        raise UserError(f"no such run folder: {folder}")
    shown, missing = [], []
    first = {"In short", COPIES} if memorisation_first(folder) else {"In short"}
    # Sorting keeps the order within the two groups.
    for section in sorted(SECTIONS, key=lambda section: section.title not in first):
        content = "".join(filter(None, (_guarded(part, folder) for part in section.parts)))
        if content:
            shown.append((section.anchor, section.title, content))
        elif not section.optional:
            missing.append(section)
    if missing:
        shown.append(("not-here-yet", "Not here yet", _hints(missing)))
    first_parts = (top.title, top.sentence, top.lead, top.numbers)
    above = "".join(filter(None, (_guarded(part, folder) for part in first_parts)))
    closed = {section.anchor for section in SECTIONS if section.folded}
    foot = f"Written by monge from the files in <code>{escaped(folder.resolve().name)}</code>."
    return page(f"{folder.resolve().name} · monge", above, shown, foot, closed)


def _hints(missing: Sequence[Section]) -> str:
    """Which command makes what is missing."""
    titles: dict[str, list[str]] = {}
    for section in missing:
        titles.setdefault(section.command, []).append(section.title)
    lines = (
        f"<li><code>{escaped(command)}</code> makes: {escaped(', '.join(made))}</li>"
        for command, made in titles.items()
    )
    return f"<ul>{''.join(lines)}</ul>"


def _guarded(part: Part, folder: Path) -> str | None:
    """A part's HTML; a note where its file cannot be read."""
    try:
        return part(folder)
    except DAMAGED as error:
        return note(_reason(part, error).replace(f"{folder}/", ""))


def _reason(part: Part, error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    name = part.__name__.strip("_").replace("_", " ")
    return f"{name}: a file that this is made of is not as monge writes it ({what})"


COPIES = "Nearest training examples"
TRAIN, EVALUATE, VERIFY = "monge train DATA", "monge evaluate RUN", "monge verify RUN"

SECTIONS: list[Section] = [
    Section("In short", EVALUATE, (measured.in_words,)),
    Section("Samples", EVALUATE, (samples.samples, samples.by_steps, samples.while_training)),
    Section(
        "Columns",
        EVALUATE,
        (
            columns.every,
            columns.beyond,
            columns.together,
            tabular.differences,
            tabular.giveaways,
        ),
        optional=True,
    ),
    Section("Velocity and density", EVALUATE, (plane.field, plane.density), optional=True),
    Section(
        "Measurements",
        EVALUATE,
        (measured.measurements, measured.density, measured.labels, what_was_run.repeat),
    ),
    Section(
        "Where the error comes from",
        VERIFY,
        (
            verify_section.budget,
            verify_section.laws_of_map,
            verify_section.curves,
            verify_section.stretching,
        ),
    ),
    Section("Block by block", "monge chain DATA", chain_section.PARTS, optional=True),
    Section(
        "Few steps",
        f"{EVALUATE} --steps 1,2,4,8,16",
        (map_section.by_evaluations, map_section.errors),
    ),
    Section(COPIES, EVALUATE, (measured.neighbours,)),
    Section("Data", TRAIN, (reading,), folded=True),
    Section(
        "Autoencoder",
        TRAIN,
        (training.quality, training.reconstructions, training.autoencoder_curves),
        folded=True,
    ),
    Section("Training", TRAIN, (training.training_curves,), folded=True),
    Section("Cost", TRAIN, (what_was_run.cost,), folded=True),
    Section(
        "What was run",
        TRAIN,
        (
            what_was_run.environment,
            what_was_run.configuration,
            what_was_run.changes,
            what_was_run.data,
        ),
        folded=True,
    ),
]
"""The sections in order. A new kind of result adds a row, and its parts in a module of its own."""
