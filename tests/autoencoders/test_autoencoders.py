"""Laws of every autoencoder, of the standardising wrapper, and of their files."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.decomposition import PCA as SklearnPCA
from torch import Tensor, nn

from monge.autoencoders import Standardised, load, psnr, reconstruct, save, standardise
from monge.autoencoders.conv import LOGVAR_RANGE, ConvSpec
from monge.autoencoders.identity import IdentitySpec
from monge.autoencoders.pca import PCA, PCASpec
from monge.components import build
from monge.errors import UserError
from monge.tensors import stream

N = 300


def images(shape=(1, 4, 4), n=N, seed=0) -> Tensor:
    """Smooth random images in [-1, 1], float64."""
    noise = torch.randn(n, *shape, dtype=torch.float64, generator=stream(seed, "images"))
    return torch.tanh(noise.cumsum(-1) * 0.5 + 0.3)


def table(columns=5, n=N, seed=0) -> Tensor:
    """Correlated columns with different means and scales, float64."""
    rng = stream(seed, "table")
    mix = torch.randn(columns, columns, dtype=torch.float64, generator=rng)
    scale = torch.logspace(-1, 1, columns, dtype=torch.float64)
    rows = torch.randn(n, columns, dtype=torch.float64, generator=rng) @ mix
    return rows * scale + torch.arange(columns)


def noisy_conv(down=2, channels=3, shape=(1, 4, 4)) -> nn.Module:
    """A convolutional autoencoder with weights as if it were trained: no part of it is zero."""
    autoencoder = ConvSpec(down=down, channels=channels, width=8, blocks=1).build(shape).double()
    rng = stream(1, "trained")
    for parameter in autoencoder.parameters():
        nn.init.normal_(parameter, std=0.15, generator=rng)
    return autoencoder


CASES = {
    "identity-table": lambda: (IdentitySpec().build((5,)), table()),
    "identity-images": lambda: (IdentitySpec().build((1, 4, 4)), images()),
    "pca-table": lambda: (PCASpec().build((5,)).fit(table()), table()),
    "pca-part": lambda: (PCASpec(dim=3).build((5,)).fit(table()), table()),
    "pca-images": lambda: (PCASpec(dim=7).build((1, 4, 4)).fit(images()), images()),
    "conv-down1": lambda: (noisy_conv(1, 2), images()),
    "conv-down2": lambda: (noisy_conv(), images()),
    "conv-odd": lambda: (noisy_conv(2, 3, (1, 5, 7)), images((1, 5, 7))),
    "conv-wide": lambda: (noisy_conv(4, 2, (3, 4, 8)), images((3, 4, 8))),
}
BIJECTIONS = ["identity-table", "identity-images", "pca-table"]

every_autoencoder = pytest.mark.parametrize("case", CASES)


# Laws of every autoencoder


@every_autoencoder
def test_shapes_are_the_declared_ones(case):
    autoencoder, x = CASES[case]()
    posterior = autoencoder.encode(x[:4])
    assert autoencoder.data_shape == x.shape[1:]
    assert posterior.mean.shape == (4, *autoencoder.latent_shape)
    assert posterior.logvar is None or posterior.logvar.shape == posterior.mean.shape
    decoded = autoencoder.decode(posterior.mean)
    assert decoded.shape == x[:4].shape
    assert decoded.dtype == x.dtype


@every_autoencoder
def test_examples_do_not_see_each_other(case):
    autoencoder, x = CASES[case]()
    together = reconstruct(autoencoder, x[:4])
    alone = torch.cat([reconstruct(autoencoder, row[None]) for row in x[:4]])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("case", BIJECTIONS)
def test_a_bijection_returns_the_data(case):
    autoencoder, x = CASES[case]()
    torch.testing.assert_close(reconstruct(autoencoder, x), x, rtol=1e-12, atol=1e-12)
    wrapped = standardise(autoencoder, x)
    torch.testing.assert_close(reconstruct(wrapped, x), x, rtol=1e-12, atol=1e-12)


@every_autoencoder
@pytest.mark.parametrize("wrap", [False, True], ids=["bare", "standardised"])
def test_log_abs_det_is_that_of_the_decoders_jacobian(case, wrap):
    autoencoder, x = CASES[case]()
    if wrap:
        autoencoder = standardise(autoencoder, x)
    if case not in BIJECTIONS:
        assert autoencoder.log_abs_det is None
        return
    size = x[0].numel()
    z = autoencoder.encode(x[:1]).mean
    jacobian = torch.autograd.functional.jacobian(autoencoder.decode, z).reshape(size, size)
    expected = float(torch.linalg.slogdet(jacobian).logabsdet)
    assert autoencoder.log_abs_det == pytest.approx(expected, abs=1e-9)


@every_autoencoder
@pytest.mark.parametrize("wrap", [False, True], ids=["bare", "standardised"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_a_saved_autoencoder_is_the_same_to_the_bit(case, wrap, dtype, tmp_path):
    autoencoder, x = CASES[case]()
    x = x.to(dtype)
    if isinstance(autoencoder, PCA):
        autoencoder.fit(x)
    autoencoder = autoencoder.to(dtype)
    if wrap:
        autoencoder = standardise(autoencoder, x)
    save(autoencoder, tmp_path / "autoencoder")
    back = load(tmp_path / "autoencoder")
    assert type(back) is type(autoencoder)
    assert back.latent_shape == autoencoder.latent_shape
    assert back.log_abs_det == autoencoder.log_abs_det
    before, after = autoencoder.encode(x), back.encode(x)
    assert torch.equal(before.mean, after.mean)
    if before.logvar is not None:
        assert torch.equal(before.logvar, after.logvar)
    assert torch.equal(autoencoder.decode(before.mean), back.decode(before.mean))
    assert {f.name for f in (tmp_path / "autoencoder").iterdir()} == {
        "autoencoder.json",
        "autoencoder.safetensors",
    }


def test_psnr_of_known_errors():
    x = torch.zeros(3, 1, 2, 2)
    y = torch.stack([torch.full((1, 2, 2), e) for e in (2.0, 0.2, 0.02)])
    torch.testing.assert_close(psnr(x, y), torch.tensor([0.0, 20.0, 40.0]))


# Standardised latents


@every_autoencoder
def test_standardised_latents_have_mean_zero_and_deviation_one(case):
    """Of the sampled latent: exactly, by mean and variance of the posterior."""
    autoencoder, x = CASES[case]()
    posterior = standardise(autoencoder, x, chunk=70).encode(x)
    axes = (0, 2, 3) if posterior.mean.ndim == 4 else (0,)
    variance = posterior.mean.var(axes, correction=0)
    if posterior.logvar is not None:
        assert posterior.logvar.exp().mean() > 0.01
        variance = variance + posterior.logvar.exp().mean(axes)
    zeros = torch.zeros_like(variance)
    torch.testing.assert_close(posterior.mean.mean(axes), zeros, rtol=0, atol=1e-9)
    torch.testing.assert_close(variance, zeros + 1)


def test_sampled_standardised_latents_have_deviation_one():
    autoencoder, x = noisy_conv(), images()
    posterior = standardise(autoencoder, x).encode(x)
    noise = torch.randn(posterior.mean.shape, dtype=x.dtype, generator=stream(0, "noise"))
    z = posterior.sample(noise)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(3, dtype=x.dtype), rtol=0, atol=0.05)
    assert (posterior.mean.std((0, 2, 3)) < 0.95).any()


def test_standardising_is_undone_by_decode():
    autoencoder, x = noisy_conv(), images()
    wrapped = standardise(autoencoder, x)
    torch.testing.assert_close(reconstruct(wrapped, x), reconstruct(autoencoder, x))
    bare, posterior = autoencoder.encode(x), wrapped.encode(x)
    torch.testing.assert_close(wrapped.unstandardise(posterior.mean), bare.mean)
    noise = torch.randn(bare.mean.shape, dtype=x.dtype, generator=stream(0, "noise"))
    sample = wrapped.unstandardise(posterior.sample(noise))
    torch.testing.assert_close(sample, bare.sample(noise))


def test_statistics_are_per_channel_of_images_and_per_coordinate_of_vectors():
    autoencoder = IdentitySpec().build((2, 1, 2))
    x = torch.tensor([[[[0.0, 2.0]], [[1.0, 1.0]]], [[[4.0, 6.0]], [[3.0, 7.0]]]])
    wrapped = standardise(autoencoder, x)
    assert wrapped.mean.flatten().tolist() == [3.0, 3.0]
    torch.testing.assert_close(wrapped.std.flatten(), torch.tensor([5.0, 6.0]).sqrt())
    flat = standardise(IdentitySpec().build((4,)), x.flatten(1))
    assert flat.mean.tolist() == [2.0, 4.0, 2.0, 4.0]
    assert flat.std.tolist() == [2.0, 2.0, 1.0, 3.0]


@pytest.mark.parametrize("value", [0.0, -3.7, 1e8])
def test_constant_coordinates_are_left_unscaled_and_reported(value):
    x = table()
    x[:, 2] = value
    wrapped = standardise(IdentitySpec().build((5,)), x)
    assert wrapped.constant == [2]
    assert float(wrapped.std[2]) == 1
    z = wrapped.encode(x).mean
    assert z[:, 2].abs().max() < 1e-6
    torch.testing.assert_close(wrapped.decode(z), x)
    assert standardise(IdentitySpec().build((5,)), table()).constant == []


def test_small_numbers_are_not_constant():
    x = 1e-9 * table()
    assert standardise(IdentitySpec().build((5,)), x).constant == []


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_changed_autoencoder_is_refused_with_both_numbers(part, tmp_path):
    wrapped = standardise(noisy_conv().float(), images().float())
    save(wrapped, tmp_path)
    file = tmp_path / "autoencoder.safetensors"
    tensors = load_file(file)
    tensors[f"autoencoder.{part}.leave.bias"][0] += 0.01
    save_file(tensors, file)
    with pytest.raises(UserError, match=rf"the {part} has changed .* was -?\d.* is now -?\d"):
        load(tmp_path)


def test_rounding_does_not_count_as_a_change():
    wrapped = standardise(noisy_conv(), images())
    wrapped.float().check()


def test_an_autoencoder_that_returns_nan_is_refused():
    wrapped = standardise(noisy_conv(), images())
    with torch.no_grad():
        wrapped.autoencoder.decoder.leave.bias.fill_(math.nan)
    with pytest.raises(UserError, match="decoder has changed"):
        wrapped.check()


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (torch.zeros(4), torch.ones(5), "mean has shape"),
        (torch.zeros(5), torch.ones(5, 1), "std has shape"),
        (torch.full((5,), math.nan), torch.ones(5), "finite"),
        (torch.zeros(5), -torch.ones(5), "finite"),
    ],
)
def test_bad_statistics_are_refused(mean, std, message):
    with pytest.raises(UserError, match=message):
        Standardised(IdentitySpec().build((5,)), mean, std)


# Principal components


def test_pca_reconstructs_as_well_as_another_library():
    x = images((1, 6, 6))
    flat = x.flatten(1).numpy()
    other = SklearnPCA(5).fit(flat)
    expected = torch.from_numpy(other.inverse_transform(other.transform(flat)))
    autoencoder = PCASpec(dim=5).build((1, 6, 6)).fit(x)
    torch.testing.assert_close(reconstruct(autoencoder, x).flatten(1), expected)


def test_pca_finds_a_known_plane():
    """Data m + a u + b v with orthonormal u, v and a twice as wide as b."""
    rng = stream(0, "plane")
    a, b = torch.randn(2, N, dtype=torch.float64, generator=rng)
    u, v = torch.tensor([[3.0, 4, 0], [0, 0, 1]], dtype=torch.float64) / torch.tensor([[5], [1.0]])
    x = 7 + 2 * a[:, None] * u + b[:, None] * v
    autoencoder = PCASpec().build((3,)).fit(x)
    assert autoencoder.latent_shape == (2,)
    assert float(autoencoder.directions[:, 0] @ u) == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(reconstruct(autoencoder, x), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_pca_drops_constant_and_dependent_directions(dtype):
    x = table().to(dtype)
    x[:, 1] = 3.3
    x[:, 4] = 2 * x[:, 0] - x[:, 2] + 1000
    autoencoder = PCASpec().build((5,)).fit(x)
    assert autoencoder.latent_shape == (3,)
    assert autoencoder.directions.dtype == dtype
    assert autoencoder.log_abs_det is None
    torch.testing.assert_close(reconstruct(autoencoder, x), x, rtol=1e-4, atol=1e-4)
    assert PCASpec(dim=4).build((5,)).fit(x).latent_shape == (3,)


def test_pca_keeps_the_dropped_rank_in_its_files(tmp_path):
    x = table()
    x[:, 1] = 3.3
    save(PCASpec().build((5,)).fit(x), tmp_path)
    assert load(tmp_path).latent_shape == (4,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PCASpec(dim=0), "at least 1"),
        (lambda: PCASpec(dim=6).build((5,)), "more than the 5 numbers"),
        (lambda: PCASpec().build((5,)).fit(table(n=1)), "at least 2 examples"),
        (lambda: PCASpec().build((5,)).fit(torch.ones(9, 5)), "constant"),
        (lambda: ConvSpec(multiple=0).build((1, 6, 8)), "multiple must be at least 1"),
        (lambda: ConvSpec().build((8,)), "takes images"),
        (lambda: ConvSpec(width=0), "width must be at least 1"),
        (lambda: ConvSpec(kl=-1.0), "kl must not be negative"),
        (lambda: ConvSpec(batch=0), "batch must be at least 1"),
        (lambda: ConvSpec(lr=0.0), "lr must be greater than 0"),
        (lambda: ConvSpec().build((1, 8, 8)).resize((3, 8, 8)), "only the sides may differ"),
        (lambda: ConvSpec().build((1, 8, 8)).resize((3, 8, 6)), "only the sides may differ"),
        (lambda: build("autoencoder", "conv:down=3"), "unknown value '3'"),
    ],
)
def test_settings_that_cannot_be_built_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


# The convolutional autoencoder


def test_images_of_any_sides_are_padded_by_their_border_and_cropped():
    """Encoded as the image with its border repeated, decoded as the middle of that."""
    odd = noisy_conv(2, 3, (1, 6, 5))
    even = odd.resize((1, 6, 6))
    x = images((1, 6, 5))
    padded = torch.cat([x, x[..., -1:]], -1)
    assert torch.equal(odd.encode(x).mean, even.encode(padded).mean)
    z = odd.encode(x).mean
    assert torch.equal(odd.decode(z), even.decode(z)[..., :5])
    wide = ConvSpec(down=4, multiple=2).build((3, 28, 33))
    assert wide.latent_shape == (4, 8, 10)
    assert wide.decode(torch.zeros(1, 4, 8, 10)).shape == (1, 3, 28, 33)


def test_an_untrained_conv_is_affine():
    """Both residual networks start at zero, so only the linear skips act."""
    autoencoder = ConvSpec(down=2, channels=4, width=8).build((1, 4, 4)).double()
    a, b = images(n=2).split(1)

    def f(x):
        return reconstruct(autoencoder, x)

    torch.testing.assert_close(f(0.3 * a + 0.7 * b), 0.3 * f(a) + 0.7 * f(b))


def test_the_same_stream_draws_the_same_weights():
    def weights(rng):
        autoencoder = ConvSpec(down=2, width=8).build((1, 4, 4), rng=rng)
        return torch.cat([p.detach().flatten() for p in autoencoder.parameters()])

    assert torch.equal(weights(None), weights(None))
    assert torch.equal(weights(stream(5)), weights(stream(5)))
    assert not torch.equal(weights(stream(5)), weights(stream(6)))


@torch.no_grad()
def test_the_loss_is_pixel_error_plus_weighted_divergence():
    spec = ConvSpec(down=2, channels=3, width=8, blocks=1, kl=0.7)
    autoencoder = noisy_conv()
    batch = spec.draw({"x": images(n=4)}, stream(0))
    assert batch["noise"].shape == (4, *autoencoder.latent_shape)
    loss = spec.loss(autoencoder, batch)
    posterior = autoencoder.encode(batch["x"])
    decoded = autoencoder.decode(posterior.sample(batch["noise"].double()))
    for i in range(4):
        normal = torch.distributions.Normal(posterior.mean[i], (0.5 * posterior.logvar[i]).exp())
        prior = torch.distributions.Normal(0.0, 1.0)
        kl = float(torch.distributions.kl_divergence(normal, prior).sum()) / 16
        mse = float((decoded[i] - batch["x"][i]).square().mean())
        assert float(loss.parts["kl"][i]) == pytest.approx(kl)
        assert float(loss.parts["mse"][i]) == pytest.approx(mse)
        assert float(loss.per_example[i]) == pytest.approx(mse + 0.7 * kl)


def test_a_slice_of_a_batch_has_the_slice_of_its_loss():
    spec, autoencoder = ConvSpec(down=2, channels=3, width=8), noisy_conv()
    batch = spec.draw({"x": images(n=6)}, stream(0))
    part = {key: value[2:5] for key, value in batch.items()}
    whole = spec.loss(autoencoder, batch).per_example
    torch.testing.assert_close(spec.loss(autoencoder, part).per_example, whole[2:5])
    again = spec.draw({"x": images(n=6)}, stream(0))
    assert torch.equal(again["noise"], batch["noise"])


def test_the_log_variance_is_clamped():
    autoencoder = noisy_conv()
    low, high = LOGVAR_RANGE
    logvar = autoencoder.encode(1e6 * images(n=8)).logvar
    assert float(logvar.min()) == low
    assert float(logvar.max()) == high


def test_every_parameter_of_conv_learns():
    spec = ConvSpec(down=2, channels=2, width=8, blocks=1)
    autoencoder = spec.build((1, 4, 4))
    start = {name: p.detach().clone() for name, p in autoencoder.named_parameters()}
    fit(spec, autoencoder, images(n=16).float(), steps=4)
    still = [name for name, p in autoencoder.named_parameters() if torch.equal(p, start[name])]
    assert still == []


def test_conv_overfits_a_few_images():
    spec = ConvSpec(down=2, channels=4, width=32, blocks=1, kl=1e-6)
    x = images((1, 8, 8), n=16).float()
    autoencoder = spec.build((1, 8, 8))
    fit(spec, autoencoder, x, steps=300)
    assert float(psnr(reconstruct(autoencoder, x), x).detach().mean()) > 32


def patches_of(x: Tensor, down: int) -> Tensor:
    """(N x cells, C down^2), by slicing."""
    _, _, height, width = x.shape
    corners = [(i, j) for i in range(0, height, down) for j in range(0, width, down)]
    return torch.cat([x[:, :, i : i + down, j : j + down].flatten(1) for i, j in corners])


def test_a_fitted_conv_is_pca_of_the_patches():
    x = images((3, 4, 8))
    autoencoder = ConvSpec(down=2, channels=4, width=8).build((3, 4, 8)).double().fit(x)
    patches = patches_of(x, 2).numpy()
    other = SklearnPCA(4).fit(patches)
    expected = torch.from_numpy(other.inverse_transform(other.transform(patches)))
    decoded = autoencoder.unclamped(autoencoder.encode(x).mean).detach()
    torch.testing.assert_close(patches_of(decoded, 2), expected)
    mean = autoencoder.encode(x).mean.detach()
    torch.testing.assert_close(mean.std((0, 2, 3), correction=0), torch.ones(4).double())


def test_fitting_takes_rows_of_the_whole_set(monkeypatch):
    monkeypatch.setattr("monge.autoencoders.conv.FIT_NUMBERS", 20 * 16)
    x = torch.cat([torch.full((100, 1, 4, 4), -1.0), torch.full((100, 1, 4, 4), 1.0)])
    autoencoder = ConvSpec(down=4, width=8).build((1, 4, 4)).fit(x)
    torch.testing.assert_close(autoencoder.encode(x[:1]).mean[0, 0].abs(), torch.ones(1, 1))
    torch.testing.assert_close(autoencoder.decoder.skip.bias.detach(), torch.zeros(16))


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_fitting_constant_images_reconstructs_them(value):
    x = torch.full((5, 1, 4, 4), value)
    x[:, :, 2:] = -0.3
    autoencoder = ConvSpec(down=2, width=8).build((1, 4, 4)).fit(x)
    torch.testing.assert_close(reconstruct(autoencoder, x), x)


def test_more_channels_than_numbers_in_a_patch():
    x = images()
    autoencoder = ConvSpec(down=1, channels=3, width=8).build((1, 4, 4)).double().fit(x)
    torch.testing.assert_close(reconstruct(autoencoder, x), x)


def test_training_goes_on_from_given_weights_and_learns_new_data():
    spec = ConvSpec(down=2, channels=2, width=16, blocks=1)
    old, new = images((1, 8, 8), n=64).float(), -images((1, 8, 8), n=64, seed=1).float().mT
    first = spec.build((1, 8, 8)).fit(old)
    fit(spec, first, old, steps=60)
    second = spec.build((1, 8, 8))
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.encode(new).mean, first.encode(new).mean)
    before = float(psnr(reconstruct(second, new), new).detach().mean())
    fit(spec, second, new, steps=60)
    after = float(psnr(reconstruct(second, new), new).detach().mean())
    assert after > before + 1


def test_resizing_to_the_same_sides_changes_nothing():
    autoencoder = noisy_conv(2, 3, (1, 4, 6))
    other = autoencoder.resize((1, 4, 6))
    for name, tensor in autoencoder.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_resizing_interpolates_the_positions_and_keeps_the_rest():
    autoencoder = noisy_conv(2, 3, (1, 4, 6))
    with torch.no_grad():
        autoencoder.encoder.position[0] = 0.25
        autoencoder.decoder.position[1] = torch.tensor([[0.0, 1, 2], [4, 5, 6]])
    other = autoencoder.resize((1, 8, 12))
    assert other.latent_shape == (3, 4, 6)
    assert other.encoder.position.dtype == torch.float64
    assert torch.equal(other.encoder.position[0].detach(), torch.full((4, 6), 0.25).double())
    row = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.0]).double()
    torch.testing.assert_close(other.decoder.position[1, 0].detach(), row)
    torch.testing.assert_close(other.decoder.position[1, 1].detach(), row + 1)
    same = {n for n, p in autoencoder.named_parameters() if "position" not in n}
    parameters = dict(other.named_parameters())
    assert all(torch.equal(parameters[n], autoencoder.get_parameter(n)) for n in same)


def test_a_resized_autoencoder_reconstructs_images_of_other_sides():
    """Of the same law, unseen, better than the linear autoencoder that training starts at."""
    spec = ConvSpec(down=2, channels=2, width=16, blocks=1)
    autoencoder = spec.build((1, 8, 8)).fit(blobs(8, 8))
    larger = blobs(16, 24, seed=1)

    def quality() -> float:
        return float(
            psnr(reconstruct(autoencoder.resize((1, 16, 24)), larger), larger).detach().mean()
        )

    linear = quality()
    fit(spec, autoencoder, blobs(8, 8), steps=60)
    assert quality() > linear + 5


def blobs(height: int, width: int, seed: int = 0) -> Tensor:
    """64 smooth images, of equal law at all places and sides, float32."""
    grid = (64, 1, height // 4 + 1, width // 4 + 1)
    coarse = torch.randn(grid, generator=stream(seed, "blobs"))
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic").tanh()


def fit(spec: ConvSpec, autoencoder: nn.Module, x: Tensor, steps: int) -> None:
    rng = stream(0, "fit")
    optimiser = torch.optim.Adam(autoencoder.parameters(), lr=4e-3)
    for _ in range(steps):
        loss = spec.loss(autoencoder, spec.draw({"x": x}, rng)).per_example.mean()
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in autoencoder.parameters())
        optimiser.step()


# Files that cannot be read


@pytest.fixture
def saved(tmp_path):
    save(standardise(PCASpec().build((5,)).fit(table()), table()), tmp_path)
    return tmp_path


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*nowhere"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format 99.*upgrade"),
        ({"format_version": None}, "no format_version"),
        ({"autoencoder": "pcaa"}, "did you mean 'pca'"),
        ({"data_shape": [6]}, "does not fit"),
        ({"standardised": False}, "does not fit"),
        ({"data_shape": None}, "lacks data_shape"),
    ],
)
def test_settings_that_do_not_fit_are_refused(saved, change, message):
    file = saved / "autoencoder.json"
    settings = json.loads(file.read_text()) | change
    file.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    with pytest.raises(UserError, match=message):
        load(saved)


@pytest.mark.parametrize("name", ["autoencoder.json", "autoencoder.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "half", "missing", "text"])
def test_damaged_files_are_refused(saved, name, damage):
    file = saved / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "half": content[: len(content) // 2], "text": b"x"}[damage])
    with pytest.raises(UserError, match=r"autoencoder"):
        load(saved)


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file"):
        save(IdentitySpec().build((5,)), tmp_path / "file")
