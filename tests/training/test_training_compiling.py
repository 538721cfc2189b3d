"""Compiling: chosen where it pays, left where it fails, kept by a run that goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import Net, Rows, assert_same, outcome, squared, toy_spec, train

from monge.errors import Stopped, UserError
from monge.objectives.base import Batch
from monge.training import checkpoint, compiling, plan, step
from monge.training.compiling import pays
from monge.training.engine import Engine
from monge.training.loop import Fitted, fit
from monge.training.spec import Batches

Backend = Callable[..., Callable[..., Any]]


def scaled(factor: float) -> Backend:
    """A compiler whose losses are a bit off, so that its numbers are told from eager ones."""

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        def run(*inputs: torch.Tensor) -> tuple[Any, ...]:
            return tuple(factor * out if out.requires_grad else out for out in graph(*inputs))

        return run

    return backend


def broken(*_: Any) -> Callable[..., Any]:
    """No compiler at all."""
    raise RuntimeError("no C++ compiler found\nlong trace")


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled steps are a millionth off, and twice as fast as eager ones."""
    monkeypatch.setattr(step, "BACKEND", scaled(1 + 1e-6))
    monkeypatch.setattr(plan, "_time_step", clock(0.5, 1.0))


def clock(compiled_s: float, eager_s: float) -> Callable[[Engine, Batches, int], float]:
    return lambda engine, *_: compiled_s if engine.loss.compiled else eager_s


def always(monkeypatch: pytest.MonkeyPatch, value: bool = True) -> None:
    monkeypatch.setattr(compiling, "pays", lambda *_: value)


def compiled(fitted: Fitted) -> bool:
    assert fitted.plan is not None
    return fitted.plan.compiled


def weights(fitted: Fitted) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(fitted.network.parameters())


@pytest.mark.parametrize(
    ("steps", "step_s", "device", "expected"),
    [
        (300, 0.1, "cpu", False),  # the demo: half a minute
        (3_000, 0.2, "cpu", False),  # ten minutes
        (20_000, 0.2, "cpu", True),  # more than an hour
        (1_000_000, 0.002, "cpu", True),  # a small network for very long
        (10_000, 0.002, "cpu", False),  # a small network
        (1_000, 60.0, "cuda", True),
        (1_000_000, 1.0, "mps", False),
        (0, 1.0, "cpu", False),
    ],
)
def test_compiling_pays_where_it_clearly_saves_more_than_it_costs(
    steps: int, step_s: float, device: str, expected: bool
) -> None:
    assert pays(steps * step_s, device) is expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"steps": 1_000}, False),
        ({"steps": 3_000}, True),  # fifty minutes of eager steps
        ({"steps": None, "minutes": 20.0}, False),
        ({"steps": None, "minutes": 120.0}, True),
        ({"steps": 1_000_000, "minutes": 20.0}, False),
        ({"steps": 3_000, "minutes": 20.0}, False),
        ({"steps": 3_000, "compile": "off"}, False),
        ({"steps": 3_000, "eager": "a reason"}, False),
        ({"steps": 10, "compile": "on"}, True),
        ({"steps": 10, "compile": "on", "eager": "a reason"}, False),
    ],
)
def test_auto_decides_by_the_time_of_the_eager_steps_that_are_left(
    settings: dict[str, Any], expected: bool
) -> None:
    """Steps take a second; a dry run says what would be done without compiling."""
    fitted = train(**{"compile": "auto", "dry_run": True, **settings})
    assert compiled(fitted) is expected
    assert fitted.plan is not None and fitted.plan.compile_s == 0.0


def test_what_is_compiled_says_so_and_plans_its_minutes_by_compiled_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    always(monkeypatch)
    told: list[str] = []
    spec = toy_spec(compile="auto", steps=4)
    fitted = fit(Net(), squared, Rows(), spec, on_compiled=lambda: told.append("compiled"))
    found = capsys.readouterr().err
    assert "a step takes 0.5 s, an eager one 1 s" in found and ", compiled" in found
    assert told == ["compiled"] and compiled(fitted)
    assert fitted.seconds >= fitted.plan.compile_s > 0  # type: ignore[union-attr]
    timed = train(compile="auto", steps=None, minutes=10.0, dry_run=True)
    assert timed.plan is not None and timed.plan.step_s == 1.0
    spec = toy_spec(compile="auto", steps=None, minutes=0.2)
    found = fit(Net(), squared, Rows(), spec, quiet=True).plan
    assert found is not None and found.steps == int((12 - found.compile_s) / 0.5)


def test_eager_is_the_word_where_nothing_is_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Net(), squared, Rows(), toy_spec(compile="auto"))
    assert "of 12 rows, eager" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("asked", ["on", "auto"])
@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (broken, "RuntimeError: no C++ compiler found"),
        (scaled(1.2), "its loss or gradient is another one"),
    ],
)
def test_what_fails_falls_back_to_eager_and_says_why_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: Any,
    backend: Backend,
    reason: str,
) -> None:
    expected = train()
    always(monkeypatch)
    monkeypatch.setattr(step, "BACKEND", backend)
    fitted = fit(Net(), squared, Rows(), toy_spec(compile=asked))
    assert torch.equal(weights(fitted), weights(expected)) and not compiled(fitted)
    lines = [line for line in capsys.readouterr().err.splitlines() if "not compiled" in line]
    assert len(lines) == 1 and "long trace" not in lines[0]
    assert f"not compiled, {reason}" in lines[0].replace("BackendCompilerFailed: ", "").replace(
        "backend='broken' raised:", "RuntimeError: no C++ compiler found"
    )


def test_a_network_that_is_another_one_when_it_is_compiled_is_eager(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Odd(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (1.1 if torch.compiler.is_compiling() else 1.0)

    fitted = fit(Odd(), squared, Rows(), toy_spec(compile="on"))
    assert torch.equal(weights(fitted), weights(train())) and not compiled(fitted)
    assert capsys.readouterr().err.count("not compiled, its loss or gradient is another one") == 1


def test_a_network_that_python_must_look_at_is_compiled_in_parts() -> None:
    class Looking(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if float(x.sum()) > 1e9 else 1.0 * x)

    fitted = fit(Looking(), squared, Rows(), toy_spec(compile="on"), quiet=True)
    torch.testing.assert_close(weights(fitted), weights(train()), rtol=1e-3, atol=1e-3)


def test_what_is_not_faster_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    always(monkeypatch)
    monkeypatch.setattr(plan, "_time_step", clock(0.99, 1.0))
    fitted = fit(Net(), squared, Rows(), toy_spec(compile="auto"))
    assert torch.equal(weights(fitted), weights(train())) and not compiled(fitted)
    assert "going on eagerly" in capsys.readouterr().err


def test_what_cannot_be_compiled_says_why_where_it_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for asked, times in (("on", 1), ("auto", 0), ("off", 0)):
        fit(Net(), squared, Rows(), toy_spec(compile=asked, eager="a reason"))
        assert capsys.readouterr().err.count("not compiled: a reason") == times
    with pytest.raises(UserError, match="a sharded network is not compiled"):
        train(compile="on", shard=True)
    assert not compiled(train(compile="auto", shard=True))


class Stopping(Rows):
    """Sends this process a signal while the batch of a step is drawn."""

    def draw(self, step: int) -> Batch:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().draw(step)


@pytest.mark.parametrize(
    ("begun", "then", "settings"),
    [
        (True, False, {"dropout": 0.2, "micro_batch": 5}),
        (True, True, {"precision": "float64"}),
        (False, True, {}),
    ],
)
def test_a_run_goes_on_as_it_began_whatever_would_pay_now(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    begun: bool,
    then: bool,
) -> None:
    always(monkeypatch, begun)
    whole, parts, other = tmp_path / "whole", tmp_path / "parts", tmp_path / "other"
    train(whole, compile="auto", **settings)
    with pytest.raises(Stopped):
        train(parts, batches=Stopping(), compile="auto", **settings)
    found = checkpoint.load(parts)
    assert found is not None and found.facts["compiled"] is begun
    always(monkeypatch, then)
    train(parts, compile="auto", **settings)
    assert_same(parts, whole)
    train(other, compile="off" if begun else "on", **settings)
    with pytest.raises(AssertionError):
        assert_same(other, whole)


def test_what_was_recorded_before_there_was_a_choice_goes_on_eagerly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, batches=Stopping(), compile="off")
    manifest = next((tmp_path / "state").glob("step-*/manifest.json"))
    manifest.write_text(manifest.read_text().replace('"compiled": false,', ""))
    always(monkeypatch)
    assert not compiled(train(tmp_path, compile="auto"))
    assert "ema/inner.weight" in outcome(tmp_path)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dropout": 0.2},
        {"micro_batch": 5},
        {"precision": "float64"},
        {"clip": None, "dropout": 0.1},
    ],
    ids=repr,
)
def test_a_run_that_torch_compiles_is_the_same_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr(step, "BACKEND", "inductor")
    train(tmp_path / "whole", compile="on", **settings)
    with pytest.raises(Stopped):
        train(tmp_path / "parts", batches=Stopping(), compile="on", **settings)
    fitted = train(tmp_path / "parts", compile="on", **settings)
    assert compiled(fitted)
    assert_same(tmp_path / "parts", tmp_path / "whole")
