"""`monge study`: measure a claim of theory against ground truth."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from monge.errors import CheckFailed, UserError
from monge.verbs.shown import note, tell


@dataclass(frozen=True)
class Study:
    """Convergence studies: rates and bounds of theory, measured against ground truth.

    `monge study list` lists them, `monge study list NAME` shows the axes of one study.
    `monge study NAME` runs one and writes tables, figures, verdicts and a page to --out.
    `monge study discretisation --dims 2,8 --solvers euler,heun` takes other values of its axes:
    each axis is a flag. `monge study mine.py` runs the STUDY of your own file.
    `monge study --all --quick` runs all of them, in under 10 minutes on two cores.

    Run an interrupted study again with the same --out to continue it.
    """

    study: Positional[str | None] = None
    """list, the name of a study, FILE.py or FILE.py:NAME."""
    about: Positional[str | None] = None
    """With list: the study to show."""
    all: bool = False
    """Run every study, each into a subfolder of --out, with an index."""
    quick: bool = False
    """Use the reduced axes of each study."""
    axis: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=VALUES")] = ()
    """Values of an axis separated by commas, NAME=A,B; also written --NAME A,B."""
    out: Path | None = None
    """Folder of the results; none: studies/NAME."""
    jobs: int = 1
    """Number of cells computed at once, each in a process; -1 for one per core."""
    json: bool = False
    """Print the result as JSON."""


def respelt(words: Sequence[str]) -> list[str]:
    """The words of the command line, with each flag named like an axis as a value of --axis."""
    known = {"--" + f.name for f in dataclasses.fields(Study)} | {"--help", "-h"}
    found: list[str] = []
    left = list(words)
    while left:
        flag, equals, value = left.pop(0).partition("=")
        if not flag.startswith("--") or flag in known or flag.startswith("--no-"):
            found.append(flag + equals + value)
            continue
        if not equals and left and not left[0].startswith("--"):
            value = left.pop(0)
        found += ["--axis", f"{flag[2:]}={value}"]
    return found


def act(arguments: Study) -> Any:
    """List the studies, or run some."""
    from monge.studies import catalogue

    if arguments.all:
        if arguments.study is not None or arguments.axis:
            raise UserError("--all runs every study with its own axes: name none")
        return _run_all(arguments)
    if arguments.study is None:
        raise UserError("which study? monge study list names them")
    if arguments.study == "list":
        return _list(arguments)
    study = catalogue.find(arguments.study)
    found = _run(arguments, arguments.study, arguments.out or Path("studies") / study.name)
    return _checked([found])


def _list(arguments: Study) -> Any:
    from monge.studies import catalogue

    if arguments.about is not None:
        study = catalogue.find(arguments.about)
        tell(arguments, f"{study.title}\n{study.question}\n")
        for axis in study.axes:
            values = ", ".join(map(str, axis.values))
            tell(arguments, f"  --{axis.name}s  {axis.meaning}: {values}")
        tell(arguments, "\nclaims")
        for claim in study.claims:
            tell(arguments, f"  {claim.name}  [{claim.source}]")
        return {"name": study.name, "axes": {a.name: list(a.values) for a in study.axes}}
    found = {}
    for name in catalogue.STUDIES:
        study = catalogue.find(name)
        cost = "" if study.minutes is None else f"  ({study.minutes:g} min of one core)"
        tell(arguments, f"{name:16}{study.title}{cost}")
        found[name] = {"title": study.title, "minutes": study.minutes}
    return found


def _run_all(arguments: Study) -> Any:
    from monge.studies import catalogue
    from monge.studies.report import write_index

    folder = arguments.out or Path("studies")
    found = [_run(arguments, name, folder / name) for name in catalogue.STUDIES]
    tell(arguments, f"index    {write_index(folder, catalogue.STUDIES)}")
    return _checked(found)


def _run(arguments: Study, text: str, folder: Path) -> dict[str, Any]:
    from monge.studies import catalogue
    from monge.studies.report import PAGE, Report
    from monge.studies.running import CELLS, run
    from monge.system import ownership

    study = catalogue.find(text)
    given = _axes(arguments.axis, study)
    ownership.refuse_foreign(folder, apart=(CELLS,))
    results = run(
        study,
        given,
        quick=arguments.quick,
        out=folder,
        jobs=arguments.jobs,
        reference=catalogue.reference(text),
        say=note,
    )
    report = Report(results, _command(arguments, text, folder))
    report.write(folder)
    tell(arguments, f"{study.title}\n{report.text()}")
    for failed in results.failures:
        tell(arguments, f"failed   {failed.cell.text()}: {failed.error.strip().splitlines()[-1]}")
    tell(arguments, f"page     {folder / PAGE}\n")
    return report.record()


def _axes(words: Sequence[str], study: Any) -> Mapping[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for word in words:
        name, equals, values = word.partition("=")
        axis = study.axis(name)
        if not equals or not values:
            raise UserError(f"study {study.name}: write --{name} A,B, the values of the axis")
        if axis.name in found:
            raise UserError(f"study {study.name}: axis {axis.name} is given twice")
        found[axis.name] = axis.read(values)
    return found


def _command(arguments: Study, text: str, folder: Path) -> str:
    words = ["monge", "study", text]
    for word in arguments.axis:
        name, _, values = word.partition("=")
        words += [f"--{name}", values]
    words += ["--quick"] if arguments.quick else []
    return shlex.join([*words, "--out", str(folder)])


def _checked(found: list[dict[str, Any]]) -> Any:
    failed = sum(len(record["failures"]) for record in found)
    if failed:
        raise CheckFailed(f"{failed} cells failed, see above", {"studies": found})
    return found[0] if len(found) == 1 else {"studies": found}
