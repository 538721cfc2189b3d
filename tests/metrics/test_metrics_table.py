"""The table: what a row requires, and that JSON returns it unchanged."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from monge.errors import UserError
from monge.metrics.table import Row, Table

ROW = Row(
    name="energy distance",
    value=0.25,
    interval=(0.2, 0.3),
    interval_method="normal",
    floor=-0.001,
    baselines={"gaussian": 0.5},
    n=360,
    protocol={"seed": 0, "estimator": "U"},
    unit="data units",
    better="lower",
    p_value=0.002,
)


def test_json_returns_the_same_table() -> None:
    table = Table([ROW, dataclasses.replace(ROW, name="other", p_value=None, better="higher")])
    assert Table.from_json(table.to_json()) == table
    assert ROW.excess == pytest.approx(0.251)


def test_json_is_strict_and_keeps_numbers_that_are_not_finite() -> None:
    odd = dataclasses.replace(
        ROW,
        value=math.inf,
        interval=(math.nan, math.nan),
        floor=-math.inf,
        baselines={"a": math.nan},
        note="halves of 15 are too few",
    )
    text = Table([odd]).to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert json.loads(text)["rows"][0]["interval"] == [None, None]
    read = Table.from_json(text)["energy distance"]
    assert read.value == math.inf and read.floor == -math.inf
    assert math.isnan(read.interval[0]) and math.isnan(read.baselines["a"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baselines": {}}, "at least one baseline"),
        ({"floor": None}, "floor must be a number"),
        ({"value": "0.2"}, "value must be a number"),
        ({"interval": (0.3, 0.2)}, "upside down"),
        ({"interval": (math.nan, 0.2)}, "a note that says why it has no interval"),
        ({"interval": (0.3,)}, "two numbers"),
        ({"interval_method": ""}, "method of its interval"),
        ({"n": 0}, "n must be positive"),
        ({"better": "smaller"}, "better must be one of"),
        ({"p_value": 1.5}, "p_value"),
        ({"name": ""}, "needs a name"),
    ],
    ids=str,
)
def test_a_row_without_its_parts_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(ROW, **change)  # type: ignore[arg-type]


def test_floor_and_baselines_have_no_default() -> None:
    required = {f.name for f in dataclasses.fields(Row) if f.default is dataclasses.MISSING}
    assert {"floor", "baselines", "interval", "interval_method", "n", "protocol"} <= required


def test_names_are_distinct_and_find_rows() -> None:
    assert Table([ROW])["energy distance"] is ROW
    with pytest.raises(KeyError):
        Table([ROW])["energy"]
    with pytest.raises(UserError, match="two rows"):
        Table([ROW, ROW])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no", "not the JSON"),
        ("[]", "not the JSON"),
        ('{"rows": []}', "not the JSON"),
        ('{"format_version": 99, "rows": []}', "upgrade monge"),
        ('{"format_version": 1, "rows": [{"name": "x"}]}', "cannot be read"),
        ('{"format_version": 1}', "cannot be read"),
    ],
)
def test_other_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Table.from_json(text)


def test_text_has_a_block_for_each_group_with_the_baselines_of_its_rows() -> None:
    law = dataclasses.replace(ROW, group="Laws")
    square = dataclasses.replace(
        law, name="W2²", group="Transport", unit="data units²", p_value=None, floor=0.05
    )
    last = dataclasses.replace(law, name="C2ST AUC", baselines={"copies": 0.75}, p_value=None)
    head, first, second, gap, other, third, legend = Table([law, square, last]).text().splitlines()
    assert " ".join(head.split()) == "Laws value 95 % interval floor gaussian copies n p"
    assert "energy distance" in first and "[0.2, 0.3]" in first and first.endswith("0.002")
    end = head.index("gaussian") + len("gaussian")
    assert first[end - 3 : end] == "0.5" and second[end - 1] == "-" and "0.75" in second
    assert gap == ""
    assert " ".join(other.split()) == "Transport value 95 % interval floor excess gaussian n"
    assert third.split()[-3:] == ["0.2", "0.5", "360"]  # 0.25 - 0.05
    assert "excess: value minus floor" in legend


def test_old_tables_without_groups_are_read() -> None:
    entry = json.loads(Table([ROW]).to_json())
    del entry["rows"][0]["group"]
    assert Table.from_json(json.dumps(entry))["energy distance"].group == ""
    assert Table([ROW]).text().startswith("metric")
