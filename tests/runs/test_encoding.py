"""Data to noise and back: the round trip, labels, sources, files, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from remade import BOTH_WAYS, MAP, NETWORK, remade

from monge.autoencoders import reconstruct
from monge.cli import main
from monge.errors import UserError
from monge.fitting.train import train
from monge.runs.run import Run
from monge.runs.spec import TrainSpec
from monge.sampling.encoded import Encoded, load
from monge.sampling.encoding import spherical


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b).norm() / b.norm()).detach())


@pytest.fixture
def images(digits_run: Run) -> torch.Tensor:
    return digits_run.data().heldout[:7]


def test_there_and_back_is_the_reconstruction_to_the_order_of_the_solver(
    digits_run: Run, images: torch.Tensor
) -> None:
    # Random weights on features that turn a thousand times are not smooth in time.
    run = remade(digits_run, network=f"{NETWORK},time_scale=5")
    expected = reconstruct(run.autoencoder, images)
    errors = []
    for steps in (10, 20, 40):
        how = {"solver": "heun", "steps": steps}
        there = run.encode(images, label="3", **how)
        assert float((there.z - run.encode(images, "latent").z).abs().mean()) > 0.3
        again = run.decode(there, **how).x
        errors.append(relative(again, expected))
        assert there.info["round_trip_rms"] < 0.2
    # A solver of order 2: half the step, a quarter of the error.
    assert errors[2] < 2e-3 and errors[0] > 3 * errors[1] > 9 * errors[2]
    assert relative(run.decode(run.encode(images, "latent")).x, expected) < 1e-6


def test_labels_are_the_sources_by_name_and_shared_both_ways(digits_run: Run) -> None:
    run = remade(digits_run)
    data = run.data()
    found = run.encode("digits", steps=4)
    assert found.label is not None and data.train_label is not None
    assert len(found) == 1797 and torch.equal(found.label[:1438], data.train_label)
    unlabelled = run.encode(data.train[:5], steps=4)
    assert unlabelled.label is not None and unlabelled.label.tolist() == [-1] * 5
    assert relative(unlabelled.z, found.z[:5]) > 1e-3
    same = run.encode(data.train[:5], steps=4, label=data.train_label[:5])
    torch.testing.assert_close(same.z, found.z[:5])
    assert len(run.encode("digits", "latent", limit=3)) == 3


def test_the_way_back_is_guided_as_the_way_there(
    digits_run: Run, images: torch.Tensor, tmp_path: Path
) -> None:
    run = remade(digits_run)
    run.encode(images, label="3", steps=4, guidance=2.0).save(tmp_path / "there.npz")
    there = load(tmp_path / "there.npz", run)
    back = run.decode(there, steps=4)
    assert back.info["guidance"] == 2
    assert torch.equal(back.x, run.decode(there, steps=4, guidance=2.0).x)
    assert not torch.equal(back.x, run.decode(there, steps=4, guidance=1.0).x)


def test_neither_a_run_folder_nor_a_flow_for_latents_is_taken(
    digits_run: Run, images: torch.Tensor
) -> None:
    with pytest.raises(UserError, match="is a run folder, not data"):
        digits_run.encode(digits_run.folder)
    with pytest.raises(UserError, match="leave out steps"):
        digits_run.decode(digits_run.encode(images, "latent"), steps=3)


def test_a_folder_of_two_images_in_its_order(digits_run: Run, tmp_path: Path) -> None:
    run, folder = remade(digits_run), tmp_path / "two"
    data = run.data().heldout[:2]
    for k, image in enumerate(data):
        (folder / "93"[k]).mkdir(parents=True)
        pixels = ((image[0] + 1) * 127.5).round().byte().numpy()
        Image.fromarray(pixels).save(folder / "93"[k] / "image.png")
    found = run.encode(folder, steps=4)
    assert found.label is not None and found.label.tolist() == [3, 9]
    expected = run.encode(data.flip(0), steps=4, label=torch.tensor([3, 9]))
    torch.testing.assert_close(found.z, expected.z, atol=0.02, rtol=0.02)
    (folder / "9").rename(folder / "nine")
    with pytest.raises(UserError, match=r"label 'nine' is none of this run's.*--label"):
        run.encode(folder)
    assert run.encode(folder, "latent", label="9").label is not None


def test_maps_go_back_only_if_they_were_trained_to(digits_run: Run, images: torch.Tensor) -> None:
    with pytest.raises(UserError, match="--pairs triangle:both=true"):
        remade(digits_run, **MAP).encode(images)
    run = remade(digits_run, 0.1, **BOTH_WAYS)
    found = run.encode(images, steps=2)
    z = run.encode(images, "latent").z
    jump = run.flow(steps=2)
    expected = jump(z, 1.0, 0.0, {"label": torch.full((7,), -1)})
    torch.testing.assert_close(found.z, expected)
    assert found.info["solver"] == "map" and found.info["steps"] == 2
    solved = remade(digits_run, 0.1, **MAP).encode(images, solver="heun", steps=20)
    assert solved.info["round_trip_rms"] < 1e-2


def test_tables_keep_their_columns_and_conditions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["length,width,kind,year"]
    rows += [
        f"{a:.2f},{b:.3f},{'xy'[k % 2]},{k % 5}"
        for k, (a, b) in enumerate(rng.normal(size=(60, 2)))
    ]
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(rows))
    spec = TrainSpec(
        data=str(file),
        label_column="kind",
        condition_columns="year",
        network="mlp:width=16,depth=1",
        steps=5,
        batch=16,
    )
    run = train(spec, out=tmp_path / "run")
    found = run.encode(file, steps=40)
    assert found.vector is not None and len(found) == 60
    path = found.save(tmp_path / "noise.npz")
    table = run.decode(path, steps=40).table()
    assert table.column_names == ["length", "width", "kind", "year"]
    assert table["kind"].to_pylist() == ["xy"[k % 2] for k in range(60)]
    assert table["year"].to_pylist() == [k % 5 for k in range(60)]
    lengths = [float(row.partition(",")[0]) for row in rows[1:]]
    assert table["length"].to_pylist() == pytest.approx(lengths, abs=0.011)


def test_files_are_read_back_and_fit_other_runs_by_name(digits_run: Run, tmp_path: Path) -> None:
    z = torch.randn(3, 2, 4, 4)
    own = Encoded("noise", z, torch.tensor([2, -1, 0]), ("zero", "one", "7"))
    path = own.save(tmp_path / "a.npz")
    with pytest.raises(UserError, match="is there already"):
        own.save(path)
    with pytest.raises(UserError, match="label 'zero' is none"):
        load(path, digits_run)
    named = Encoded("noise", z, torch.tensor([2, -1, 0]), ("5", "one", "7"))
    read = load(named.save(tmp_path / "b.npz"), digits_run)
    assert read.label is not None and read.label.tolist() == [7, -1, 5]
    assert torch.equal(read.z, z)
    np.savez(tmp_path / "c.npz", noise=z.numpy())
    bare = load(tmp_path / "c.npz", digits_run)
    assert bare.label is not None and bare.label.tolist() == [-1] * 3


def test_spherical_interpolation_keeps_the_angle_and_the_length() -> None:
    a, b = torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    third = spherical(a, b, torch.tensor(1 / 3))
    expected = [2 * math.cos(math.pi / 6), 2 * math.sin(math.pi / 6)]
    torch.testing.assert_close(third, torch.tensor([expected, [5 / 3, 0.0]]))
    assert torch.equal(spherical(a, b, torch.tensor(0.0)), a)
    torch.testing.assert_close(spherical(a, b, torch.tensor(1.0)), b, atol=1e-6, rtol=0)


def test_interpolation_begins_and_ends_at_the_rows(digits_run: Run, images: torch.Tensor) -> None:
    run = remade(digits_run)
    found = run.encode(images[:3], label=torch.tensor([1, 5, 5]), steps=20)
    rows = run.decode(found, steps=20).x
    first, second = run.interpolate(found, 5, steps=20)
    assert len(first) == len(second) == 5
    torch.testing.assert_close(torch.stack([first.x[0], first.x[-1]]), rows[:2])
    torch.testing.assert_close(torch.stack([second.x[0], second.x[-1]]), rows[1:])
    assert first.label is not None and first.label.tolist() == [1, 1, 1, 5, 5]
    latents = run.encode(images[:2], "latent")
    (middle,) = run.interpolate(latents, 3)
    torch.testing.assert_close(middle.z[1], latents.z.mean(0))


def test_verbs(digits_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file, out = str(digits_run.folder), tmp_path / "noise.npz", tmp_path / "out"
    assert main(["encode", run, "digits", "--limit", "12", f"--out={file}", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known["n"] == 12 and known["round_trip_rms"] < 1e-2
    assert main(["encode", run, "digits", f"--out={file}"]) == 2
    argv = ["decode", run, str(file), f"--out={out}", "--format=png,npz", "-n", "4"]
    assert main(argv) == 0 and main(argv) == 2
    archive = np.load(out / "samples.npz", allow_pickle=False)
    assert archive["arr_0"].shape == (4, 8, 8, 1)
    assert archive["arr_1"].tolist() == np.load(file)["label"][:4].tolist()
    assert len(list(out.glob("0*.png"))) == 4
    between = tmp_path / "between"
    assert main(["decode", run, str(file), "-n4", "--interpolate=6", f"--out={between}"]) == 0
    pictures = sorted(path.name for path in between.iterdir())
    assert pictures == [f"between-{k}-{k + 1}.png" for k in range(3)]
    width, height = Image.open(between / pictures[0]).size
    assert width > 5 * height


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no such file"),
        ({"noise": np.zeros((2, 3))}, "this run takes (N, 2, 4, 4)"),
        ({"noise": np.zeros((0, 2, 4, 4))}, "N at least 1"),
        ({"x": np.zeros((2, 2, 4, 4))}, "one of the arrays noise and latent"),
        ({"noise": np.full((2, 2, 4, 4), np.nan)}, "finite"),
        ({"noise": np.zeros((2, 2, 4, 4)), "label": np.array([1])}, "1 rows of label for 2"),
        ({"noise": np.zeros((1, 2, 4, 4)), "label": np.array([10])}, "lie in -1..9"),
        ({"noise": np.zeros((1, 2, 4, 4)), "label": np.array([0.5])}, "whole numbers"),
        ({"noise": np.array([[{}]], dtype=object)}, "cannot read"),
        ({"latent": np.zeros((1, 2, 4, 4)), "vector": np.zeros((1, 1))}, "vector should have 0"),
    ],
)
def test_bad_files_are_refused(
    arrays: dict[str, np.ndarray],
    message: str,
    digits_run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "bad.npz"
    if arrays:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    out = tmp_path / "out"
    assert main(["decode", str(digits_run.folder), str(file), f"--out={out}"]) == 2
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown and not out.exists()


def test_other_bad_input_is_refused(
    digits_run: Run, table_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*argv: object) -> str:
        assert main([*map(str, argv), f"--out={tmp_path / 'out'}"]) == 2
        shown = capsys.readouterr().err
        assert "Traceback" not in shown
        return shown

    run = digits_run.folder
    colour = tmp_path / "colour.npz"
    np.savez(colour, x=np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8))
    assert "no such file" in refused("encode", run, "nowhere.npz")
    assert "examples have shape" in refused("encode", run, colour)
    assert "takes rows of a table" in refused("encode", table_run.folder, "digits")
    assert "takes images" in refused("encode", run, "target:mixture:dim=2,modes=3")
    assert "limit must be at least 1" in refused("encode", run, "digits", "--limit=-3")
    assert "unknown label" in refused("encode", run, "digits", "--label=ten")
    file = Encoded("noise", torch.randn(1, 2, 4, 4)).save(tmp_path / "one.npz")
    assert "at least two rows" in refused("decode", run, file, "--interpolate=3")
    assert "at least 2 frames" in refused("decode", run, file, "--interpolate=1")
    assert "at least 1" in refused("decode", run, file, "-n0")
    rows = Encoded("noise", torch.randn(2, 2)).save(tmp_path / "rows.npz")
    assert "draws pictures" in refused("decode", table_run.folder, rows, "--interpolate=3")
    assert not (tmp_path / "out").exists()
