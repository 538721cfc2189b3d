"""Every verb over every kind of run does what it is for, or says in a sentence why it cannot."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from every_verb import Kind, World, act, cells, pairwise, refusal

from monge.errors import UserError
from monge.fitting import map_errors

ALL = cells()
COSTLY = {"evaluate", "verify", "compare", "export pt2", "export diffusers", "distil"}
"""Verbs that take seconds; in the quick selection each runs over one kind by each door."""


def quick() -> list[tuple[Kind, str, str]]:
    """A pairwise selection of the cells of quick verbs, and one or two of each costly one."""
    found = list(pairwise([cell for cell in ALL if cell[1] not in COSTLY]))
    found += [
        (Kind("array", "none", "flow"), "evaluate", "python"),
        (Kind("array", "conditions", "flow"), "evaluate", "command"),
        (Kind("array", "none", "flow"), "verify", "command"),
        (Kind("law", "none", "flow"), "export pt2", "command"),
        (Kind("table", "none", "flow"), "export diffusers", "command"),
        (Kind("array", "none", "flow"), "distil", "command"),
    ]
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("every"))


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a map from few noises: here it only has to be measured."""
    few = inspect.unwrap(map_errors.map_errors)
    monkeypatch.setattr(few, "__defaults__", (None, 20, 0, None, 2))


def check(
    world: World,
    cell: tuple[Kind, str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = refusal(*cell)
    try:
        found = act(world, cell, tmp_path / "out")
    except UserError as error:
        assert expected is not None and expected in str(error)
        return
    shown = capsys.readouterr()
    if cell[2] == "command":
        assert "Traceback" not in shown.err
        assert found == (0 if expected is None else 2), shown.err
    if expected is not None:
        assert cell[2] == "command" and expected in shown.err
    elif cell[1] in ("sample", "decode"):
        assert (tmp_path / "out" / "grid.png").stat().st_size > 0


@pytest.mark.parametrize("cell", quick(), ids=lambda cell: " ".join(map(str, cell)))
def test_a_verb_over_a_kind_of_run(
    world: World,
    cell: tuple[Kind, str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check(world, cell, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ALL, ids=lambda cell: " ".join(map(str, cell)))
def test_every_verb_over_every_kind_of_run(
    world: World,
    cell: tuple[Kind, str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check(world, cell, tmp_path, capsys)


def test_the_cells_are_all_there() -> None:
    assert len(ALL) == 12 * 2 * (2 * 17 - 3)
    kinds = {str(kind) for kind, _, _ in ALL}
    assert len(kinds) == 24
