"""One page over a folder of runs: what differs, how good each is, and whose file it replaces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_report import COVERAGE, ENERGY, EVIL, Page, put, run_folder

from monge.cli import main
from monge.errors import UserError
from monge.metrics.table import Table
from monge.report.index import differing, metrics, read_entry, runs_in, write_index
from monge.report.report import write_report
from monge.runs.spec import TrainSpec, to_yaml


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs that differ in rate and seed, one of them evaluated; and something else."""
    folder = tmp_path / "runs"
    run_folder(folder / "first")
    write_report(folder / "first")
    put(folder / "first", "config.yaml", to_yaml(TrainSpec(data="digits", steps=300, lr=2e-3)))
    put(folder / "second", "config.yaml", to_yaml(TrainSpec(data="digits", steps=300, seed=5)))
    put(folder, "notes.txt", "mine")
    put(folder / "other", "a.txt", "no run")
    return folder


def test_the_page_has_differences_numbers_pictures_and_links(runs: Path) -> None:
    page = Page(write_index(runs).read_text())
    assert "2 runs, 1 of them evaluated. They differ in lr, seed." in page.text.replace("\n", "")
    for piece in ("0.0312", "[0.0241, 0.0390]", "floor 0.0118", "0.947", "98 s", "seed: 5"):
        assert piece in page.text, piece
    assert "first/report.html" in page.links and "second/report.html" not in page.links
    assert page.tags.count("img") == 1 and page.open == []
    assert "mine" not in page.text and "other" not in page.text


def test_settings_and_metrics_are_chosen_by_what_differs_and_what_is_known(runs: Path) -> None:
    entries = [read_entry(run) for run in runs_in(runs)]
    assert differing(entries) == ["lr", "seed"]
    assert metrics(entries) == ["energy distance", "coverage"]
    assert entries[0].rows == tuple(Table([ENERGY, COVERAGE]))


def test_it_is_written_again_but_never_over_a_file_of_others(runs: Path) -> None:
    first = write_index(runs).read_bytes()
    assert write_index(runs).read_bytes() == first
    (runs / "index.html").write_bytes(first.replace(b"2 runs", b"my 2 runs"))
    changed = (runs / "index.html").read_bytes()
    with pytest.raises(UserError, match="was not written by monge, or was changed"):
        write_index(runs)
    assert (runs / "index.html").read_bytes() == changed
    (runs / "index.html").unlink()
    (runs / "index.html").symlink_to(runs / "notes.txt")
    with pytest.raises(UserError, match="was not written by monge"):
        write_index(runs)
    assert (runs / "notes.txt").read_text() == "mine"


def test_a_damaged_run_is_named_and_the_others_are_shown(runs: Path) -> None:
    put(runs / "third", "config.yaml", "[")
    put(runs / "fourth", "config.yaml", to_yaml(TrainSpec(data=EVIL, steps=300)))
    page = Page(write_index(runs).read_text())
    assert "third: config.yaml" in page.text and "0.0312" in page.text
    assert page.scripts == ["code"] and str(runs) not in page.text


def test_the_command_tells_runs_from_folders_of_runs(runs: Path, capsys) -> None:
    assert main(["report", str(runs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(runs / "index.html")}
    (runs / "first" / "report.html").unlink()
    assert main(["report", str(runs / "first")]) == 0
    assert (runs / "first" / "report.html").exists()
    for bad, told in ((runs / "other", "holds no run"), (runs / "none", "no such folder")):
        assert main(["report", str(bad)]) == 2
        assert told in capsys.readouterr().err
