"""Autoencoders of diffusers, against its own arithmetic; what cannot be loaded is said."""

from __future__ import annotations

import json
import math
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny_models
from monge.autoencoders import from_diffusers, load, reconstruct, save, standardise
from monge.components import build
from monge.errors import UserError
from monge.tensors import stream

diffusers = pytest.importorskip("diffusers")

KINDS = list(tiny_models.CONFIGS)
FACTORS = {"AutoencoderKL": 2, "AutoencoderTiny": 4, "AutoencoderDC": 2}
WEIGHTS = "diffusion_pytorch_model.safetensors"

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("diffusers")
    return {kind: tiny_models.save_diffusers(home / kind, kind) for kind in KINDS}


@pytest.fixture
def folder(models: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of an AutoencoderKL that a test may damage."""
    return Path(shutil.copytree(models["AutoencoderKL"], tmp_path / "model"))


def images(*shape: int) -> Tensor:
    return torch.tanh(torch.randn(*shape, generator=stream(0, "images")))


# What they compute


@every_kind
@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 8, 16)], ids=["square", "wide"])
@torch.no_grad()
def test_scale_and_shift_are_diffusers_own_arithmetic(models, kind, shape):
    """Encoding is z = (raw - shift) * scale, decoding z / scale + shift, as in its pipelines."""
    x = images(4, *shape)
    model = getattr(diffusers, kind).from_pretrained(str(models[kind]))
    scale, shift = tiny_models.CONFIGS[kind]["scaling_factor"], model.config.get("shift_factor", 0)
    autoencoder = build("autoencoder", f"diffusers:{models[kind]}").build(shape)
    posterior = autoencoder.encode(x)
    said = model.encode(x)
    if kind == "AutoencoderKL":
        assert shift == 0.3
        noise = torch.randn(posterior.mean.shape, generator=stream(0, "noise"))
        raw = said.latent_dist.mean + said.latent_dist.std * noise
        torch.testing.assert_close(posterior.sample(noise), (raw - shift) * scale)
        raw = said.latent_dist.mode()
        std = (0.5 * posterior.logvar).exp()
        torch.testing.assert_close(std, said.latent_dist.std * scale)
    else:
        assert posterior.logvar is None
        raw = said.latents if kind == "AutoencoderTiny" else said.latent
    torch.testing.assert_close(posterior.mean, (raw - shift) * scale)
    torch.testing.assert_close(autoencoder.decode(posterior.mean), model.decode(raw).sample)
    factor = FACTORS[kind]
    assert autoencoder.latent_shape == (raw.shape[1], shape[1] // factor, shape[2] // factor)
    assert posterior.mean.shape[1:] == autoencoder.latent_shape


@every_kind
@torch.no_grad()
def test_grey_images_are_repeated_and_averaged(models, kind):
    spec = build("autoencoder", f"diffusers:{models[kind]}")
    grey, colour = spec.build((1, 8, 8)), spec.build((3, 8, 8))
    x = images(4, 1, 8, 8)
    z = grey.encode(x).mean
    torch.testing.assert_close(z, colour.encode(x.repeat(1, 3, 1, 1)).mean)
    decoded = colour.decode(z)
    assert float((decoded[:, 0] - decoded[:, 1]).abs().max()) > 1e-3
    torch.testing.assert_close(grey.decode(z), decoded.mean(1, keepdim=True))


@every_kind
@torch.no_grad()
def test_many_images_are_computed_in_pieces(models, kind, monkeypatch):
    x = images(7, 3, 8, 8)
    spec = build("autoencoder", f"diffusers:{models[kind]}")
    whole = spec.build((3, 8, 8)).encode(x)
    monkeypatch.setattr(from_diffusers, "PIXELS", 3 * 64)
    autoencoder = spec.build((3, 8, 8))
    sizes = []
    encode = autoencoder.model.encode
    autoencoder.model.encode = lambda part: (sizes.append(len(part)), encode(part))[1]
    pieces = autoencoder.encode(x)
    assert sizes == [3, 3, 1]
    torch.testing.assert_close(pieces.mean, whole.mean)
    if whole.logvar is not None:
        torch.testing.assert_close(pieces.logvar, whole.logvar)
    assert autoencoder.decode(pieces.mean).shape == x.shape


@every_kind
def test_it_is_not_trained_and_stays_in_evaluation_mode(models, kind, tmp_path):
    autoencoder = build("autoencoder", f"diffusers:{models[kind]}").build((3, 8, 8))
    save(autoencoder, tmp_path)
    for made in (autoencoder, load(tmp_path)):
        made.train()
        assert not any(module.training for module in made.modules())
        assert not any(parameter.requires_grad for parameter in made.parameters())


def test_building_leaves_the_global_generator_alone(models):
    state = torch.get_rng_state()
    build("autoencoder", f"diffusers:{models['AutoencoderKL']}").build((3, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_files_are_computed_in_single(models, tmp_path):
    model = diffusers.AutoencoderKL.from_pretrained(str(models["AutoencoderKL"])).half()
    model.save_pretrained(tmp_path)
    autoencoder = build("autoencoder", f"diffusers:{tmp_path}").build((3, 8, 8))
    assert {p.dtype for p in autoencoder.parameters()} == {torch.float32}
    assert reconstruct(autoencoder, images(2, 3, 8, 8)).dtype == torch.float32


# Where they come from


@every_kind
@pytest.mark.parametrize("wrap", [False, True], ids=["bare", "standardised"])
@torch.no_grad()
def test_a_saved_one_needs_neither_its_folder_nor_the_hub(
    models, kind, wrap, tmp_path, monkeypatch
):
    source = Path(shutil.copytree(models[kind], tmp_path / "source"))
    x = images(6, 3, 8, 16)
    autoencoder = build("autoencoder", f"diffusers:{source}").build((3, 8, 16))
    if wrap:
        autoencoder = standardise(autoencoder, x)
    save(autoencoder, tmp_path / "run")
    shutil.rmtree(source)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    back = load(tmp_path / "run")
    before, after = autoencoder.encode(x), back.encode(x)
    assert torch.equal(before.mean, after.mean)
    if before.logvar is not None:
        assert torch.equal(before.logvar, after.logvar)
    assert torch.equal(autoencoder.decode(before.mean), back.decode(before.mean))
    save(back, tmp_path / "again")
    for name in ("autoencoder.json", "autoencoder.safetensors"):
        first, second = ((tmp_path / f / name).read_bytes() for f in ("run", "again"))
        assert first == second


def test_the_recorded_architecture_names_no_place(models, tmp_path):
    save(build("autoencoder", f"diffusers:{models['AutoencoderKL']}").build((3, 8, 8)), tmp_path)
    settings = json.loads((tmp_path / "autoencoder.json").read_text())
    assert settings["architecture"]["class"] == "AutoencoderKL"
    assert settings["architecture"]["config"]["norm_num_groups"] == 4
    assert str(models["AutoencoderKL"]) not in json.dumps(settings["architecture"])


@pytest.mark.parametrize("said", ["", ",subfolder=vae", ",subfolder=other"])
def test_the_autoencoder_of_a_pipeline_is_found(models, said, tmp_path):
    shutil.copytree(models["AutoencoderKL"], tmp_path / "vae")
    shutil.copytree(models["AutoencoderTiny"], tmp_path / "other")
    (tmp_path / "model_index.json").write_text("{}")
    autoencoder = build("autoencoder", f"diffusers:{tmp_path}{said}").build((3, 8, 8))
    assert autoencoder.latent_shape == ((5, 2, 2) if "other" in said else (3, 4, 4))


def cache(home: Path, name: str, model: Path) -> None:
    """Puts a model into a hub cache, as a download would."""
    place = home / f"models--{name.replace('/', '--')}"
    revision = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(model, place / "snapshots" / revision)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(revision)


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Path:
    """An empty hub cache, and no network."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("inside", ["", "vae"], ids=["top", "pipeline"])
def test_a_cached_hub_model_is_used_without_a_network(models, offline, inside, tmp_path):
    shutil.copytree(models["AutoencoderKL"], tmp_path / "model" / inside)
    cache(offline, "somebody/a-vae", tmp_path / "model")
    here = build("autoencoder", f"diffusers:{models['AutoencoderKL']}").build((3, 8, 8))
    there = build("autoencoder", "diffusers:somebody/a-vae").build((3, 8, 8))
    x = images(2, 3, 8, 8)
    assert torch.equal(reconstruct(here, x), reconstruct(there, x))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("somebody/unknown", "offline|outgoing traffic|cache"), ("a/b/c", "Repo id"), ("./x", "Repo")],
)
def test_neither_folder_nor_hub_says_both_reasons_in_one_line(offline, name, reason):
    with pytest.raises(UserError, match=f"'{name}' is no folder here, and .*hub: .*") as raised:
        build("autoencoder", f"diffusers:{name}").build((3, 8, 8))
    assert "\n" not in str(raised.value)
    assert any(word in str(raised.value) for word in reason.split("|"))


# What cannot be loaded


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["decoder.conv_out.bias"]
    save_file(tensors, folder / WEIGHTS)


def add_tensor(folder: Path) -> None:
    extra = {"decoder.conv_out.extra": torch.zeros(1)}
    save_file(load_file(folder / WEIGHTS) | extra, folder / WEIGHTS)


def pickle_instead(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.bin")


DAMAGES = {
    "empty": (lambda f: [file.unlink() for file in f.iterdir()], r"holds no config.json nor vae"),
    "no config": (lambda f: (f / "config.json").unlink(), r"holds no config.json nor vae"),
    "text": (lambda f: (f / "config.json").write_text("x"), r"config.json is damaged"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), r"names no class"),
    "another class": (
        lambda f: change(f / "config.json", _class_name="UNet2DModel"),
        r"is of the class UNet2DModel; .* AutoencoderKL, AutoencoderTiny, AutoencoderDC",
    ),
    "other widths": (
        lambda f: change(f / "config.json", block_out_channels=[16, 16]),
        "cannot load AutoencoderKL",
    ),
    "bad groups": (
        lambda f: change(f / "config.json", norm_num_groups=5),
        "cannot load AutoencoderKL",
    ),
    "no scale": (
        lambda f: change(f / "config.json", scaling_factor=-1),
        "scaling_factor must be positive, not -1",
    ),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "cannot load AutoencoderKL"),
    "pickle": (pickle_instead, "cannot load AutoencoderKL"),
    "half": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:2000]),
        "cannot load AutoencoderKL",
    ),
    "garbage": (lambda f: (f / WEIGHTS).write_bytes(b"x" * 99), "cannot load AutoencoderKL"),
    "missing": (drop_tensor, "lack decoder.conv_out.bias"),
    "unexpected": (add_tensor, "hold the unexpected decoder.conv_out.extra"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_folders_are_refused_in_one_line(folder, damage):
    spoil, message = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(UserError, match=message) as raised:
        build("autoencoder", f"diffusers:{folder}").build((3, 8, 8))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 10, 8), r"multiples of 4, not 10 x 8: .*--image-size 8"),
        ((3, 8, 9), r"multiples of 4, not 8 x 9"),
        ((3, 1, 1), r"--image-size 4"),
        ((2, 8, 8), r"images of 3 channels, or grey ones, not data of shape \(2, 8, 8\)"),
        ((64,), r"images of 3 channels, or grey ones, not data of shape \(64,\)"),
    ],
)
def test_shapes_that_it_cannot_take_are_refused(models, shape, message):
    with pytest.raises(UserError, match=message):
        build("autoencoder", f"diffusers:{models['AutoencoderTiny']}").build(shape)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (None, "its architecture is not recorded"),
        ({"class": "UNet2DModel", "config": {}}, "class UNet2DModel"),
        ({"class": "AutoencoderKL"}, "cannot make that AutoencoderKL"),
        ({"class": "AutoencoderKL", "config": {"colour": 1}}, "cannot make that AutoencoderKL"),
    ],
)
def test_damaged_architectures_are_refused(models, architecture, message, tmp_path):
    save(build("autoencoder", f"diffusers:{models['AutoencoderKL']}").build((3, 8, 8)), tmp_path)
    change(tmp_path / "autoencoder.json", architecture=architecture)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


# Without diffusers


class Failing(types.ModuleType):
    """A package whose parts cannot be imported."""

    def __init__(self, error: Exception) -> None:
        super().__init__("diffusers")
        self.error = error

    def __getattr__(self, name: str) -> object:
        raise self.error


@pytest.mark.parametrize(
    ("package", "message"),
    [
        (None, r"needs the package 'diffusers': pip install 'monge\[autoencoders\]'"),
        (
            Failing(RuntimeError("Failed to import:\noperator torchvision::nms does not exist")),
            "installed torchvision does not fit torch: uninstall torchvision",
        ),
        (Failing(ImportError("no such symbol\nmore")), "diffusers cannot be imported: no such"),
        (types.ModuleType("diffusers"), "has no AutoencoderKL: upgrade diffusers"),
    ],
)
def test_a_package_that_cannot_be_imported_is_said_in_one_line(
    models, monkeypatch, package, message
):
    monkeypatch.setitem(sys.modules, "diffusers", package)
    with pytest.raises(UserError, match=message) as raised:
        build("autoencoder", f"diffusers:{models['AutoencoderKL']}").build((3, 8, 8))
    assert "\n" not in str(raised.value)


def test_the_scale_of_the_log_variance_is_exact(models):
    """Changing the scale by a factor changes the log-variance by twice its logarithm."""
    spec = build("autoencoder", f"diffusers:{models['AutoencoderKL']}")
    autoencoder = spec.build((3, 8, 8))
    x = images(2, 3, 8, 8)
    before = autoencoder.encode(x).logvar
    autoencoder.scale *= 3
    torch.testing.assert_close(autoencoder.encode(x).logvar, before + 2 * math.log(3))
