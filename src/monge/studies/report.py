"""What a study leaves behind: tables, verdicts, figures, one page; and an index of all pages."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from monge.errors import UserError
from monge.report.figures import svg
from monge.report.page import card, duration, escaped, facts, note, number, page
from monge.studies import figures, tables
from monge.studies.running import CELLS, Results
from monge.studies.study import Study
from monge.studies.verdicts import Verdict, judge
from monge.system import files, ownership

PAGE = "study.html"
RECORD = "study.json"
TABLE = "results.csv"


@dataclass(frozen=True)
class Report:
    """Results and the verdicts on them.

    Attributes:
        command: repeats the study.
    """

    results: Results
    command: str

    @property
    def study(self) -> Study:
        return self.results.study

    @cached_property
    def verdicts(self) -> list[Verdict]:
        return judge(self.study.claims, self.results.rows, self.study.repeats)

    def text(self) -> str:
        """The verdicts for a terminal, claim by claim."""
        lines = []
        for claim in self.study.claims:
            own = [v for v in self.verdicts if v.claim is claim]
            lines.append(f"{claim.name}  [{claim.source}]")
            for verdict in own:
                group = ", ".join(f"{k} {v}" for k, v in verdict.group.items()) or "all"
                lines.append(f"  {verdict.word:11}{group}: {verdict.sentence}")
            if not own:
                lines.append("  undecided  no row is about this claim")
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """Everything but the rows, for a machine."""
        words = [v.word for v in self.verdicts]
        return {
            "study": self.study.name,
            "title": self.study.title,
            "command": self.command,
            "minutes": round(self.results.seconds / 60, 2),
            "machine": hardware(),
            "versions": {name: version(name) for name in ("monge", "torch", "numpy")},
            "axes": {name: list(values) for name, values in self.results.chosen.items()},
            "rows": len(self.results.rows),
            "failures": [
                {"cell": done.cell.text(), "error": done.error} for done in self.results.failures
            ],
            "words": {word: words.count(word) for word in sorted(set(words))},
            "verdicts": [verdict.row() for verdict in self.verdicts],
        }

    def write(self, folder: Path) -> list[Path]:
        """Fill a folder: tables, record, figures and page, in the place of earlier ones.

        Raises:
            UserError: the folder holds something else, or is not writable.
        """
        drawn = [(title, figures.draw(lines)) for title, lines in figures.panels(self.verdicts)]
        record = json.dumps(self.record(), indent=1, ensure_ascii=False, default=str)
        contents = {
            RECORD: record.encode(),
            PAGE: self._page([(title, svg(figure, title)) for title, figure in drawn]).encode(),
        }
        if self.results.rows:
            contents["results.parquet"] = tables.parquet(self.results.rows)
            contents[TABLE] = tables.csv(self.results.rows)
        for index, (_, figure) in enumerate(drawn, 1):
            contents[f"figure-{index}.png"] = figures.png(figure)
        return ownership.write(folder, contents, apart=(CELLS,))

    def _page(self, drawn: Sequence[tuple[str, str]]) -> str:
        study, record = self.study, self.record()
        top = (
            f"<div class='brand'>monge study</div><h1>{escaped(study.title)}</h1>"
            f"<p class='lead'>{escaped(study.question)}</p>"
        )
        sections = [("verdicts", "Verdicts", self._verdicts())]
        if drawn:
            legend = (
                "<p class='small'>Points: geometric means over the repetitions with 95 % bars; "
                "hollow ones are outside the range that is fitted. Full line: fit, with its slope "
                "in the legend. Dashed: predicted slope. Dotted: floor.</p>"
            )
            cards = "".join(card(f"<figure>{image}</figure>", escaped(t)) for t, image in drawn)
            sections.append(("figures", "Figures", legend + cards))
        sections.append(("reading", "How to read it", self._reading()))
        how = {k: record[k] for k in ("command", "minutes", "machine", "rows")}
        how |= {f"{name} (version)": text for name, text in record["versions"].items()}
        how |= {f"axis {name}": ", ".join(map(str, v)) for name, v in record["axes"].items()}
        failed = "".join(note(f"{f['cell']}: {f['error']}") for f in record["failures"])
        sections.append(("repeat", "How it was measured", failed + card(facts(how))))
        foot = f"{escaped(study.name)}: {duration(self.results.seconds)} of one core"
        return page(study.title, top, sections, foot)

    def _verdicts(self) -> str:
        parts = []
        for claim in self.study.claims:
            own = [v for v in self.verdicts if v.claim is claim]
            rows = "".join(
                f"<tr><td><b>{v.word}</b></td>"
                + "".join(f"<td>{escaped(v.group[c])}</td>" for c in claim.by)
                + f"<td>{escaped(v.sentence)}</td></tr>"
                for v in own
            )
            names = ("verdict", *claim.by, "what was found")
            head = "".join(f"<th>{escaped(name)}</th>" for name in names)
            table = f"<div class='wide'><table><thead><tr>{head}</tr></thead>{rows}</table></div>"
            source = f"<p class='small'>{escaped(claim.source)}</p>"
            body = source + (table if own else note("no row is about this claim"))
            parts.append(card(body, escaped(claim.name)))
        return "".join(parts)

    def _reading(self) -> str:
        axes = {axis.name: axis.meaning for axis in self.study.axes}
        range_ = (
            "A point is fitted where it is more than three times its floor and, where a step and "
            "a Lipschitz constant are known, their product is below one half. An upper bound is "
            "refuted only by an error that falls more slowly than it."
        )
        sources = "".join(f"<li>{escaped(source)}</li>" for source in self.study.sources)
        body = f"<p>{escaped(self.study.reading)}</p><p>{range_}</p>{facts(axes)}"
        return card(body) + (card(f"<ul>{sources}</ul>", "Sources") if sources else "")


def write_index(folder: Path, names: Iterable[str]) -> Path:
    """The page that lists the studies in subfolders of a folder; it replaces an earlier one."""
    rows = []
    for name in names:
        try:
            record = files.read_json(folder / name / RECORD)
            rows.append(_index_row(name, record))
        except (UserError, LookupError, TypeError, AttributeError):
            rows.append(f"<tr><td>{escaped(name)}</td><td colspan='3'>no results</td></tr>")
    head = "".join(f"<th>{name}</th>" for name in ("study", "verdicts", "rows", "minutes"))
    table = f"<div class='wide'><table><thead><tr>{head}</tr></thead>{''.join(rows)}</table></div>"
    top = "<div class='brand'>monge study</div><h1>Convergence studies</h1>"
    text = page("Convergence studies", top, [("all", "All studies", card(table))], "")
    return files.write_atomic(folder / "index.html", text)


def _index_row(name: str, record: Mapping[str, Any]) -> str:
    words = ", ".join(f"{count} {word}" for word, count in record["words"].items())
    return (
        f"<tr><td><a href='{escaped(name)}/{PAGE}'>{escaped(record['title'])}</a></td>"
        f"<td>{escaped(words)}</td><td>{number(record['rows'])}</td>"
        f"<td>{number(record['minutes'])}</td></tr>"
    )


def hardware() -> str:
    """The processor, as the system names it, and how many cores this process may use."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = next(
            line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line
        )
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, one thread a cell, torch on {torch.get_default_device()}"
