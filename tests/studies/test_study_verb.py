"""`monge study` from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from monge.cli import main
from monge.studies import catalogue
from monge.verbs.study import respelt

FILE = str(Path(__file__).parent / "my_study.py")


def test_the_list_names_every_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(catalogue.STUDIES)
    assert main(["study", "list", "early-stopping"]) == 0
    shown = capsys.readouterr().out
    assert "--modes  end of the walk: raw, divided, last" in shown and "claims" in shown


def test_a_study_of_a_file_fills_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    command = ["study", FILE, "--scales", "1,3", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "consistent scale 1.0: slope -0.5" in printed.out and "6 cells" in printed.err
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert names == {
        "cells", "results.parquet", "results.csv", "study.json", "study.html", "figure-1.png",
    }  # fmt: skip
    record = json.loads((out / "study.json").read_text())
    assert record["words"] == {"consistent": 2} and record["axes"]["scale"] == [1.0, 3.0]
    assert record["command"] == f"monge study {FILE} --scales 1,3 --out {out}"
    assert record["rows"] == 24 == len((out / "results.csv").read_text().splitlines()) - 1
    assert len(list((out / "cells").glob("*.json"))) == 6
    page = (out / "study.html").read_text()
    assert not re.search(r"(src|href)=['\"](https?:)?//", page)
    assert "central limit theorem" in page and page.count("<svg") == 1
    assert main(command) == 0  # again: everything is there
    assert "6 of them kept from before" in capsys.readouterr().err


def test_the_whole_result_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", FILE, "--quick", "--json", "--out", str(tmp_path / "o")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["study"] == "mine" and found["verdicts"][0]["slope"] == pytest.approx(-0.5)


def test_all_studies_with_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "STUDIES", {"mine": f"{FILE}:STUDY"})
    assert main(["study", "--all", "--quick", "--out", str(tmp_path)]) == 0
    index = (tmp_path / "index.html").read_text()
    assert "href='mine/study.html'" in index and "1 consistent" in index


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["discretization"], "unknown study 'discretization': did you mean 'discretisation'?"),
        ([], "which study?"),
        ([FILE, "--scale"], "write --scale A,B"),
        ([FILE, "--scala", "1"], "has no axis 'scala': did you mean 'scale'?"),
        ([FILE, "--scale", "one"], "axis scale takes a number, not 'one'"),
        ([FILE, "--scale", "1", "--scales", "2"], "axis scale is given twice"),
        (["--all", "--scale", "1"], "--all runs every study with its own axes"),
        (["nowhere.py"], "no such file"),
    ],
)
def test_bad_input(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", *words, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    assert main(["study", FILE, "--quick", "--out", str(tmp_path)]) == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_cell_that_fails_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(Path(FILE).read_text().replace("n**-0.5", "n**-0.5 / (at['seed'] - 1)"))
    assert main(["study", str(broken), "--scales", "1", "--out", str(tmp_path / "o")]) == 3
    printed = capsys.readouterr()
    assert "failed   scale 1.0, seed 1: ZeroDivisionError" in printed.out
    assert "1 cells failed" in printed.err and (tmp_path / "o" / "study.html").exists()


def test_flags_of_axes_are_spelt_for_the_parser() -> None:
    assert respelt(["x", "--dims", "2,8", "--out", "o", "--solvers=euler"]) == [
        "x", "--axis", "dims=2,8", "--out", "o", "--axis", "solvers=euler",
    ]  # fmt: skip
