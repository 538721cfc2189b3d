"""A folder of images from first command to report; weights and autoencoders of other runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from monge import autoencoders
from monge.cli import main
from monge.data import cache
from monge.data.array_data import from_arrays
from monge.data.arrays import mirrored
from monge.errors import UserError
from monge.fitting.resolve import resolve
from monge.fitting.train import train
from monge.runs.run import Run
from monge.runs.spec import TrainSpec

TINY = TrainSpec(
    autoencoder="conv:down=2,channels=2,width=8,blocks=1,batch=16",
    autoencoder_steps=8,
    network="transformer:width=16,depth=1,heads=2,patch=2",
    steps=6,
    batch=16,
    sample_every=6,
    log_every=2,
    grid="uniform:n=2",
)


def folder_of_images(
    folder: Path,
    names: tuple[str, ...] = ("cat", "dog"),
    n: int = 20,
    side: int = 16,
    seed: int = 0,
) -> Path:
    rng = np.random.default_rng(seed)
    for k, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            pixels[:2] //= 1 + k
            image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
            image.save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_images(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    told: list[str] = []
    found = train(
        replace(TINY, data=str(photos)), out=tmp_path_factory.mktemp("runs") / "a", say=told.append
    )
    (found.folder / "told.txt").write_text("\n".join(told))
    return found


def test_a_folder_becomes_a_run(run: Run, photos: Path) -> None:
    report = json.loads((run.folder / "data_report.json").read_text())
    assert report["labels"] == {"cat": 20, "dog": 20}
    assert report["formats"] == {"PNG": 40} and report["sizes"] == {"16x16": 40}
    assert (report["training"], report["held_out"]) == (32, 8)
    assert run.label_names == ["cat", "dog"] and run.facts.shape == (3, 16, 16)
    rows = load_file(run.folder / "split.safetensors")
    assert sorted([*rows["train"].tolist(), *rows["heldout"].tolist()]) == list(range(40))
    told = (run.folder / "told.txt").read_text()
    assert "32 training images are few" in told and "latent statistics" in told
    assert "40 images (40 PNG" in told and "held-out RMSE" in told
    # The rows name the files: row r of the sorted folder is the image that is held out.
    files = sorted(photos.rglob("*.png"), key=lambda p: str(p.relative_to(photos)))
    first = np.asarray(Image.open(files[int(rows["heldout"][0])])).transpose(2, 0, 1)
    expected = torch.from_numpy(first.copy()).float() / 127.5 - 1
    torch.testing.assert_close(run.data().heldout[:1][0], expected)


def test_few_images_are_mirrored_and_dropped(run: Run, photos: Path) -> None:
    """Colour images fewer than 500; grey ones, and more, are left as they are."""
    data = run.data()
    spec = resolve(TrainSpec(data=str(photos)), data)
    assert spec.flip == "yes" and "dropout" in spec.network
    assert run.spec.flip == "yes"
    kept = {e.name: e for e in cache.entries() if e.kind == "latents"}
    assert any(e.n == 2 * len(data.train) for e in kept.values())
    assert resolve(TrainSpec(data=str(photos), flip="no"), data).flip == "no"
    vectors = resolve(TrainSpec(data=str(photos), autoencoder="pca:dim=3"), data)
    assert vectors.network == "mlp:dropout=0.2"  # a transformer needs a grid
    for sides, network in ((16, "transformer:patch=2"), (4, "transformer"), (9, "transformer")):
        many = from_arrays(np.random.default_rng(0).normal(size=(700, 1, sides, sides)) / 9)
        assert resolve(TrainSpec(autoencoder="identity"), many).network == network
    with pytest.raises(UserError, match="flip is for images"):
        train(TrainSpec(data="target:gaussian:dim=2", flip="yes", steps=1))


def test_continuing_encodes_nothing_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr("monge.latents.cache._Encoding.shards", fail)
    monkeypatch.setattr("monge.data.images.decoding.decode", fail)
    again = train(replace(run.spec, steps=8), out=run.folder)
    assert again.spec.steps == 8


def test_other_labels_and_another_size_from_a_trained_run(run: Run, tmp_path: Path) -> None:
    other = folder_of_images(tmp_path / "other", ("dog", "emu"), side=32, seed=5)
    told: list[str] = []
    spec = replace(
        TINY, data=str(other), init_from=str(run.folder), autoencoder="auto", network="auto"
    )
    new = train(replace(spec, steps=1, lr=1e-9, ema=0.0), out=tmp_path / "run", say=told.append)
    assert new.spec.network == run.spec.network
    assert new.facts.shape == (3, 32, 32) and new.autoencoder.latent_shape == (2, 16, 16)
    old_weights = load_file(run.folder / "ema.safetensors")
    new_weights = load_file(tmp_path / "run" / "model.safetensors")
    name = "conditioning.label.weight"
    # Row of dog: second there, first here; the null label last; emu is new.
    torch.testing.assert_close(new_weights[name][0], old_weights[name][1], atol=1e-6, rtol=0)
    torch.testing.assert_close(new_weights[name][-1], old_weights[name][-1], atol=1e-6, rtol=0)
    block = "blocks.0.attention.qkv.weight"
    torch.testing.assert_close(new_weights[block], old_weights[block], atol=1e-6, rtol=0)
    text = "\n".join(told)
    assert "positions: interpolated from (4, 4) to (8, 8)" in text
    assert "not loaded: conditioning.label.weight of label 'emu'" in text
    assert "domain shift" in text


def test_an_autoencoder_is_tuned_further(run: Run, photos: Path, tmp_path: Path) -> None:
    arguments = ["autoencoder", str(photos), "--autoencoder", TINY.autoencoder]
    assert main([*arguments, "--steps", "30", "--out", str(tmp_path / "first")]) == 0
    more = ["--steps", "30", "--init-from", str(tmp_path / "first"), "--out", str(tmp_path / "b")]
    assert main([*arguments, *more]) == 0
    quality = [
        json.loads((tmp_path / k / "autoencoder/quality.json").read_text()) for k in ("first", "b")
    ]
    assert quality[1]["rmse"] < quality[0]["rmse"]


def test_an_autoencoder_of_other_data_reports_its_shift(tmp_path: Path, photos: Path) -> None:
    bright = tmp_path / "bright"
    for path in photos.rglob("*.png"):
        target = bright / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).point(lambda v: 128 + v // 2).save(target)
    arguments = ["autoencoder", str(photos), "--autoencoder", TINY.autoencoder]
    assert main([*arguments, "--steps", "40", "--out", str(tmp_path / "ae")]) == 0
    told: list[str] = []
    spec = replace(TINY, data=str(bright), autoencoder=str(tmp_path / "ae"))
    new = train(spec, out=tmp_path / "run", say=told.append)
    kept = json.loads((new.folder / "autoencoder" / "quality.json").read_text())
    own = json.loads((tmp_path / "ae" / "autoencoder" / "quality.json").read_text())
    assert kept["home"]["rmse"] == own["rmse"]
    # Brighter by half the range: the latents' means move, and that is what is said.
    line = next(text for text in told if text.startswith("domain shift"))
    moved = float(line.split("moved by up to ")[1].split(" ")[0])
    assert moved > 0.3
    stored = autoencoders.load(new.folder / "autoencoder")
    assert isinstance(stored, autoencoders.Standardised)
    # Each run has statistics of its own: its latents have deviation 1 in its own units.
    z = stored.encode(mirrored(new.data().train)[:])
    spread = (z.mean.var((0, 2, 3), unbiased=False) + z.logvar.exp().mean((0, 2, 3))).sqrt()
    torch.testing.assert_close(spread, torch.ones(2), atol=1e-3, rtol=0)


def test_mirrored_latents_are_of_mirrored_images(run: Run) -> None:
    from monge.latents.cache import latents_of

    data = run.data()
    found = latents_of(
        run.autoencoder, data.train, data.fingerprint, "x", run.device, lambda _: None, flip=True
    )
    n = len(data.train)
    rows = torch.tensor([3, n + 3])
    x = data.train[rows[:1]]
    bare = run.autoencoder.autoencoder
    expected = bare.encode(torch.cat([x, x.flip(-1)]))
    torch.testing.assert_close(found.rows(rows).mean, expected.mean, atol=1e-5, rtol=1e-4)


def test_evaluation_of_a_folder_run_puts_copies_first(run: Run) -> None:
    assert main(["evaluate", str(run.folder), "-n", "20", "--steps", "2"]) == 2  # 8 held out
    html = (run.folder / "report.html").read_text()
    assert "What was read" in html and "32 training images are few" in html


def test_the_cache_is_listed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"images", "latents"} <= {entry["kind"] for entry in listed}
    assert all(entry["whole"] for entry in listed)
    assert main(["cache", "clear", "nothing-like-it"]) == 2
    assert "no cache entry 'nothing-like-it'" in capsys.readouterr().err
