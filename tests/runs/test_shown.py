"""What the report draws of columns, of planes and of trajectories, against values found by hand."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_report import verified

from monge.cli import main
from monge.data import sources
from monge.data.columns.schema import TableCodec
from monge.data.reading import Reading
from monge.data.tables.tables import from_table
from monge.errors import UserError
from monge.evaluation.evaluate import table_of
from monge.evaluation.plane import is_plane, shown_plane
from monge.evaluation.shown_columns import association, shown_columns
from monge.report.sections import columns
from monge.report.sections.film import film
from monge.report.sections.verify_figures import waterfall_figure
from monge.runs.run import Run
from monge.runs.spec import TrainSpec
from monge.sampling.trajectory import gif, trajectory
from monge.system.files import write_json
from monge.tensors import noise


@pytest.fixture(scope="module")
def shown() -> dict:
    """Samples of a table, of which a tenth lies beyond it and no row is blue."""
    import pyarrow as pa

    rng = np.random.default_rng(0)
    colour = rng.choice(["red", "green", "blue"], 400, p=[0.5, 0.3, 0.2])
    size = rng.integers(1, 5, 400)
    table = pa.table({"a <b>": rng.uniform(0, 1, 400), "size": size, "colour": colour})
    data = from_table(table, Reading())
    codec = data.codec
    assert isinstance(codec, TableCodec)
    x = data.train[:100].clone()
    at = {name: j for j, name in enumerate(codec.coordinate_names)}
    x[:10, at["a <b>"]] += 5
    x[:, at["colour=blue"]] = -1
    found = table_of(data, x, data.train[:], data.heldout[:], {})
    assert found is not None
    return shown_columns(found, codec)


def test_every_column_has_the_shares_of_its_values(shown: dict) -> None:
    by_name = {c["name"]: c for c in shown["columns"]}
    assert list(by_name) == ["a <b>", "size", "colour"], "as in the file, in its order"
    number, size, colour = by_name.values()
    assert number["beyond"]["samples"] == 10
    assert sum(number["samples"]) == pytest.approx(0.9, abs=0.021)
    assert sum(number["heldout"]) == pytest.approx(1, abs=0.05) and len(number["samples"]) == 24
    assert size["edges"] == [0.5, 1.5, 2.5, 3.5, 4.5], "a bin for each value of a small grid"
    assert colour["values"] == ["blue", "green", "red"]
    assert colour["samples"][0] == 0 and sum(colour["samples"]) == pytest.approx(1)
    assert sum(colour["heldout"]) == pytest.approx(1) and 0.1 < colour["train"][0] < 0.3
    json.dumps(shown, allow_nan=False)


def test_dates_times_and_durations_read_as_in_the_file(tmp_path: Path) -> None:
    days = [f"{1 + k % 28:02d}.{1 + k % 12:02d}.2023" for k in range(60)]
    rows = [f"{day};{k % 24:02d}:30;2020-01-01 {k % 24:02d}:00:00" for k, day in enumerate(days)]
    path = tmp_path / "when.csv"
    path.write_text("day;time;at\n" + "\n".join(rows) + "\n")
    data = sources.load(str(path), TrainSpec(data=str(path)))
    found = table_of(data, data.train[:], data.train[:], data.heldout[:], {})
    assert found is not None and isinstance(data.codec, TableCodec)
    shown = shown_columns(found, data.codec)
    day, time, at = (c["texts"] for c in shown["columns"])
    assert day["range"] == ["01.01.2023", "24.12.2023"]
    assert day["mean"][0].endswith(".2023") and day["deviation"][0].endswith(" days")
    assert time["ends"][0] >= "00:00" and time["range"] == ["00:30", "23:30"]
    assert time["deviation"][0].endswith(" h")
    assert at["range"] == ["2020-01-01 00:00:00", "2020-01-01 23:00:00"]
    write_json(tmp_path / "evaluation" / "columns.json", shown)
    page = columns.every(tmp_path)
    assert page is not None and day["ends"][0] in page and "19,3" not in page


def test_associations_are_those_of_the_textbook() -> None:
    rng = np.random.default_rng(1)
    x, codes = rng.normal(size=300), rng.integers(0, 3, 300)
    y = x + rng.normal(size=300)
    assert association(x, y, False, False) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-4)
    shifted = x + 2 * codes
    groups = [shifted[codes == k] for k in range(3)]
    between = sum(len(g) * (g.mean() - shifted.mean()) ** 2 for g in groups)
    eta = math.sqrt(between / ((shifted - shifted.mean()) ** 2).sum())
    assert association(codes, shifted, True, False) == pytest.approx(eta, abs=1e-4)
    assert association(shifted, codes, False, True) == pytest.approx(eta, abs=1e-4)
    from scipy.stats.contingency import association as cramer

    other = np.where(rng.random(300) < 0.7, codes, rng.integers(0, 3, 300))
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (codes, other), 1)
    expected = cramer(counts, "cramer", correction=False)
    assert association(codes, other, True, True) == pytest.approx(expected, abs=1e-4)


def test_a_plane_has_the_velocity_and_the_density_of_the_run(table_run: Run) -> None:
    data = table_run.data()
    assert is_plane(table_run, data)
    found = shown_plane(table_run, data, ["x0", "x1"], 0)
    assert len(found["walks"]) == len(found["t"]) == len(found["arrows"]) == 21
    # Arrows: the displacement of a decoded latent along the field.
    at = torch.tensor(found["at"])[:5]
    z = table_run.autoencoder.encode(at).mean
    v = table_run.field(z, found["t"][3], {"label": torch.full((5,), -1)})
    step = 1e-3
    moved = (table_run.autoencoder.decode(z + step * v) - table_run.autoencoder.decode(z)) / step
    drawn = torch.tensor(found["arrows"][3])[:5]
    assert torch.allclose(drawn, moved.detach(), rtol=2e-2, atol=2e-2)
    # The density integrates to what lies in the picture.
    (x0, x1), (y0, y1) = found["box"]
    cell = (x1 - x0) * (y1 - y0) / found["density"]["cells"] ** 2
    for side in ("model", "truth"):
        values = [-math.inf if v is None else v for v in found["density"][side]]
        assert 0.85 < cell * sum(map(math.exp, values)) < 1.05, side
    json.dumps(found, allow_nan=False)


def test_a_plane_is_in_the_units_of_the_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    middles, spread = np.array([2015.0, -3e4]), np.array([0.5, 800.0])
    rows = middles + spread * rng.normal(size=(300, 2))
    rows = np.stack([rows[:, 0].round(3), rows[:, 1].round(0)], 1)
    pd.DataFrame(rows, columns=["a", "b"]).to_csv(tmp_path / "t.csv", index=False)
    small = ["--network=mlp:width=8,depth=1", "--steps=1", "--grid=uniform:n=4", "--threads=1"]
    assert main(["train", str(tmp_path / "t.csv"), *small, f"--out={tmp_path / 'run'}"]) == 0
    run = Run.load(tmp_path / "run")
    data = run.data()
    found = shown_plane(run, data, ["a", "b"], 0)
    assert data.rows is not None
    held = rows[data.rows[1].numpy()]
    real = np.array(found["real"])
    # A year keeps its days: points are written to a ten-thousandth of the picture.
    assert (np.abs(real - held[: len(real)]).max(0) < spread * 2e-3).all()
    for walk in (found["walks"][0], found["walks"][-1], found["at"]):
        away = (np.mean(walk, 0) - middles) / spread
        assert np.abs(away).max() < 1.5  # an untrained flow is about the data's normal law
    low, high = np.array(found["box"]).T
    assert ((low < middles) & (middles < high) & (high - low < 10 * spread)).all()


def test_a_film_holds_its_data_as_json_that_ends_no_script() -> None:
    names = ("</script><b>", "b")
    text = film([0.0, 1.0], [[[0, 0]], [[1, 1]]], [[1, 0]], names, "l", at=[[0, 0]],
                arrows=[[[3, 4]], [[0, 1]]])  # fmt: skip
    found = re.search(r"application/json'>(.*?)</script>", text, re.DOTALL)
    assert found is not None
    value = json.loads(found[1])
    assert value["names"] == list(names) and value["arrows"][0] == [[0.6, 0.8]]
    for piece in ("type='range'", "<button type='button'>Play", "aria-label='time t", "<output>"):
        assert piece in text


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("many", [1, 7])
def test_no_label_of_the_waterfall_meets_another(many: int, scale: float) -> None:
    report = verified("data units")
    term = report["terms"][0]  # type: ignore[index]
    report["terms"] = [
        {**term, "name": f"term {k} with a name", "value": scale * (k + 1), "stderr": scale / 9}
        for k in range(many)
    ]
    report["sum"] = {"value": scale * many, "stderr": scale}
    report["lower_bounds"] = {
        name: {"value": scale * many * (0.97 + k / 100), "stderr": scale / 99}
        for k, name in enumerate(("Gelbrich", "sliced", "one more"))
    }
    figure = waterfall_figure(report)
    figure.canvas.draw()
    (ax,) = figure.axes
    texts = [*ax.texts, *ax.get_yticklabels()]
    boxes = [t.get_window_extent() for t in texts if t.get_text()]
    assert len(boxes) == 2 * (many + 1 + 3)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    bars = ax.get_window_extent()
    assert not any(box.overlaps(bars) for box in boxes), "nor a bar or a line"


def test_a_trajectory_ends_in_the_samples(table_run: Run, digits_run: Run) -> None:
    for run, n in ((table_run, 300), (digits_run, 3)):
        times, states = trajectory(run, n, frames=3, seed=5, steps=4)
        assert times == pytest.approx([0, 0.5, 1])
        assert torch.equal(states[-1], run.sample(n, seed=5, steps=4).x)
        samples = run.sample(n, seed=5, steps=4)
        cond = run.cond_of(run.condition(samples.label, None) or {})
        x0 = noise(5, 0, n, tuple(run.autoencoder.latent_shape), "sample")
        half = run.flow(steps=4)(x0, 0.0, 0.5, cond)
        middle = run.hardened(run.autoencoder.decode(half))
        assert torch.allclose(states[1], middle, atol=1e-5)
        image = Image.open(io.BytesIO(gif(run, times, states)))
        assert image.format == "GIF" and getattr(image, "n_frames", 1) == 3
        assert image.info["loop"] == 0
    with pytest.raises(UserError, match="at least 2 frames"):
        trajectory(table_run, 3, frames=1)
