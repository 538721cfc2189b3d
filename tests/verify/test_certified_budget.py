"""The budget of proved bounds: by hand, above the truth, and only where everything is proved."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

import monge
from monge.autoencoders.constants import certified_constants
from monge.components import build
from monge.verification.certified_budget import certified_budget, constants_of, in_words


def term(name: str, value: float, stderr: float, **extra: float) -> dict[str, Any]:
    return {"name": name, "value": value, "stderr": stderr, "coupling": "noise", "extra": extra}


REPORT: dict[str, Any] = {
    "truth_known": True,
    "terms": [
        term("discretisation", 0.1, 0.01, reference_error=0.02),
        term("velocity", 0.5, 0.1),
        term("early stopping", 0.0, 0.0),
    ],
    "sum": {"value": 0.6},
    "lower_bounds": {"a": {"value": 0.4, "stderr": 0.05}, "b": {"value": 0.9, "stderr": 0.5}},
    "certified": {"bound": 2.0},
    "autoencoder_constants": {"encoder": 1.0, "decoder": 3.0},
    "lipschitz": {"encoder": 0.9, "decoder": 2.5},
}


def test_the_terms_by_hand() -> None:
    found = certified_budget(REPORT)
    assert found is not None
    assert [t["bound"] for t in found["terms"]] == pytest.approx([0.1 + 0.03 + 0.06, 6.0, 0.0])
    assert [t["loose"] for t in found["terms"]] == [pytest.approx(1.9), pytest.approx(12.0), None]
    assert found["sum"] == pytest.approx(6.19) and found["measured"] == 0.6
    # Of the lower bounds, 0.4 - 0.15 is above 0 and 0.9 - 1.5 is not.
    assert found["at_least"] == pytest.approx(0.25) and found["loose"] == pytest.approx(24.76)
    said = " ".join(in_words({**REPORT, "certified_budget": found}))
    assert "decoder: certified 3, largest Jacobian norm seen 2.5" in said
    assert "at most 6.19" in said and "(12 times the measured)" in said and "24.8 times" in said


@pytest.mark.parametrize(
    "missing",
    [
        {"truth_known": False},
        {"certified": "no certificate"},
        {"autoencoder_constants": "none"},
        {"certified": {"bound": None}},
    ],
    ids=str,
)
def test_there_is_none_where_a_part_is_not_proved(missing: dict[str, Any]) -> None:
    assert certified_budget({**copy.deepcopy(REPORT), **missing}) is None


def test_of_an_autoencoder_without_a_rule_the_reason_is_told() -> None:
    why = constants_of(build("autoencoder", "conv:width=8").build((1, 8, 8)), 1.0)
    assert isinstance(why, str) and "GroupNorm" in why and "conv:capped=true" in why


@pytest.mark.slow
def test_a_run_has_a_budget_above_what_was_measured(tmp_path) -> None:
    run = monge.train(
        "target:mixture:dim=2,modes=2",
        network="lipschitz:cap=1.5,width=16,depth=1,heads=1",
        steps=30,
        threads=1,
        out=tmp_path / "run",
        verbose=False,
    )
    report = run.verify(quick=True, n=200)
    found = report["certified_budget"]
    assert found["sum"] >= report["sum"]["value"] + 2 * report["sum"]["stderr"]
    velocity = next(t for t in found["terms"] if t["name"] == "velocity")
    assert velocity["bound"] == pytest.approx(report["certified"]["bound"], rel=1e-3)
    assert "Certified budget" in (tmp_path / "run" / "report.html").read_text()


def test_training_holds_the_caps_of_a_convolutional_autoencoder(tmp_path) -> None:
    rng = torch.Generator().manual_seed(0)
    images = (torch.rand(80, 1, 8, 8, generator=rng) * 2 - 1).numpy()
    run = monge.train(
        images,
        autoencoder="conv:capped=true,down=2,channels=2,width=8,blocks=2,lr=0.05",
        autoencoder_steps=40,
        network="mlp:width=16,depth=1",
        steps=2,
        threads=1,
        out=tmp_path / "run",
        verbose=False,
    )
    bare = run.autoencoder.autoencoder
    norms = [torch.linalg.matrix_norm(b.convolution.weight, 2) for b in bare.decoder.blocks]
    assert all(0.9 < float(norm.detach()) <= 1 for norm in norms)
    moved = [
        p.grad is None and float(p.detach().abs().max()) > 0
        for p in bare.decoder.leave.parameters()
    ]
    assert all(moved)
    found = certified_constants(run.autoencoder)
    assert math.isfinite(found.decoder) and found.decoder > 0
    again = monge.Run.load(tmp_path / "run")
    assert certified_constants(again.autoencoder) == found
