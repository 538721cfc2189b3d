"""The report and the card: complete, self-contained, safe, and never a traceback."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml

from monge.errors import UserError
from monge.metrics.table import Row, Table
from monge.report import figures, report
from monge.report.card import write_card
from monge.report.report import SECTIONS, write_report
from monge.runs.spec import TrainSpec, to_yaml
from monge.sampling import images

EVIL = "<script>alert('$x|y')</script>"

ENERGY = Row(
    "energy distance", 0.0312, (0.0241, 0.039), "bootstrap", 0.0118,
    {"gaussian": 0.412, "training set": 0.0102}, 360, {"solver": "heun"}, p_value=0.002,
)  # fmt: skip
COVERAGE = Row(
    "coverage", 0.947, (0.921, 0.968), "Wilson", 0.961, {"gaussian": 0.41}, 360, {"k": 5},
    better="higher",
)  # fmt: skip


def put(folder: Path, name: str, content: object) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def log(n: int) -> str:
    line = {"loss": 1.0, "grad_norm": 2.0, "lr": 1e-3, "parts": {"a": 1.0, "b": 0.5}, "wall": {}}
    rows = [line | {"step": 20 * k, "loss": 1 / k} for k in range(1, n)]
    return "".join(json.dumps(row) + "\n" for row in [*rows, {"step": 40, "event": "continued"}])


def verified(name: str) -> dict[str, object]:
    """What `monge verify` writes, as far as a report reads it."""
    term = {
        "name": "velocity", "value": 0.6, "stderr": 0.3, "kind": "estimate", "coupling": name,
        "setting": name, "n": 400, "latent": None, "extra": {"floor": 2.5},
    }  # fmt: skip
    upper = term | {"name": "reconstruction", "value": 0.5, "kind": "upper", "extra": None}
    piece = {"lo": 0.0, "hi": 1.0, "loss": 1.0, "least": 0.9, "excess": 0.1, "stderr": 0.01}
    error = {"solver": name, "steps": 4, "evaluations": 4.0, "rms": 0.1, "median": 0.1}
    return {
        "terms": [term, upper],
        "sum": {"value": 1.1, "stderr": 0.3},
        "lower_bounds": {"Gelbrich": {"value": 0.4, "stderr": 0.1}},
        "plug_in": {"value": 2.9, "floor": 2.8, "n": 359},
        "truth_known": False,
        "advice": {"text": f"velocity is 55 % of {name}"},
        "units": name,
        "errors_by_steps": [error, error | {"steps": 8, "evaluations": 8.0, "median": 0.05}],
        "field_errors": {"against": name, "bins": [piece], "growth_bound": 2.0},
        "lipschitz": {
            "times": [0.0, 1.0], "norm": [1.0, 2.0], "rate": [0.5, 1.0], "exact_rate": None,
            "amplification": 3.0, "encoder": 1.0, "decoder": None, "certified": None,
        },
        "trajectories": {"times": [0.0, 1.0], "points": [[[0, 0]], [[1, 1]]], "target": [[1, 0]]},
    }  # fmt: skip


def columns(name: str) -> dict[str, object]:
    """What an evaluation writes of a table's columns."""
    number = {
        "name": name, "kind": "number", "edges": [0.0, 1.0, 2.0], "samples": [0.25, 0.7],
        "heldout": [0.5, 0.5], "range": [0.0, 2.0], "beyond": {"samples": 7, "heldout": 1},
        "mean": [1.25, 1.0], "deviation": [0.5, 0.5],
    }  # fmt: skip
    category = {
        "name": f"{name} colour", "kind": "category", "values": [name, "blue"],
        "samples": [1.0, 0.0], "heldout": [0.5, 0.5], "train": [0.5, 0.5],
    }  # fmt: skip
    return {
        "n_samples": 100, "n_heldout": 50, "n_train": 200, "columns": [number, category],
        "associations": {
            "names": [name, f"{name} colour"], "samples": [[1.0, 0.25], [0.25, 1.0]],
            "heldout": [[1.0, 0.75], [0.75, 1.0]],
        },
    }  # fmt: skip


def plane(name: str) -> dict[str, object]:
    """What an evaluation writes of a model of two numbers."""
    point = [[[0.0, 0.0]], [[1.0, 1.0]]]
    return {
        "names": [name, "b"], "t": [0.0, 1.0], "box": [[-1.0, 1.0], [0.0, 2.0]], "walks": point,
        "real": point[1], "labels": False, "at": point[0], "arrows": point,
        "density": {"cells": 2, "model": [-1.0, None, -2.0, -3.0], "truth": [-1.0] * 4},
    }  # fmt: skip


def run_folder(folder: Path, name: str = "digits") -> Path:
    """Every file that a report knows."""
    evaluation = {
        "format_version": 1,
        "table": json.loads(Table([ENERGY, COVERAGE]).to_json()),
        "sampling": {"n": 1000, "seed": 0, "solver": name, "steps": 20, "guidance": 1.5},
        "labels": {"agreement": [0.966, 0.95, 0.98], "per_class": {name: [0.9, 0.8, 1.0]}},
        "verdicts": [f"Nothing to complain of {name}."],
    }
    put(folder, "config.yaml", to_yaml(TrainSpec(data=name, steps=3000)))
    put(folder, "environment.json", {"command": f"monge train {name}", "torch": "2.13.0"})
    put(folder, "data_report.json", {
        "format_version": 1, "images": 1797, "warnings": ["3 duplicates"],
        "by size": {"8 x 8": 1797},
    })  # fmt: skip
    put(folder, "data.json", {
        "name": name, "text": name, "kind": "image", "shape": [1, 8, 8], "n_train": 1437,
        "n_heldout": 360, "label_names": [name, "1"], "label_counts": [700, 737],
        "fingerprint": "8f3ac91b",
    })  # fmt: skip
    put(folder, "log.jsonl", log(60))
    put(folder, "autoencoder/log.jsonl", log(10))
    put(folder, "autoencoder/quality.json", {
        "psnr_db": 24.31, "rmse": 0.122, "pca_psnr_db": 21.9, "latent_shape": [4, 4, 4],
        "numbers": 64, "kind": name,
    })  # fmt: skip
    put(folder, "evaluation/evaluation.json", evaluation)
    put(folder, "evaluation/verify.json", verified(name))
    point = {
        "who": "map", "how": name, "evaluations": 2, "energy": 0.1, "auc": 0.6, "frechet": 2.0,
        "features": 3.0,
    }  # fmt: skip
    floor = {"energy": 0.0, "auc": 0.5, "frechet": 1.0}
    put(folder, "evaluation/steps.json", {
        "n": 100, "seed": 0, "network": name, "floor": floor, "floor_std": floor,
        "shown": [name, "teacher"],
        "points": [point, point | {"who": "teacher"}, point | {"who": "teacher as it is"}],
    })  # fmt: skip
    put(folder, "evaluation/columns.json", columns(name))
    put(folder, "evaluation/plane.json", plane(name))
    error = {
        "steps": 1,
        "guidance": 1.0,
        "rms": 0.1,
        "relative": 0.01,
        "median": 0.005,
        "quantile90": 0.03,
    }
    put(folder, "map_error.json", {
        "format_version": 1, "n": 100, "reference": name, "units": name,
        "errors": [error, error | {"steps": 2}],
    })  # fmt: skip
    put(folder, "cost.json", {"train_s": 98.2, "sample_s": 4.0, "steps": 3000, "parameters": 7})
    block = {"clock": [0.0, 1.0], "moved": 0.5, "ratio": 0.1, "steps": 10, "train_s": 1.5}
    put(folder, "chain.json", {"blocks": [block | {"size": 0.5}, block | {"size": None}]})
    put(folder, "changes.json", [{"date": "today", "changed": {name: {"from": 1, "to": 2}}}])
    picture = images.grid(torch.zeros(4, 1, 8, 8), 2)
    for path in PICTURES:
        images.save_png(picture, folder / path)
    return folder


PICTURES = [
    "samples/step-00000100.png",
    "samples/step-00000200.png",
    "evaluation/samples.png",
    "evaluation/by_label.png",
    "evaluation/by_steps.png",
    "evaluation/neighbours.png",
    "autoencoder/reconstructions.png",
]


class Page(HTMLParser):
    """Collects what a browser would see and fetch."""

    VOID = frozenset(["meta", "img", "br", "path", "use", "input"])

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.titles: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "script":
            self.scripts.append(values.get("type") or "code")
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action") and v]
        if tag == "section":
            self.titles.append(values["id"] or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> tuple[str, Page]:
    text = write_report(run_folder(tmp_path_factory.mktemp("run"))).read_text()
    return text, Page(text)


def test_the_page_needs_nothing_from_elsewhere(full):
    text, page = full
    assert page.links and all(
        link.startswith(("data:image/png;base64,", "#")) for link in page.links
    )
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert not {"link", "iframe", "object"} & set(page.tags)
    assert page.scripts == ["application/json"] * 2 + ["code"], "two films, and what turns them"
    assert page.open == []


def test_a_full_folder_has_every_section_and_no_hint(full):
    _, page = full
    assert page.titles == [re.sub(r"\W+", "-", s.title.lower()) for s in SECTIONS]
    assert page.tags.count("img") == len(PICTURES) + 2, "and two densities"
    assert "is damaged" not in page.text and "as monge writes it" not in page.text


def test_the_numbers_are_there(full):
    _, page = full
    for piece in (
        "0.0312", "[0.0241, 0.0390]", "0.0118", "0.412", "p-value 0.002", "Wilson", "k 5",
        "96.6 %", "24.3 dB", "98 s", "3,000 steps", "guidance 1.5", "monge train digits",
        "Nothing to complain of digits.", "at the floor", "step 40: continued", "1 → 2",
    ):  # fmt: skip
        assert piece in page.text, piece


@pytest.mark.parametrize(
    "missing, lost",
    [
        (["evaluation"], ["in-short", "measurements", "nearest-training-examples"]),
        (["autoencoder"], ["autoencoder"]),
        (["log.jsonl"], ["training"]),
        (["cost.json"], ["cost"]),
        (["evaluation", "samples"], ["samples"]),
        (["data_report.json"], ["data"]),
        (["environment.json", "config.yaml", "data.json", "changes.json"], ["what-was-run"]),
    ],
)
def test_what_is_absent_is_left_out_and_named(tmp_path, monkeypatch, missing, lost):
    for draw in ("curve", "intervals", "by_class"):  # drawn in other tests
        monkeypatch.setattr(figures, draw, lambda *_, **__: "<svg></svg>")
    folder = run_folder(tmp_path / "run")
    for name in missing:
        (folder / name).rename(tmp_path / name)
    page = Page(write_report(folder).read_text())
    assert not set(lost) & set(page.titles)
    assert page.titles[-1] == "not-here-yet" and "monge " in page.text
    assert "is damaged" not in page.text


def test_an_empty_folder_has_hints_alone(tmp_path):
    page = Page(write_report(tmp_path).read_text())
    assert page.titles == ["not-here-yet"]
    assert "monge evaluate RUN" in page.text and "monge train DATA" in page.text


def page_scripts(text: str) -> str:
    """All script elements of a page."""
    return "".join(re.findall(r"<script.*?</script>", text, re.DOTALL))


def test_text_from_files_is_never_markup(tmp_path):
    text = write_report(run_folder(tmp_path, EVIL)).read_text()
    page = Page(text)
    assert page.scripts == ["application/json"] * 2 + ["code"] and EVIL in page.text
    assert "alert(" not in re.sub(r"application/json'>.*?</script>", "", page_scripts(text))
    assert "is damaged" not in page.text and "as monge writes it" not in page.text
    card = write_card(tmp_path).read_text()
    assert "<script>" not in re.sub(r"```.*?```|`[^`\n]*`", "", card, flags=re.DOTALL)


DAMAGE = {
    "no JSON": "{",
    "another type": "[1, 2]",
    "keys missing": "{}",
    "wrong types": json.dumps(
        {"table": 3, "latent_shape": 3, "train_s": "x", "name": 1, "step": 2}
    ),
    "binary": "\udcff\x00",
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_become_notes(tmp_path, content):
    folder = run_folder(tmp_path)
    for path in folder.rglob("*.*"):
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    page = Page(write_report(folder).read_text())
    assert {"samples", "in-short", "autoencoder"} <= set(page.titles)
    for path in PICTURES[2:]:
        assert f"{path} is damaged" in page.text
    assert "Traceback" not in page.text and str(tmp_path) not in page.text
    assert write_card(folder).read_text().count("cannot be read") >= 1


def test_one_damaged_file_costs_one_part(tmp_path):
    folder = run_folder(tmp_path)
    put(folder, "evaluation/evaluation.json", "{")
    put(folder, "evaluation/by_label.png", "no picture")
    page = Page(write_report(folder).read_text())
    assert "evaluation/evaluation.json is damaged" in page.text
    assert "evaluation/by_label.png is damaged" in page.text
    assert page.tags.count("img") == len(PICTURES) - 1 + 2
    assert "nearest-training-examples" in page.titles


def test_a_new_kind_of_result_is_one_row(tmp_path, monkeypatch):
    section = report.Section("Budget", "monge verify RUN", (lambda folder: "<p>of W2</p>",))
    monkeypatch.setattr(report, "SECTIONS", [*SECTIONS, section])
    page = Page(write_report(tmp_path).read_text())
    assert page.titles[0] == "budget" and "of W2" in page.text


def test_rows_without_an_interval_are_shown(tmp_path):
    nan = float("nan")
    few = "withheld: 10 examples cannot give the covariance of 20 numbers"
    row = Row("W2", nan, (nan, nan), "none", nan, {"gaussian": nan}, 10, {}, note=few)
    flat = Row("same", 1.0, (1.0, 1.0), "none", 1.0, {"gaussian": 1.0}, 10, {})
    table = json.loads(Table([row, flat]).to_json())
    put(tmp_path, "evaluation/evaluation.json", {"table": table, "verdicts": []})
    page = Page(write_report(tmp_path).read_text())
    assert few in page.text and "[–, –]" in page.text and "as monge writes it" not in page.text


def test_writing_leaves_one_file_and_replaces_it(tmp_path):
    assert write_report(tmp_path) == tmp_path / "report.html"
    put(tmp_path, "cost.json", {"train_s": 98.2})
    write_report(tmp_path)
    assert "98 s" in (tmp_path / "report.html").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cost.json", "report.html"]


@pytest.mark.parametrize("write", [write_report, write_card])
def test_a_folder_that_is_not_there_is_told(tmp_path, write):
    with pytest.raises(UserError, match="no such run folder"):
        write(tmp_path / "none")


def test_the_card_has_front_matter_use_and_numbers(tmp_path):
    card = write_card(run_folder(tmp_path / "digits-8c41f0aa")).read_text()
    _, front, body = card.split("---\n", 2)
    values = yaml.safe_load(front)
    assert values["library_name"] == "monge" and "flow-matching" in values["tags"]
    assert 'monge.load("digits-8c41f0aa")' in body and "run.sample(16" in body
    line = next(line for line in body.splitlines() if "energy distance" in line)
    assert line.split("|")[2:-1] == [
        " **0.0312** ", " 0.0241 to 0.0390 ", " 0.0118 ", " 0.412 ", " 0.0102 ", " 360 ",
    ]  # fmt: skip
    assert "![Samples](evaluation/by_label.png)" in body
    assert "Not stated by the author." in body


def test_the_card_of_a_run_that_was_not_evaluated(tmp_path):
    card = write_card(tmp_path).read_text()
    assert "Not measured yet" in card and "Not stated by the author." in card
