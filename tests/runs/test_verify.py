"""`monge verify` on small runs and on fields made elsewhere."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from monge.cli import main
from monge.fitting.train import train
from monge.runs.run import Run
from monge.tensors import stream
from monge.training import checkpoint, journal
from monge.verification import longer_training
from monge.verification.longer_training import trials_of
from monge.verification.verify import verify_run

FIELDS = """
def exact(x, t):
    "The field of N(0, I) on the linear path."
    t = t[:, None]
    return (2 * t - 1) / (t**2 + (1 - t) ** 2) * x

def reversed_exact(x, s):
    "The same with data at time 0."
    return -exact(x, 1 - s)

def short(x, t):
    return x[:, :1]
"""


def verified(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict, str]:
    code = main(["verify", *map(str, words), "--quick", "-n", "60", "--json"])
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return code, json.loads(told.out), told.err


def test_a_run_of_a_known_law_has_exact_terms_and_a_sum_that_holds(table_run: Run) -> None:
    found = verify_run(table_run, 60, quick=True)
    assert found["truth_known"] and found["violations"] == []
    kinds = {t["name"]: t["kind"] for t in found["terms"]}
    assert kinds["velocity"] == "upper" and len(kinds) == 6
    velocity = next(t for t in found["terms"] if t["name"] == "velocity")
    assert velocity["value"] > 0.1, "thirty steps do not make a good field"
    assert found["field_errors"]["against"] == "the true field"
    assert found["field_errors"]["growth_bound"] > 0
    assert found["lipschitz"]["exact_rate"] is not None
    page = (table_run.folder / "report.html").read_text()
    assert "Where the error comes from" in page and "<canvas" in page
    again = json.loads((table_run.folder / "evaluation" / "verify.json").read_text())
    assert again["sum"]["value"] == found["sum"]["value"]


def test_more_steps_that_are_tried_are_what_the_command_would_do(
    table_run: Run, tmp_path: Path
) -> None:
    """The trial goes on from the checkpoint as the run itself does, and leaves that as it was."""
    trials = trials_of(table_run, table_run.data(), 60.0)
    assert trials.longer is not None
    change, field = trials.longer()
    assert change == "--steps 60" and checkpoint.newest_step(table_run.folder) == 30
    copy = tmp_path / "run"
    shutil.copytree(table_run.folder, copy)
    followed = train(dataclasses.replace(table_run.spec, steps=60), out=copy).field
    x = torch.randn(5, 2, generator=stream(0, "x"))
    with torch.no_grad():
        assert torch.equal(field(x, 0.5), followed(x, 0.5))
        assert not torch.equal(field(x, 0.5), table_run.field(x, 0.5))
    assert trials_of(table_run, table_run.data(), 0.01).longer is None, "it would take too long"


def test_a_run_of_images_has_an_estimate_and_says_so(digits_run: Run) -> None:
    found = verify_run(digits_run, 60, quick=True, guidance=2.0)
    assert not found["truth_known"]
    terms = {t["name"]: t for t in found["terms"]}
    assert terms["velocity"]["kind"] == "estimate"
    assert terms["guidance"]["value"] > 0 and terms["reconstruction"]["value"] > 0.3
    assert found["field_errors"]["against"] == "the memoriser of training data"
    assert found["advice"]["text"]


def test_too_few_held_out_examples_are_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = torch.randn(60, 2, generator=stream(0, "few")).numpy()
    np.save(tmp_path / "x.npy", rows)
    small = ["--network", "mlp:width=8,depth=1", "--steps", "2", "--batch", "8", "--threads", "1"]
    assert main(["train", f"{tmp_path}/x.npy", *small, "--out", f"{tmp_path}/run"]) == 0
    capsys.readouterr()
    code, found, _ = verified(capsys, tmp_path / "run")
    assert code == 2 and "at least 40 held-out examples" in found["error"]
    assert not (tmp_path / "run" / "evaluation" / "verify.json").exists()


def test_a_sum_above_the_limit_exits_with_three(
    table_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found, message = verified(capsys, table_run.folder, "--fail-above", "0.001")
    assert code == 3 and "is above 0.001" in message and found["exit_code"] == 3
    assert found["sum"]["value"] > 0.001 and len(found["terms"]) == 6, "what was measured is told"


@pytest.mark.parametrize(("name", "clock"), [("exact", "noise"), ("reversed_exact", "data")])
def test_a_field_made_elsewhere_on_either_clock(
    name: str, clock: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of N(0, I), learned from a table of its samples: nothing is wrong with the field itself."""
    (tmp_path / "fields.py").write_text(FIELDS)
    words = ("target:hypercube:dim=2", "--component", f"{tmp_path}/fields.py:{name}")
    code, found, _ = verified(capsys, *words, "--clock", clock, "--out", tmp_path / name)
    assert code == 0 and (tmp_path / name / "report.html").exists()
    # exp(int (2t - 1) / (t^2 + (1-t)^2) dt) = 1 from 0 to 1: the flow of noise is noise.
    assert found["lipschitz"]["amplification"] == pytest.approx(1.0, abs=0.02)


def test_bad_components_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fields.py").write_text(FIELDS)
    for name, message in (
        ("short", "should return a tensor of the same shape"),
        ("exat", "did you mean 'exact'?"),
    ):
        words = ("target:gaussian:dim=2", "--component", f"{tmp_path}/fields.py:{name}")
        code, _, told = verified(capsys, *words)
        assert code == 2 and message in told
    assert main(["verify"]) == 2 and "name the run" in capsys.readouterr().err


def test_the_trend_of_training_is_that_of_the_last_two_fifths(tmp_path: Path) -> None:
    """Losses of 9 in three fifths, then 4 in the fourth and 3 in the last: -25 %."""
    losses = [9.0] * 30 + [4.0] * 10 + [3.0] * 10
    lines = [json.dumps({"step": k, "loss": v}) for k, v in enumerate(losses)]
    (tmp_path / journal.NAME).write_text("\n".join(lines) + "\n")
    assert longer_training._trend(tmp_path).startswith(
        "its loss changed by -25.0 % from the fourth"
    )
    (tmp_path / journal.NAME).write_text("\n".join(lines[:9]) + "\n")
    assert longer_training._trend(tmp_path) == ""  # too few to tell
