"""The page on scale holds what its formulas give, and the formulas the bytes of real files."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from monge.autoencoders.conv import ConvSpec
from monge.couplings import Independent
from monge.data import sources
from monge.latents import cache as latent_cache
from monge.latents.batches import LatentBatches
from monge.networks.transformer import TransformerSpec
from monge.objectives.flow_matching import FlowMatching
from monge.training import checkpoint
from monge.training.loop import LoopSpec, fit

DOCS = Path(__file__).parents[1] / "docs"

HEADERS = 2000
"""Bytes that a file may have beside its numbers."""


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    if not DOCS.exists():
        pytest.skip("the documentation is not beside the tests")
    found = importlib.util.spec_from_file_location("scale", DOCS / "scale.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["scale"] = module  # dataclasses look themselves up there
    found.loader.exec_module(module)
    return module


def test_the_page_holds_the_computed_tables(scale: ModuleType) -> None:
    page = (DOCS / "scale.md").read_text()
    for table in scale.tables():
        assert table in page


def test_formulas_give_the_bytes_of_files(
    scale: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(0, 255, (300, 16, 16, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    data = sources.load(str(tmp_path / "photos"))
    autoencoder = ConvSpec(down=2, channels=4, width=8, blocks=1).build(data.shape).eval()
    images = scale.Images(data.shape, autoencoder.latent_shape)

    def written(kind: str) -> list[int]:
        return [p.stat().st_size for p in (tmp_path / "cache" / kind).glob("*/*.safetensors")]

    found = written("images")
    assert len(found) == images.pixel_shards(300) == 1
    assert 0 < sum(found) - images.pixel_bytes(300) < HEADERS

    monkeypatch.setattr(latent_cache, "BLOCK_BYTES", 2**18)
    latents = latent_cache.latents_of(
        autoencoder, data.train, "fingerprint", "photos", torch.device("cpu"), print
    )
    found, n = written("latents"), len(data.train)
    assert latents.rows(torch.arange(1)).logvar is not None
    assert len(found) == images.latent_shards(n)
    assert 0 < sum(found) - images.latent_bytes(n) < HEADERS * len(found)

    spec = TransformerSpec(width=32, depth=1, heads=2)
    network = spec.build(images.latent, 10)
    objective = FlowMatching(coupling=Independent())
    batches = LatentBatches(latents, {"label": torch.zeros(n).long()}, objective, 8, 0)
    fit(network, objective.loss, batches, LoopSpec(steps=1, device="cpu"), folder=tmp_path / "run")
    (kept,) = (tmp_path / "run" / checkpoint.STATE).iterdir()
    total = sum(p.stat().st_size for p in kept.iterdir())
    assert 0 < total - scale.checkpoint_bytes(*scale.parameters(spec, images, 10)) < 20_000
