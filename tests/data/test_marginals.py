"""Curves that make columns normal: inverses, densities that integrate to one, and ranges."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import special, stats

import monge
from monge import autoencoders
from monge.autoencoders.identity import IdentitySpec
from monge.autoencoders.marginals import Curves, WithMarginals
from monge.autoencoders.pca import PCASpec
from monge.data.base import Data
from monge.data.columns.marginals import Marginal, fitted, is_normal, possible_range
from monge.data.columns.schema import TableCodec
from monge.data.reading import Reading
from monge.data.tables.tables import from_table
from monge.errors import UserError

N = 3000

DRAWS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "normal": lambda rng: rng.normal(3, 2, N),
    "lognormal": lambda rng: rng.lognormal(0, 1.5, N),
    "cauchy": lambda rng: rng.standard_cauchy(N),
    "two modes": lambda rng: np.where(
        rng.random(N) < 0.3, rng.normal(-9, 0.1, N), rng.normal(4, 1, N)
    ),
    "uniform in [0, 1]": lambda rng: rng.random(N),
    "percent": lambda rng: np.round(100 * rng.beta(0.5, 0.5, N), 1),
    "counts with zeros": lambda rng: np.where(rng.random(N) < 0.4, 0, rng.poisson(6, N)),
    "codes": lambda rng: rng.integers(1, 6, N),
    "two levels": lambda rng: (rng.random(N) < 0.2).astype(int),
    "money": lambda rng: np.round(rng.lognormal(5, 1, N), 2),
}


def fresh(place: int, draw: Callable[[np.random.Generator], np.ndarray]) -> np.ndarray:
    """The numbers of a law, the same in whatever order tests run."""
    return draw(np.random.default_rng([7, place]))


LAWS = {name: functools.partial(fresh, k, draw) for k, (name, draw) in enumerate(DRAWS.items())}


def data_of(columns: dict[str, np.ndarray], rule: str) -> Data:
    return from_table(pa.table(columns), Reading(marginals=rule))  # type: ignore[arg-type]


def bent(data: Data) -> WithMarginals:
    assert data.codec is not None
    return WithMarginals(IdentitySpec().build(data.shape), data.codec.curves)


def curves_of(data: Data) -> Curves:
    assert data.codec is not None
    return Curves([c for c in data.codec.curves if c is not None])


def nodes_of(
    curves: Curves, column: int, pieces: int, order: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes x and weights of a quadrature over a column's numbers, in its units.

    By Gauss and Legendre between its knots and numbers with even scores within [-8, 8].
    """
    knots = curves.u[column, : int(curves.count[column])]
    cuts = torch.cat([torch.linspace(-8, 8, pieces + 1, dtype=torch.float64), knots]).sort().values
    edges = curves.value(cuts[:, None].expand(-1, len(curves.count)))[:, column, None]
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(order))
    half = edges.diff(dim=0) / 2
    return ((edges[:-1] + edges[1:]) / 2 + half * nodes).flatten(), (half * weights).flatten()


@pytest.mark.parametrize("rule", ["quantile", "power"])
@pytest.mark.parametrize("law", LAWS)
def test_a_curve_inverts_and_has_its_derivative(law: str, rule: str) -> None:
    curves = curves_of(data_of({"a": LAWS[law]()}, rule))
    u = torch.linspace(-6, 6, 2001, dtype=torch.float64)[:, None]
    x = curves.value(u)
    assert bool((x.diff(dim=0) > 0).all())
    inside = ~curves.beyond(x)[:, 0] & (u[:, 0].abs() < 5)
    slope = curves.log_slope(u).exp()
    # The inverse is exact to the rounding of x, which the slope magnifies: in such roundings the
    # Cauchy law, whose numbers span five orders, has 25, all others 1.
    allowed = 50 * 2.0**-52 * (1 + (x.abs() / slope)[inside])
    assert bool(((curves.score(x) - u)[inside].abs() <= allowed).all())
    automatic = torch.func.jvp(curves.value, (u,), (torch.ones_like(u),))[1]
    torch.testing.assert_close(slope, automatic, rtol=1e-8, atol=0)


@pytest.mark.parametrize("law", LAWS)
def test_scores_are_normal_on_other_rows_of_the_law(law: str) -> None:
    data = data_of({"a": LAWS[law](), "b": np.random.default_rng(0).random(N)}, "quantile")
    scores = bent(data).scores(data.heldout)[:, 0].numpy()
    # The Kolmogorov distance of n from N rows of one law: 0.1 % point, 1.95 sqrt(1/n + 1/N);
    # levels are dequantised, so that the scores have no ties.
    limit = 1.95 * math.sqrt(1 / len(data.heldout) + 1 / len(data.train))
    assert stats.kstest(scores, "norm").statistic < limit


def test_the_curve_of_a_known_law_is_its_quantile_function() -> None:
    # Exponential with mean 2: Q(u) = -2 log(1 - Phi(u)).
    x = -2 * np.log1p(-(np.arange(20_000) + 0.5) / 20_000)
    curve = fitted(x, possible_range(x), "quantile")
    assert curve is not None and curve.low == 0
    u = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    found = Curves([curve.curve]).value(u)[:, 0].numpy()
    np.testing.assert_allclose(found, -2 * np.log1p(-special.ndtr(u[:, 0].numpy())), rtol=3e-5)


@pytest.mark.parametrize("rule", ["quantile", "power"])
@pytest.mark.parametrize("law", ["lognormal", "two modes", "uniform in [0, 1]", "codes", "cauchy"])
def test_a_density_of_one_column_integrates_to_one(law: str, rule: str) -> None:
    data = data_of({"a": LAWS[law]()}, rule)
    curves, model = curves_of(data), bent(data)
    x, weights = nodes_of(curves, 0, 40_000, 8)
    x = x[:, None]
    logs = model.log_abs_det_at(x)
    assert logs is not None
    density = (-0.5 * curves.score(x)[:, 0] ** 2 - 0.5 * math.log(2 * math.pi) - logs).exp()
    total = float((density * weights).sum())
    # Near a bound numbers are told apart to 1e-12 of the last knot's distance. Where few powers fit
    # a law that is cut off, as uniform numbers, 5e-7 of its mass lies nearer than that.
    assert total == pytest.approx(1, abs=1e-10 if rule == "quantile" else 1e-6)


def test_a_density_of_two_columns_integrates_to_one_in_the_file_s_units() -> None:
    n = 600
    both = np.random.default_rng(1).multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], n)
    data = data_of({"a": np.exp(both[:, 0]), "b": special.ndtr(both[:, 1])}, "quantile")
    model = bent(data)
    pca = WithMarginals(PCASpec().build(data.shape), data.codec.curves).fit(data.train)  # type: ignore
    run = autoencoders.standardise(pca, data.train).double()
    curves = curves_of(data)

    sides = [nodes_of(curves, k, 40, 10) for k in range(2)]
    grid = torch.cartesian_prod(*(x for x, _ in sides))
    area = torch.cartesian_prod(*(w for _, w in sides)).prod(1)
    z = run.encode(grid).mean
    logs = run.log_abs_det_at(grid)
    assert logs is not None and run.bijective and model.bijective and run.log_abs_det is None
    density = (-0.5 * z.square().sum(1) - math.log(2 * math.pi) - logs).exp()
    # The quadrature's own error, at bounds: 1e-5 of order 8, 2e-6 of order 10.
    assert float((density * area).sum()) == pytest.approx(1, abs=4e-6)


def test_the_log_determinant_is_that_of_the_decoder() -> None:
    data = data_of({"a": LAWS["lognormal"](), "b": LAWS["two modes"]()}, "quantile")
    pca = WithMarginals(PCASpec().build(data.shape), data.codec.curves).fit(data.train)  # type: ignore
    model = autoencoders.standardise(pca, data.train).double()
    z = torch.tensor([[0.3, -1.1], [2.0, 0.4]], dtype=torch.float64)
    for row in z:
        jacobian = torch.autograd.functional.jacobian(lambda y: model.decode(y[None])[0], row)
        measured = torch.linalg.slogdet(jacobian).logabsdet
        logs = model.log_abs_det_at(model.decode(row[None]))
        assert logs is not None and float(logs) == pytest.approx(float(measured), abs=1e-6)


def test_nothing_is_decoded_out_of_a_column_s_range() -> None:
    columns = {law: LAWS[law]() for law in LAWS}
    data = data_of(columns, "quantile")
    assert data.codec is not None
    z = 12 * torch.randn(4000, len(LAWS), generator=torch.Generator().manual_seed(1))
    made = data.codec.decode(bent(data).decode(z)).to_pydict()
    ends = {
        "lognormal": (0, math.inf), "uniform in [0, 1]": (0, 1), "percent": (0, 100),
        "counts with zeros": (0, math.inf), "codes": (1, 5), "two levels": (0, 1),
        "money": (0, math.inf), "normal": (-math.inf, math.inf),
    }  # fmt: skip
    for law, (low, high) in ends.items():
        numbers = np.asarray(made[law])
        assert low <= numbers.min() and numbers.max() <= high and np.isfinite(numbers).all(), law
    assert np.asarray(made["normal"]).min() < columns["normal"].min()  # no bound is invented
    for law, decimals in (("percent", 1), ("money", 2)):
        numbers = np.asarray(made[law])
        np.testing.assert_array_equal(numbers, np.round(numbers, decimals))


def test_every_row_comes_back() -> None:
    columns = {law: LAWS[law]() for law in ("percent", "counts with zeros", "codes", "money")}
    data = data_of(columns, "quantile")
    assert data.codec is not None and data.rows is not None
    model = bent(data)
    again = model.decode(model.encode(data.train).mean)
    # Scores and numbers are rounded to float32; the slope magnifies the former.
    wide = data.train.double()
    u = model.curves.score(wide)
    rounding = 2.0**-24 * (wide.abs() + model.curves.log_slope(u).exp() * u.abs())
    assert bool(((again.double() - wide).abs() <= 2 * rounding).all())
    back = data.codec.decode(again).to_pydict()
    plain = data.codec.decode(data.train).to_pydict()
    for name, column in back.items():
        moved = np.asarray(column) != np.asarray(plain[name])
        # The noise within a cell may come as near to its edge as that.
        column_of = next(c for c in data.codec.columns if c.name == name)
        k = [c.name for c in data.codec.columns].index(name)
        assert column_of.grid is not None
        near = 4 * rounding[:, k].numpy() / column_of.grid.width  # from either side of two edges
        assert moved.sum() <= near.sum() + 4 * math.sqrt(near.sum()), name
        steps = np.abs(np.asarray(column) - np.asarray(plain[name])) / column_of.grid.width
        assert steps.max() < 1.5, name


def test_numbers_at_a_bound_have_no_density_and_a_finite_score() -> None:
    data = data_of({"a": LAWS["lognormal"]()}, "quantile")
    assert data.codec is not None
    x = torch.tensor([[-data.codec.columns[0].centre - 1.0]])
    logs = bent(data).log_abs_det_at(x)
    assert logs is not None and float(logs) == math.inf
    assert bool(bent(data).scores(x).isfinite().all())


def test_auto_leaves_normal_columns_and_short_tables_alone() -> None:
    normal = np.random.default_rng(2).permutation(special.ndtri((np.arange(N) + 0.5) / N))
    data = data_of({"a": normal, "b": LAWS["lognormal"]()}, "auto")
    assert data.codec is not None
    assert [c is None for c in data.codec.curves] == [True, False]
    few = data_of({"a": LAWS["lognormal"]()[:40]}, "auto")
    assert few.codec is not None and few.codec.curves == [None]
    none = data_of({"a": LAWS["lognormal"]()}, "none")
    assert none.codec is not None and none.codec.curves == [None]


def test_normality_is_refused_as_often_as_its_level_says() -> None:
    rng = np.random.default_rng(0)
    refused = sum(not is_normal(np.sort(rng.normal(5, 3, 300))) for _ in range(400))
    assert 5 <= refused <= 38  # 20 expected, 5 % of 400; four standard deviations each way
    assert not is_normal(np.sort(rng.random(300)))


def test_a_codec_comes_back_from_its_file_and_earlier_files_are_read() -> None:
    data = data_of({"a": LAWS["money"](), "b": LAWS["normal"]()}, "quantile")
    assert data.codec is not None
    content = json.loads(json.dumps(data.codec.to_json()))
    assert TableCodec.from_json(content) == data.codec
    for column in content["columns"]:
        del column["marginal"]
    earlier = TableCodec.from_json(content)
    plain = tuple(dataclasses.replace(c, marginal=None) for c in data.codec.columns)
    assert earlier.columns == plain
    torch.testing.assert_close(earlier.encode(data.table).x, data.codec.encode(data.table).x)


def test_an_autoencoder_comes_back_from_its_folder(tmp_path) -> None:
    data = data_of({"a": LAWS["money"](), "b": LAWS["codes"]()}, "quantile")
    pca = WithMarginals(PCASpec().build(data.shape), data.codec.curves).fit(data.train)  # type: ignore
    autoencoders.save(autoencoders.standardise(pca, data.train), tmp_path)
    loaded = autoencoders.load(tmp_path)
    assert torch.equal(
        loaded.encode(data.heldout).mean, autoencoders.load(tmp_path).encode(data.heldout).mean
    )
    back = loaded.decode(loaded.encode(data.heldout).mean)
    torch.testing.assert_close(back, data.heldout, rtol=2e-5, atol=1e-6)


def test_columns_left_as_they_are_come_back_from_the_folder_beside_bent_ones(tmp_path) -> None:
    normal = special.ndtri((np.arange(N) + 0.5) / N)
    normal = np.random.default_rng(3).permutation(normal)
    data = data_of({"a": normal, "b": LAWS["lognormal"]()}, "auto")
    assert data.codec is not None and data.codec.curves[0] is None
    made = WithMarginals(IdentitySpec().build(data.shape), data.codec.curves)
    autoencoders.save(autoencoders.standardise(made, data.train), tmp_path)
    z = autoencoders.load(tmp_path).encode(data.heldout).mean
    torch.testing.assert_close(autoencoders.load(tmp_path).decode(z), data.heldout)


def test_knots_that_do_not_increase_are_refused() -> None:
    good = Marginal((-1.0, 0.0, 1.0), (0.0, 1.0, 4.0), low=-1.0)
    Curves([good.curve])
    for damage in ({"u": [0.0, 0.0, 1.0]}, {"x": [0.0, 5.0, 4.0]}, {"low": 0.5}):
        with pytest.raises(UserError, match="do not increase"):
            Curves([{**good.curve, **damage}])


def test_the_density_of_a_run_integrates_to_one_in_the_file_s_units(tmp_path) -> None:
    numbers = np.random.default_rng(5).lognormal(0, 1, 400)
    np.savez(tmp_path / "table.npz", arr_0=np.stack([numbers, np.ones(400)], 1))
    run = monge.train(
        str(tmp_path / "table.npz"),
        out=tmp_path / "run",
        marginals="quantile",
        network="mlp:width=16,depth=1",
        steps=5,
        threads=1,
    )
    curves = run.autoencoder.autoencoder.curves
    x, weights = nodes_of(curves, 0, 80, 8)
    found = run.log_density(x[:, None].float(), steps=10)
    assert found.space == "data"
    assert float((found.value.double().exp() * weights).sum()) == pytest.approx(1, abs=2e-6)
    assert min(run.sample(200).table().column(0).to_pylist()) >= 0
