"""Exported runs: equal to the run at any batch size, without pickles, never written over."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from remade import BOTH_WAYS, GUIDED, MAP, remade

from monge.cli import main
from monge.errors import CheckFailed, UserError
from monge.export import pt2
from monge.export.run import export_run
from monge.runs.run import Run

KINDS: dict[str, dict[str, Any]] = {
    "velocity": {},
    "data under ou": {"output": "data", "path": "ou:horizon=3"},
    "noise under gvp": {"output": "noise", "path": "trigonometric"},
    "score under power": {"output": "score", "path": "power:kappa=0.75"},
    "map": MAP,
    "map of data": {**BOTH_WAYS, "output": "data"},
    "guided map": GUIDED,
}


def loaded(path: Path) -> Any:
    return torch.export.load(path).module()


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_is_the_run_at_every_batch_size(
    kind: str, digits_run: Run, tmp_path: Path
) -> None:
    run = remade(digits_run, **KINDS[kind])
    path, found = export_run(run, "pt2", tmp_path / "run.pt2")
    program = loaded(path)
    lo, hi = found["domain"]
    for n in (1, 3, 64):
        x = torch.randn(n, 2, 4, 4)
        s, t = (lo + (hi - lo) * torch.rand(2, n)).sort(0).values
        label = torch.randint(-1, 10, (n,))
        if run.learned.few_steps:
            scale = 2.5 if "guidance" in found["inputs"] else None
            given = [] if scale is None else [torch.full((n,), scale)]
            expected = run.learned.jump(scale)(x, s, t, {"label": label})
            got = program(x, s, t, label, *given)
            still = program(x, s, s, label, *given)
            torch.testing.assert_close(still, x)
        else:
            expected = run.field(x, t, {"label": label})
            got = program(x, t, label)
        assert n < 64 or float((expected - x * run.learned.few_steps).abs().max()) > 0.1
        assert float((got - expected).abs().max() / expected.abs().max().clamp_min(1)) < 1e-5


def test_a_table_with_an_mlp_has_no_label_of_its_own_to_give(
    table_run: Run, tmp_path: Path
) -> None:
    path, found = export_run(table_run, "pt2", tmp_path / "table.pt2")
    assert list(found["inputs"]) == ["x", "t", "label"]
    x, t, label = torch.randn(4, 2), torch.rand(4), torch.tensor([0, 1, 2, -1])
    expected = table_run.field(x, t, {"label": label})
    torch.testing.assert_close(loaded(path)(x, t, label), expected, atol=1e-5, rtol=0)


def test_a_program_holds_no_pickle_and_no_path_of_this_machine(
    digits_run: Run, tmp_path: Path
) -> None:
    path, _ = export_run(remade(digits_run), "pt2", tmp_path / "run.pt2")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert sum("/weights/weight_" in name for name in members) > 20
    for name, content in members.items():
        assert not is_pickle(content) and not zipfile.is_zipfile(io.BytesIO(content)), name
        assert b"src/monge" not in content and b"site-packages" not in content, name
        if name.endswith("_config.json"):
            config = json.loads(content)["config"]
            assert not any(entry["use_pickle"] for entry in config.values())
    facts: dict[str, Any] = {"export.json": ""}
    torch.export.load(path, extra_files=facts)
    known = json.loads(facts["export.json"])
    assert known["labels"] == [str(k) for k in range(10)]
    assert known["latent_shape"] == [2, 4, 4] and known["clock"].startswith("t = 0 is noise")


def is_pickle(content: bytes) -> bool:
    """Whether opcodes of a pickle fill the content."""
    try:
        return bool(content) and list(pickletools.genops(content))[-1][2] == len(content) - 1
    except ValueError:
        return False


def test_pickles_are_found(digits_run: Run) -> None:
    plain = io.BytesIO()
    torch.export.save(pt2.program(remade(digits_run)), plain)
    assert [name.rpartition("/")[2] for name in pt2.pickles(plain.getvalue())] == ["model.pt"]
    buffer, inner = io.BytesIO(), io.BytesIO()
    torch.save({"x": torch.ones(2)}, inner)
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("plain.json", "{}")
        archive.writestr("object", pickle.dumps([1, "a"]))
        archive.writestr("tensors.pt", inner.getvalue())
        archive.writestr("raw", b"\x80\x02" + bytes(range(64)))
    assert pt2.pickles(buffer.getvalue()) == ["object", "tensors.pt"]


def test_what_differs_from_the_run_is_not_written(
    digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = remade(digits_run)
    other = pt2.program(remade(digits_run, 0.201))
    monkeypatch.setattr(pt2, "program", lambda _: other)
    with pytest.raises(CheckFailed, match="differs from the run"):
        export_run(run, "pt2", tmp_path / "run.pt2")
    assert not any(tmp_path.iterdir())


def test_export_on_the_command_line(
    digits_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "run.pt2"
    argv = ["export", str(digits_run.folder), f"--out={out}"]
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] < 1e-5
    before = out.read_bytes()
    assert main(argv) == 2
    assert "is there already" in capsys.readouterr().err and out.read_bytes() == before
    assert main(["export", str(digits_run.folder), "--format=onnx"]) == 2


def test_laws_and_tables_are_refused_where_they_do_not_fit(table_run: Run, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    with pytest.raises(UserError, match=r"draws images.*--format pt2"):
        export_run(table_run, "diffusers", tmp_path / "out")
    assert not any(tmp_path.iterdir())
