"""What measures the numbers of the documentation: `docs/measure.py`, and the benchmarks."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "measure.py"


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "numbers.toml").write_text(
        '[[number]]\nname = "brought"\n'
        'command = "python {data}/print.py ; python {data}/print.py"\n'
        'key = ["rows", "b", "value"]\nmeasured = 2.0\ninterval = [1.0, 3.0]\n'
    )
    monkeypatch.setattr(module, "HERE", tmp_path)
    return module


def test_data_that_is_absent_is_skipped_visibly_and_measured_where_it_is_there(
    measure: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MONGE_DATA", raising=False)
    assert measure.main() == 0
    shown = capsys.readouterr().out
    assert "SKIP brought: needs MONGE_DATA, a folder with print.py" in shown
    assert shown.endswith("0 passed, 0 failed, 1 skipped\n")
    monkeypatch.setenv("MONGE_DATA", str(tmp_path))
    assert measure.main() == 0
    assert f"needs print.py in {tmp_path}" in capsys.readouterr().out
    rows = '{"rows": [{"name": "a", "value": 9}, {"name": "b", "value": 2}]}'
    (tmp_path / "print.py").write_text(f"print('{rows}')")
    assert measure.main() == 0
    assert "ok   brought: 2, stated 2.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))
)
def test_every_benchmark_can_be_started(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it needs of monge is where it looks for it."""
    monkeypatch.syspath_prepend(ROOT)
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__ and module.__file__ == str(ROOT / "benchmarks" / f"{name}.py")
