"""Atoms and the memoriser, noised laws, laws near a subspace, and laws pushed through a map."""

from __future__ import annotations

import math

import pytest
import torch

from monge.components import build
from monge.errors import UserError
from monge.paths import MARGIN, Linear, OrnsteinUhlenbeck, Trigonometric
from monge.targets import slices
from monge.targets.atoms import Atoms
from monge.targets.coordinates import box
from monge.targets.densities import laplace
from monge.targets.gaussian import Gaussian, GaussianSpec
from monge.targets.latent import LinearLatent
from monge.targets.mixture import GaussianMixture, MixtureSpec
from monge.targets.noised import noised
from monge.targets.product import Product
from monge.targets.pushforward import Pushforward
from monge.targets.wasserstein import early_stopping, wasserstein2
from monge.tensors import stream

POINTS = torch.randn(7, 3, dtype=torch.float64, generator=stream(0, "points")) + 2
WEIGHTS = torch.arange(1.0, 8.0, dtype=torch.float64)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_atoms_are_a_mixture_without_variance() -> None:
    atoms, mixture = Atoms(POINTS, WEIGHTS), GaussianMixture(POINTS, torch.tensor(0.0), WEIGHTS)
    close(atoms.covariance, mixture.covariance, 1e-13)
    x = POINTS + torch.randn(7, 3, dtype=torch.float64, generator=stream(0, "x"))
    t = torch.linspace(0.0, 0.9, 7, dtype=torch.float64)
    for path in (Linear(), Trigonometric(), OrnsteinUhlenbeck(2.0)):
        for name in ("log_density", "velocity", "score", "posterior_mean", "jacobian"):
            ours, theirs = (getattr(law.at(path), name)(x, t) for law in (atoms, mixture))
            close(ours, theirs, 1e-11)
        close(atoms.at(path).divergence(x, t), mixture.at(path).divergence(x, t), 1e-11)
        mine, other = (law.jacobian_range(path, 0.5) for law in (atoms, mixture))
        assert mine.lowest == pytest.approx(other.lowest)
        assert mine.highest <= other.highest * (1 + 1e-12)
    line, pair = (
        Atoms(POINTS[:, :1], WEIGHTS),
        GaussianMixture(POINTS[:, :1], torch.tensor(0.0), WEIGHTS),
    )
    z = torch.linspace(-3, 3, 8, dtype=torch.float64)
    close(line.quantile(z), pair.quantile(z), 1e-12)
    flow = line.flow_map(Linear())
    close(flow(z[:, None], 0.0, 0.9), pair.flow_map(Linear())(z[:, None], 0.0, 0.9), 1e-9)
    whole = line.minimal_loss(Linear(), (0.1, 0.8))
    assert whole == pytest.approx(pair.minimal_loss(Linear(), (0.1, 0.8)), rel=1e-8)


def test_labels_select_points() -> None:
    labels = torch.tensor([0, 1, 1, 0, 2, 2, 2])
    law = Atoms(POINTS, WEIGHTS, labels)
    x, label = law.sample_labelled(200, stream(0, "samples"))
    assert law.n_classes == 3 and label is not None
    assert bool((x[:, None] == POINTS).all(2)[:, labels == 1].any(1).eq(label == 1).all())
    x = x[:6] + 0.1
    label = torch.tensor([-1, 0, 1, 2, 1, -1])
    v = law.field(Linear())(x, 0.6, {"label": label})
    for i, k in enumerate(label.tolist()):
        own = torch.ones(7, dtype=torch.bool) if k < 0 else labels == k
        alone = Atoms(POINTS[own], WEIGHTS[own])
        close(v[i : i + 1], alone.field(Linear())(x[i : i + 1], 0.6))
    with pytest.raises(UserError, match="label 3 "):
        law.field(Linear())(x, 0.6, {"label": torch.full((6,), 3)})
    with pytest.raises(UserError, match="without gaps"):
        Atoms(POINTS, labels=torch.tensor([0, 1, 1, 0, 3, 3, 3]))
    with pytest.raises(UserError, match="finite"):
        Atoms(POINTS * math.nan)
    with pytest.raises(UserError, match="weight"):
        Atoms(POINTS, WEIGHTS[:3])


def test_the_memoriser_stays_quick_and_exact_near_the_data() -> None:
    """4,000 points in 300 dimensions; near t = 1 every state goes to its nearest point."""
    data = torch.rand(4000, 300, dtype=torch.float64, generator=stream(0, "data"))
    law = Atoms(data.float())
    assert law.field(Linear()).domain == (0.0, 1 - MARGIN)
    t = 1 - MARGIN
    x = t * data[:64] + (1 - t) * torch.randn(64, 300, generator=stream(0, "x"))
    given = law.at(Linear()).posterior_mean(x.float(), t)
    assert given.dtype == torch.float32
    close(given.double(), data[:64], 1e-6)
    expected = (data[:64] - x) / (1 - t)
    close(law.field(Linear())(x, t), expected, 1e-4)  # the points are of float32
    divergence = law.at(Linear()).divergence(x, t)
    close(divergence, torch.full((64,), -300 / MARGIN).double(), 1e-7)
    jacobian = law.at(Linear()).jacobian(x[:2], 0.5)
    close(jacobian.diagonal(dim1=1, dim2=2).sum(1), law.at(Linear()).divergence(x[:2], 0.5), 1e-9)


def test_slices_do_not_change_results(monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = Atoms(POINTS, WEIGHTS, torch.tensor([0, 1, 1, 0, 2, 2, 2]))
    for law in (labelled, laplace()):
        x = law.sample(11, stream(0, "x")) + 0.1
        t, label = torch.linspace(0, 0.9, 11).double(), torch.arange(11) % 4 - 1
        m = law.at(Linear())
        calls = [m.log_density, m.moments, m.divergence, m.jacobian]
        whole = [f(x, t, label) for f in calls]
        monkeypatch.setattr(slices, "CHUNK", 20)
        for before, f in zip(whole, calls, strict=True):
            torch.testing.assert_close(f(x, t, label), before, rtol=1e-12, atol=1e-12)
        monkeypatch.undo()


def test_noised_laws_are_laws_at_a_time() -> None:
    """The law at T of a path, as a target of its own: the kernel density of a data set."""
    rng, t = stream(0, "noised"), 0.7
    for law in (
        Atoms(POINTS, WEIGHTS),
        MixtureSpec(dim=3).build(),
        GaussianSpec(dim=3).build(),
        box(3),
    ):
        stopped = noised(law, t, 1 - t)
        x = stopped.sample(5, rng)
        close(stopped.at(Linear()).log_density(x, 1.0), law.at(Linear()).log_density(x, t))
        close(stopped.at(Linear()).score(x, 1.0), law.at(Linear()).score(x, t))
        close(
            stopped.covariance, t**2 * law.covariance + (1 - t) ** 2 * torch.eye(3).double(), 1e-12
        )
        assert stopped.smooth
    wide = noised(noised(laplace(), 0.5, 1.0), 2.0, 1.0)
    once = noised(laplace(), 1.0, math.sqrt(5))
    z = torch.tensor([-2.0, 0.0, 1.0], dtype=torch.float64)
    close(wide.quantile(z), once.quantile(z), 1e-9)
    assert noised(law, 1.0, 0.0) is law
    with pytest.raises(UserError, match="above 0"):
        noised(law, 0.0, 1.0)


def embedded(noise: float, seed: int = 0) -> LinearLatent:
    latent = GaussianMixture(
        torch.tensor([[-2.0, 0.0], [1.0, 1.0]]), torch.tensor(0.3, dtype=torch.float64)
    )
    drawn = torch.randn(5, 2, dtype=torch.float64, generator=stream(seed, "basis"))
    return LinearLatent(latent, torch.linalg.qr(drawn)[0], noise)


def test_linear_latent_is_the_dense_mixture() -> None:
    law = embedded(0.4)
    assert isinstance(law.latent, GaussianMixture)
    means = law.latent.means @ law.basis.T
    eye = torch.eye(5, dtype=torch.float64)
    dense = GaussianMixture(means, 0.3 * law.basis @ law.basis.T + 0.16 * eye)
    x, label = law.sample_labelled(6, stream(0, "x"))
    t = torch.tensor([0.0, 0.2, 0.5, 0.8, 0.95, 1.0]).double()
    for path in (Linear(), Trigonometric(), OrnsteinUhlenbeck(2.0)):
        for name in (
            "log_density",
            "velocity",
            "score",
            "posterior_mean",
            "jacobian",
            "divergence",
        ):
            for which in (None, label):
                ours, theirs = (getattr(m.at(path), name)(x, t, which) for m in (law, dense))
                close(ours, theirs, 1e-10)
        for when in (0.1, 0.9, 1.0):
            assert law.lipschitz(path, when) == pytest.approx(dense.lipschitz(path, when))
    close(law.covariance, dense.covariance, 1e-12)
    assert law.smooth and not embedded(0.0).smooth


def test_the_best_linear_autoencoder_is_principal_components() -> None:
    law = embedded(0.4)
    values, vectors = torch.linalg.eigh(law.covariance)
    assert law.reconstruction_error == pytest.approx(float(values[:3].sum()), rel=1e-12)
    close(vectors[:, 3:] @ vectors[:, 3:].T, law.basis @ law.basis.T, 1e-10)
    y = law.sample(40_000, stream(0, "y"))
    error = (y - law.decode(law.encode(y))).square().sum(1)
    assert abs(float(error.mean()) - law.reconstruction_error) < 4 * float(error.std()) / 200
    close(law.encoded.covariance, law.encode(law.encode(law.covariance).T), 1e-12)


def test_distances_of_laws_near_a_subspace() -> None:
    basis = embedded(0.1).basis
    one, two = GaussianSpec(dim=2).build(), GaussianSpec(dim=2, seed=1, std=0.5).build()
    flat = [LinearLatent(z, basis, 0.0) for z in (one, two)]
    assert wasserstein2(*flat) == pytest.approx(wasserstein2(one, two), rel=1e-9)  # an isometry
    boxes = [LinearLatent(box(2, half), basis, 0.0) for half in (1.0, 2.0)]
    assert wasserstein2(*boxes) == pytest.approx(math.sqrt(2 / 3), rel=1e-9)
    apart = [LinearLatent(box(2), basis, noise) for noise in (0.0, 0.3)]
    inside = wasserstein2(box(2), noised(box(2), 1.0, 0.3))
    assert wasserstein2(*apart) == pytest.approx(math.sqrt(inside**2 + 3 * 0.09), rel=1e-9)
    normal = LinearLatent(one, basis, 0.5)
    dense = Gaussian(normal.mean, normal.covariance)
    assert wasserstein2(normal, dense) < 1e-7
    assert early_stopping(normal, Linear(), 0.9) == pytest.approx(
        early_stopping(dense, Linear(), 0.9), rel=1e-9
    )
    assert normal.minimal_loss(Linear()) == pytest.approx(dense.minimal_loss(Linear()), rel=1e-9)
    other = LinearLatent(box(2), embedded(0.1, seed=1).basis, 0.0)
    with pytest.raises(UserError, match="no closed form"):
        wasserstein2(boxes[0], other)
    x = normal.sample(4, stream(0, "x"))
    ours, theirs = normal.flow_map(Linear()), dense.flow_map(Linear())
    close(ours(x, 0.2, 0.9), theirs(x, 0.2, 0.9), 1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latent:latent=20", "between 1 and dim"),
        ("latent:noise=-1", "negative"),
    ],
)
def test_bad_settings_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build("target", text)


def test_what_is_no_basis_is_refused() -> None:
    with pytest.raises(UserError, match="orthonormal"):
        LinearLatent(box(2), torch.ones(4, 2), 0.1)
    with pytest.raises(UserError, match=r"\(D, 2\)"):
        LinearLatent(box(2), torch.eye(4), 0.1)


def test_hundreds_of_dimensions_with_a_subspace() -> None:
    law = build("target", "latent:dim=600,latent=20,modes=100,spread=0.3").build()
    x = law.sample(50, stream(0, "x"))
    assert law.field(Linear())(x, torch.full((50,), 0.5)).shape == (50, 600)
    assert law.at(Linear()).jacobian(x[:3], 0.5).shape == (3, 600, 600)


def test_pushforward_is_a_bijection_with_its_constants() -> None:
    law = Pushforward(GaussianSpec(dim=4).build(), bend=0.6, waves=3, seed=2)
    z, _ = law.latent.sample_labelled(50, stream(0, "z"))
    y = law.decode(3 * z)
    close(law.encode(y), 3 * z, 1e-9)
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda u: law.decode(u[None])[0]))
    close(law.log_abs_det(z), torch.linalg.slogdet(jacobian(z))[1], 1e-10)
    inverse = torch.func.vmap(torch.func.jacrev(lambda u: law.encode(u[None])[0]))
    close(inverse(law.decode(z)) @ jacobian(z), torch.eye(4).double().expand(50, 4, 4), 1e-8)
    values = torch.linalg.svdvals(jacobian(4 * z))
    assert float(values.max()) <= law.lipschitz and float(1 / values.min()) <= law.inverse_lipschitz
    ends = torch.stack([torch.zeros(4).double(), torch.full((4,), math.pi, dtype=torch.float64)])
    steep, flat = torch.linalg.svdvals(jacobian(ends))
    close(steep, torch.full((4,), law.lipschitz, dtype=torch.float64), 1e-10)
    close(1 / flat, torch.full((4,), law.inverse_lipschitz, dtype=torch.float64), 1e-9)
    assert law.lipschitz == pytest.approx(1.6**3) and law.inverse_lipschitz == pytest.approx(
        0.4**-3
    )


def test_pushforward_density_and_distances() -> None:
    law = Pushforward(GaussianSpec(dim=1, shift=0.0).build(), bend=0.5, waves=2)
    y = torch.linspace(-8, 8, 20_001, dtype=torch.float64)[:, None]
    density = law.log_density(y).exp()
    assert float(torch.trapezoid(density, y[:, 0])) == pytest.approx(1, abs=1e-9)
    x, label = law.sample_labelled(20_000, stream(0, "x"))
    second = float(torch.trapezoid(density * y[:, 0].square(), y[:, 0]))
    error = float(x.square().std()) / math.sqrt(20_000)
    assert label is None and abs(float(x.square().mean()) - second) < 4 * error
    assert law.wasserstein2_range(2.0) == (0.5, 4.5)
    plain = Pushforward(MixtureSpec(dim=3).build(), bend=0.0)
    assert plain.n_classes == 5 and plain.dim == 3
    with pytest.raises(UserError, match="bend"):
        Pushforward(law.latent, bend=1.0)
    with pytest.raises(UserError, match="waves"):
        Pushforward(law.latent, waves=0)


def test_blocks_of_different_dimensions() -> None:
    law = Product([MixtureSpec(dim=2).build(), laplace(), GaussianSpec(dim=2).build()])
    x = law.sample(5, stream(0, "x"))
    jacobian = law.at(Linear()).jacobian(x, 0.5)
    exact = torch.func.vmap(torch.func.jacfwd(lambda y: law.field(Linear())(y[None], 0.5)[0]))(x)
    close(jacobian, exact, 1e-10)
    close(law.covariance[:2, :2], law.factors[0].covariance, 1e-13)
