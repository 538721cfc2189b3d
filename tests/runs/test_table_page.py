"""The page of a table, from a file of rows to the report: its label, its target, its pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv

from monge.cli import main
from monge.data.reading import Reading
from monge.data.tables.tables import from_table
from monge.errors import UserError
from monge.evaluation.evaluate import table_of
from monge.evaluation.tabular import judged
from monge.metrics.columns import Columns
from monge.metrics.table import Row, Table
from monge.metrics.tabular_families import DCR, GROUP, SHAPE, TREES, JudgedTable
from monge.metrics.tabular_rows import tabular_report
from monge.report.sections import tabular as section


def rows(n: int = 200) -> pa.Table:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, n))
    colour = np.where(a + rng.normal(size=n) > 0, "red", "blue")
    kind = np.where(b > 0.3, "<x>", "y & z")
    return pa.table({"a": a, "b": a + b, "colour": colour, "kind": kind})


def test_a_label_is_the_last_column_and_the_target() -> None:
    data = from_table(rows(), Reading(label_column="kind"))
    sets = [data.train[:40], data.train, data.heldout]
    columns = table_of(data, *sets, {})
    labels = data.train_label[:40], data.train_label, data.heldout_label  # type: ignore[index]
    assert columns is not None
    given = judged(data, columns, labels)
    assert given.columns.names == ("a", "b", "colour", "kind") and given.target == 3
    assert given.columns.categorical == (False, False, True, True)
    assert set(given.heldout[:, 3].tolist()) == {0.0, 1.0}
    assert judged(data, columns, labels, "b").target == 1
    without = judged(data, columns, (None, *labels[1:]))
    assert without.columns.names == ("a", "b", "colour") and without.target is None
    unknown = judged(data, columns, (torch.full((40,), -1), *labels[1:]))
    assert bool(unknown.samples[:, 3].isnan().all())
    with pytest.raises(UserError, match=r"--target: no column 'colur'.*colour"):
        judged(data, columns, labels, "colur")


def test_evaluate_prints_the_page_and_the_report_draws_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv.write_csv(rows(), tmp_path / "t.csv")
    out = tmp_path / "run"
    train = ["train", str(tmp_path / "t.csv"), "--steps", "5", "--threads", "1", "--out", str(out)]
    assert main([*train, "--network", "mlp:width=16,depth=1"]) == 0
    evaluate = ["evaluate", str(out), "-n", "40", "--steps", "2"]
    assert main([*evaluate, "--target", "b"]) == 0
    text = capsys.readouterr().out
    assert GROUP in text and "TSTR R² of b" in text and "No privacy is promised" in text
    found = json.loads((out / "evaluation" / "evaluation.json").read_text())
    assert "--target b" in found["card"]["command"]
    page = {row["name"]: row for row in found["table"]["rows"] if row["group"] == GROUP}
    assert page[DCR]["floor"] == 0.5 and set(page[SHAPE]["baselines"]) == {
        "independent columns",
        "Gaussian copula",
        "training set",
    }
    assert {each["column"] for each in found["tabular"]["giveaways"]} == {
        "a", "b", "colour", "kind",
    }  # fmt: skip
    report = (out / "report.html").read_text()
    assert "generated less held-out" in report and "give the samples away" in report
    assert "No privacy is promised" in (out / "README.md").read_text()
    assert main([*evaluate, "--target", "bb"]) == 2
    assert "no column 'bb'" in capsys.readouterr().err


def put(folder: Path, name: str, content: object) -> None:
    path = folder / "evaluation" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_the_report_names_the_column_that_gives_samples_away(tmp_path: Path, noise: float) -> None:
    rng = torch.Generator().manual_seed(1)  # one seed in twenty has p < 0.05
    train, held, x = torch.randn(3, 150, 3, generator=rng).double()
    x[:, 1] *= 1 + noise
    columns = Columns(("a", "<b>", "c"), (False, False, False))
    found = tabular_report(JudgedTable(x, train, held, columns), 0)
    table: list[Row] = list(found.rows)
    put(
        tmp_path,
        "evaluation.json",
        {"table": Table(table).content(), "tabular": found.content()},
    )
    drawn = section.giveaways(tmp_path) or ""
    row = next(row for row in table if row.name == TREES)
    if noise == 0:
        assert (row.p_value or 0) > 0.05 and "no column gives them away" in drawn
        return
    assert "&lt;b&gt;" in drawn and "<b>" not in drawn and "width:100.0%" in drawn
    assert drawn.index("&lt;b&gt;") < drawn.index("title='a'") if "title='a'" in drawn else True


def test_the_report_draws_the_difference_of_associations(tmp_path: Path) -> None:
    names = ["a", "<b>", "c"]
    known = {
        "names": names,
        "samples": [[1, 0.9, None], [0.9, 1, 0.1], [None, 0.1, 1]],
        "heldout": [[1, 0.4, 0.2], [0.4, 1, 0.3], [0.2, 0.3, 1]],
    }
    sizes = {"n_samples": 100, "n_heldout": 400, "n_train": 400, "columns": []}
    put(tmp_path, "columns.json", {**sizes, "associations": known})
    drawn = section.differences(tmp_path) or ""
    assert drawn.count("<title>") == 2  # one pair is not known
    assert "+0.500" in drawn and "-0.200" in drawn and "<b>" not in drawn
    assert "largest difference is 0.50" in drawn and "about 0.11 by chance" in drawn
    put(tmp_path, "columns.json", {**sizes, "associations": {**known, "names": ["a"]}})
    assert section.differences(tmp_path) is None and section.giveaways(tmp_path) is None
