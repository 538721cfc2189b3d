"""A transformer of diffusers as a field: clock, output, classes, against the model itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from monge.cli import main
from monge.errors import UserError
from monge.paths import Linear, LinearBeta
from monge.tensors import stream
from monge.verification.foreign import field_of
from monge.verification.from_diffusers import DiffusersTransformer, load_transformer
from tiny_models import save_diffusers

diffusers = pytest.importorskip("diffusers")

X = torch.randn(3, 1, 8, 8, generator=stream(0, "x"))
LABEL = torch.tensor([2, 9, -1])
ROWS = torch.tensor([2, 9, 10])
"""-1, no class, is the row after the last class."""


def saved(folder: Path, **changes: Any) -> Path:
    """A model with random weights that says as many channels again for its variance."""
    return save_diffusers(folder, "DiTTransformer2DModel", **changes)


def said(model: DiffusersTransformer, level: float) -> Tensor:
    """What the bare model says at a level, without the channels of the variance."""
    found = model.model(X, torch.full((3,), level), ROWS).sample
    assert found.shape == (3, 2, 8, 8)
    return found[:, :1]


def test_a_velocity_runs_from_data_to_noise_there(tmp_path: Path) -> None:
    """At our t = 0.3 its time is 700 of 1000, and its dx/ds is minus our dx/dt."""
    model = load_transformer(saved(tmp_path), "velocity")
    field = field_of(model, Linear(), "data", "velocity", X, 1000.0)
    torch.testing.assert_close(field(X, 0.3, {"label": LABEL}), -said(model, 700.0))
    apart = (said(model, 700.0) - said(model, 300.0)).abs().max()
    assert apart > 1e-3, "the model tells times apart"


def test_noise_of_ddpm_is_a_velocity_of_its_schedule(tmp_path: Path) -> None:
    """Level k of 1000 has the noise of time (k + 1) / 1000: at our t = 0.3, k = 699."""
    model = load_transformer(saved(tmp_path), "noise")
    field = field_of(model, LinearBeta(), "data", "noise", X, 1000.0)
    noise = said(model, 699.0)
    # With beta(s) = 0.1 + 19.9 s, log alpha = -(0.1 s + 19.9 s^2 / 2) / 2 at s = 0.7.
    alpha = torch.tensor(-(0.07 + 19.9 * 0.245) / 2).exp()
    sigma = (1 - alpha**2).sqrt()
    d_alpha = alpha * (0.1 + 19.9 * 0.7) / 2  # d/dt = -d/ds
    data = (X - sigma * noise) / alpha
    expected = d_alpha * data - alpha * d_alpha / sigma * noise
    torch.testing.assert_close(field(X, 0.3, {"label": LABEL}), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [0, 99, 699, 999])
def test_the_schedule_of_ddpm_is_the_path_at_those_times(k: int) -> None:
    schedule = diffusers.DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02)
    alpha, sigma = LinearBeta().scales(torch.tensor(1 - (k + 1) / 1000).double())
    cumulated = float(schedule.alphas_cumprod[k])
    assert float(alpha) == pytest.approx(cumulated**0.5, rel=0.05)
    assert float(sigma) == pytest.approx((1 - cumulated) ** 0.5, rel=0.05)


def test_no_label_is_no_class_and_a_pipeline_has_its_own_folder(tmp_path: Path) -> None:
    saved(tmp_path / "transformer")
    model = load_transformer(tmp_path, "velocity")
    none = model(X, torch.full((3,), 500.0))
    torch.testing.assert_close(none, model(X, torch.full((3,), 500.0), torch.full((3,), -1)))


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no config\.json"):
        load_transformer(tmp_path, "noise")
    folder = saved(tmp_path / "good")
    model = load_transformer(folder, "noise")
    time = torch.full((3,), 500.0)
    with pytest.raises(UserError, match=r"states of shape \(1, 8, 8\), not \(1, 4, 4\)"):
        model(X[..., :4, :4], time, LABEL)
    with pytest.raises(UserError, match="knows 10 classes, but the data has the label 10"):
        model(X, time, LABEL + 1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_layers": 2}))
    with pytest.raises(UserError, match=r"do not fit their config\.json: they lack"):
        load_transformer(folder, "noise")
    (folder / "config.json").write_text(json.dumps({**config, "_class_name": "UNet2DModel"}))
    with pytest.raises(UserError, match="of the class UNet2DModel; monge verify loads DiT"):
        load_transformer(folder, "noise")
    with pytest.raises(UserError, match="takes 1 channels and says 3"):
        load_transformer(saved(tmp_path / "odd", out_channels=3), "noise")


def test_verified_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path / "model")
    made = ("verify", "digits", "--component", f"diffusers:{folder}", "--out", f"{tmp_path}/out")
    rest = ("--output", "noise", "--path", "linear_beta", "--quick", "-n", "40", "--json")
    assert main([*made, "--steps", "2", *rest]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sampling"]["clock"] == "data" and (tmp_path / "out" / "report.html").exists()
    velocity = next(t for t in found["terms"] if t["name"] == "velocity")
    assert velocity["value"] > 2, "random weights do not draw digits"
    assert main(["verify", "digits", "--component", f"diffusers:{tmp_path}"]) == 2
    assert "save_pretrained" in capsys.readouterr().err


def test_on_the_latents_of_an_autoencoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of random weights, so that reconstruction is bad, and measured."""
    model = saved(tmp_path / "model", in_channels=3, out_channels=3, sample_size=4)
    latents = save_diffusers(tmp_path / "vae", "AutoencoderKL")
    made = ("verify", "digits", "--component", f"diffusers:{model}", "--out", f"{tmp_path}/out")
    rest = ("--quick", "-n", "40", "--steps", "2", "--json")
    assert main([*made, *rest]) == 2
    told = capsys.readouterr()
    assert "not (1, 8, 8): name the data, or the --autoencoder" in told.err
    assert main([*made, "--autoencoder", f"diffusers:{latents}", *rest]) == 0
    found = json.loads(capsys.readouterr().out)
    reconstruction = next(t for t in found["terms"] if t["name"] == "reconstruction")
    assert reconstruction["value"] > 1
    assert main([*made, "--autoencoder", "conv", *rest]) == 2
    assert "is not trained: train it by monge autoencoder" in capsys.readouterr().err
