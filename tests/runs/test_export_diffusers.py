"""A run in diffusers: loaded by its own loader, the same samples from the same noise."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from remade import GUIDED, MAP, remade

import tiny_models
from monge.autoencoders import standardise
from monge.components import build
from monge.errors import UserError
from monge.export.diffusers import difference
from monge.export.run import export_run
from monge.fields import Guided
from monge.flows import Integrated
from monge.runs.run import Run
from monge.solvers import Euler
from monge.times import Uniform

diffusers = pytest.importorskip("diffusers")

KINDS: dict[str, dict[str, Any]] = {
    "velocity": {},
    "guided": {"guidance": 2.0},
    "shifted grid": {"grid": "shifted:n=6,shift=3"},
    "data": {"output": "data"},
    "noise under gvp": {"output": "noise", "path": "trigonometric"},
    "map": MAP,
    "guided map": GUIDED,
}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where diffusers copies the modules of a folder."""
    from diffusers.utils import dynamic_modules_utils

    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def loaded(folder: Path) -> Any:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_the_runs_own(kind: str, digits_run: Run, tmp_path: Path) -> None:
    run = remade(digits_run, 0.1, **KINDS[kind])
    folder, _ = export_run(run, "diffusers", tmp_path / "out")
    pipeline = loaded(folder)
    for steps in (1, 2, 10):
        assert difference(run, pipeline, steps) < 1e-5
    other = remade(digits_run, 0.11, **KINDS[kind])
    assert difference(other, pipeline, 2) > 1e-3


def test_the_clock_and_the_arithmetic_by_hand(digits_run: Run, tmp_path: Path) -> None:
    run = remade(digits_run)
    folder, _ = export_run(run, "diffusers", tmp_path / "out")
    pipeline = loaded(folder)
    x, label = torch.randn(3, 2, 4, 4), torch.tensor([3, 0, -1])
    slope = pipeline.transformer(x, torch.tensor(750.0), label).sample
    torch.testing.assert_close(-slope, run.field(x, 0.25, {"label": label}))
    flow = Integrated(Guided(run.field, 1.5), Euler(), Uniform(5))
    z = flow(x, 0.0, 1.0, {"label": label})
    found = pipeline(
        latents=x,
        class_labels=["3", "0", -1],
        num_inference_steps=5,
        guidance_scale=1.5,
        output_type="latent",
    )
    torch.testing.assert_close(found.images, z, atol=1e-5, rtol=1e-5)
    pictures = pipeline(4, "7", generator=torch.Generator().manual_seed(0)).images
    assert [picture.size for picture in pictures] == [(8, 8)] * 4
    with pytest.raises(UserError, match="unknown label"):
        pipeline(1, "eleven")


@pytest.mark.parametrize("kind", tiny_models.CONFIGS)
@pytest.mark.parametrize("channels", [1, 3])
def test_diffusers_autoencoders_are_in_their_own_format(
    kind: str, channels: int, digits_run: Run, tmp_path: Path
) -> None:
    model = tiny_models.save_diffusers(tmp_path / "model", kind)
    bare = build("autoencoder", f"diffusers:{model}").build((channels, 16, 16))
    examples = torch.rand((20, channels, 16, 16), generator=torch.Generator().manual_seed(0))
    run = dataclasses.replace(
        digits_run,
        autoencoder=standardise(bare, 2 * examples - 1),
        facts=dataclasses.replace(digits_run.facts, shape=(channels, 16, 16)),
    )
    run = remade(run)
    folder, found = export_run(run, "diffusers", tmp_path / "out")
    assert found["vae"] == kind
    assert json.loads((folder / "model_index.json").read_text())["vae"] == ["diffusers", kind]
    assert difference(run, loaded(folder), 3) < 1e-5
    own = getattr(diffusers, kind).from_pretrained(folder / "vae", use_safetensors=True)
    z = torch.randn(2, *run.autoencoder.latent_shape)
    torch.testing.assert_close(own.decode(z).sample, bare.model.decode(z).sample)


def test_there_is_no_pickle_in_the_folder(digits_run: Run, tmp_path: Path) -> None:
    folder, _ = export_run(remade(digits_run), "diffusers", tmp_path / "out")
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds == {".json", ".py", ".safetensors"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "ou:horizon=3", "output": "data"}, "ends at t = 0.999"),
        ({"grid": "uniform:n=4,stop=0.9", "final": "none"}, "ends at t = 0.9"),
        ({**MAP, "pairs": "to_data"}, "jumps to the data only"),
    ],
)
def test_walks_that_the_scheduler_cannot_take_are_refused(
    changes: dict[str, Any], message: str, digits_run: Run, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        export_run(remade(digits_run, **changes), "diffusers", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_name_in_folders_exported_earlier_leads_to_the_same_classes() -> None:
    from monge.export import diffusers_pipeline as now
    from monge.runs import diffusers_pipeline as earlier

    for name in ("MongePipeline", "MongeTransformer", "MongeAutoencoder"):
        assert getattr(earlier, name) is getattr(now, name)
