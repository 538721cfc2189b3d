"""Networks with a part for each piece of time: which part is called, and what a run makes of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import monge
from monge.cli import main
from monge.components import build
from monge.errors import UserError
from monge.fields import Predict
from monge.flows import Integrated
from monge.networks.certificate import certificate
from monge.networks.piecewise import Piecewise, PiecewiseSpec
from monge.paths import Linear
from monge.solvers import RK4, Euler
from monge.tensors import stream
from monge.times import Uniform
from monge.training.caps import Caps


class Number(nn.Module):
    """The constant field k, which counts the rows that it sees."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(k))
        self.seen: list[int] = []

    def forward(self, x: Tensor, t: object, cond: object = None) -> Tensor:
        self.seen.append(len(x))
        return self.k * torch.ones_like(x)


def staircase() -> Piecewise:
    """1 before 1/2, 2 up to 3/4, 3 after."""
    return Piecewise([Number(1.0), Number(2.0), Number(3.0)], (0.0, 0.5, 0.75, 1.0))


def test_knots_halve_towards_the_data() -> None:
    assert PiecewiseSpec(pieces=4).knots == (0.0, 0.5, 0.75, 0.875, 1.0)
    assert build("network", "piecewise:mlp:width=8+depth=1,pieces=2") == PiecewiseSpec(
        "mlp:width=8+depth=1", 2
    )


@torch.no_grad()
@pytest.mark.parametrize("as_tensor", [False, True])
def test_each_time_has_its_piece(as_tensor: bool) -> None:
    network, x = staircase(), torch.zeros(6, 2)
    times = [0.0, 0.49, 0.5, 0.74, 0.75, 1.0]
    expected = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    if as_tensor:
        shuffled = torch.tensor([4, 0, 5, 2, 1, 3])
        found = network(x, torch.tensor(times)[shuffled])[:, 0]
        assert found.tolist() == torch.tensor(expected)[shuffled].tolist()
        scalar = [float(network(x[:1], torch.tensor(t))[0, 0]) for t in times]
        assert scalar == expected
    else:
        assert [float(network(x[:1], t)[0, 0]) for t in times] == expected


def test_a_batch_without_rows_of_a_piece_still_gives_it_a_gradient() -> None:
    network = staircase()
    network(torch.zeros(3, 2), torch.tensor([0.1, 0.2, 0.9])).sum().backward()
    grads = [p.grad for p in network.parameters()]
    assert [float(g) for g in grads if g is not None] == [4.0, 0.0, 2.0]


@torch.no_grad()
def test_no_step_crosses_a_knot() -> None:
    field = Predict(staircase(), Linear())
    assert field.breakpoints == (0.5, 0.75)
    for solver in (Euler(), RK4()):
        flow = Integrated(field, solver, Uniform(1))
        assert flow.knots == (0.0, 0.5, 0.75, 1.0)
        x = flow(torch.zeros(2, 1), 0.0, 1.0)
        assert x.flatten().tolist() == pytest.approx([0.5 + 0.5 + 0.75] * 2)
    assert float(field.restrict(0.0, 0.5)(torch.zeros(1, 1), 0.5)) == 1.0  # its end, too


def test_traced_it_has_no_branch() -> None:
    network = PiecewiseSpec("mlp:width=8+depth=1", 3).build((2,), n_classes=2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.4, generator=stream(1, "weights"))
    network = network.eval()
    x, t = torch.randn(5, 2, generator=stream(2, "x")), torch.linspace(0, 1, 5)
    label = {"label": torch.tensor([0, 1, -1, 0, 1])}
    program = torch.export.export(network, (x, t, label))
    for at in (t, t.flip(0)):
        torch.testing.assert_close(program.module()(x, at, label), network(x, at, label))


def test_the_certificate_is_the_largest_of_the_pieces() -> None:
    network = PiecewiseSpec("lipschitz:cap=3+width=8+depth=1+heads=1", 3).build((2,))
    for k, parameter in enumerate(network.parameters()):
        nn.init.normal_(parameter, generator=stream(k, "weights"))
    Caps(network).hold()
    for k, piece in enumerate(network.pieces):
        piece.gain *= (k + 1) / 3
    each = [certificate(piece).euclidean for piece in network.pieces]
    assert certificate(network).euclidean == max(each) <= 3 and len({*each}) == 3
    assert certificate(network, 0.6).euclidean == certificate(network.pieces[1], 0.6).euclidean
    at_knot = [certificate(piece, 0.75).euclidean for piece in network.pieces[1:]]
    assert certificate(network, 0.75).euclidean == max(at_knot)


def test_a_run_learns_is_saved_and_sampled(tmp_path: Path) -> None:
    run = monge.train(
        "target:mixture:dim=2,modes=2", network="piecewise:mlp:width=16+depth=1,pieces=4",
        steps=30, batch=32, threads=1, device="cpu", out=tmp_path / "run",
    )  # fmt: skip
    assert isinstance(run.network, Piecewise)
    again = monge.load(tmp_path / "run")
    assert again.spec.network == "piecewise:of=mlp:width=16+depth=1,pieces=4"
    a, b = (r.sample(16, seed=3, steps=4).x for r in (run, again))
    assert torch.equal(a, b)
    assert again.flow(steps=1).knots == (0.0, 0.5, 0.75, 0.875, 1.0)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("piecewise:pieces=1", "pieces must be from 2 to 16, not 1"),
        ("piecewise:exact", "its pieces cannot be exact"),
        ("piecewise:piecewise", "its pieces cannot be piecewise"),
        ("piecewise:mpl", "unknown network 'mpl': did you mean 'mlp'?"),
        ("piecewise:mlp:widht=8", "has no setting 'widht'"),
        ("piecewise:mlp:two_times=true", "leave out two_times"),
        ("piecewise:mine.py:Net", "takes networks of monge's"),
    ],
)
def test_bad_settings(network: str, message: str) -> None:
    with pytest.raises(UserError, match="network") as caught:
        build("network", network)
    assert message in str(caught.value)


def test_a_flow_map_of_pieces_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "target:gaussian", "--network", "piecewise", "--objective", "meanflow"]
    assert main([*words, "--steps", "2", "--out", str(tmp_path / "o")]) == 2
    assert "has no setting two_times, which a flow map needs" in capsys.readouterr().err


def test_knots_must_fit() -> None:
    with pytest.raises(UserError, match="need 3 ascending knots"):
        Piecewise([Number(1.0), Number(2.0)], (0.0, 1.0))
    assert dataclasses.replace(PiecewiseSpec(), pieces=2).knots == (0.0, 0.5, 1.0)
