"""Planted defects: do the tests notice?

Each ``NAME.patch`` here plants one defect in a copy of the package; the ordinary tests that its
first line names must then fail, and must pass without it. Collecting nothing, a broken import or
a broken fixture does not count as noticing. A defect that survives is a test that is missing.

A patch is a unified diff below a header, with one or more files or pytest nodes::

    # caught by: tests/test_paths.py tests/test_fields.py::test_golden_velocity_of_a_mixture

Hunks are found by their text, which must stand exactly once in the file; line numbers are ignored.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATCHES = sorted(HERE.glob("*.patch"))
HEADER = "# caught by:"

# What happened, told from inside: an exit status of 1 is also that of a broken fixture.
WITNESS = """
import json
from pathlib import Path

seen = {"passed": [], "failed": [], "errors": []}


def pytest_collectreport(report):
    if report.failed:
        seen["errors"].append(report.nodeid)


def pytest_runtest_logreport(report):
    if report.failed:
        seen["failed" if report.when == "call" else "errors"].append(report.nodeid)
    elif report.passed and report.when == "call":
        seen["passed"].append(report.nodeid)


def pytest_sessionfinish():
    import monge

    Path("seen.json").write_text(json.dumps({**seen, "monge": monge.__file__}))
"""


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest on a copy of the package came to."""

    status: int
    passed: list[str]
    failed: list[str]
    errors: list[str]
    output: str

    @property
    def caught(self) -> bool:
        """Whether a test failed in its own body, and nothing was merely broken."""
        return self.status == 1 and bool(self.failed) and not self.errors


def nodes(patch: str) -> list[str]:
    """The files and pytest nodes that the header names."""
    first = patch.splitlines()[0]
    if not first.startswith(HEADER) or not first.removeprefix(HEADER).split():
        raise ValueError(f"the first line must be '{HEADER} FILE[::TEST] ...', not {first!r}")
    return first.removeprefix(HEADER).split()


def patched(patch: str, root: Path) -> dict[Path, str]:
    """The texts of the files below a root that a unified diff (with paths a/..., b/...) changes.

    Raises:
        ValueError: no hunk, or the old text of one does not stand exactly once in its file.
    """
    found: dict[Path, str] = {}
    for part in re.split(r"^(?=--- )", patch, flags=re.MULTILINE)[1:]:
        head, *bodies = re.split(r"^@@.*\n", part, flags=re.MULTILINE)
        named = re.search(r"^\+\+\+ b/(\S+)", head, flags=re.MULTILINE)
        if named is None:
            raise ValueError(f"no line '+++ b/PATH' in {head!r}")
        path = root / named[1]
        text = path.read_text(encoding="utf-8")
        for body in bodies:
            lines = [line or " " for line in body.splitlines()]  # editors strip a lone blank
            old = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
            new = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
            places = [m.start() for m in re.finditer(f"(?m)^{re.escape(old)}", text)]
            if len(places) != 1 or old == new:
                raise ValueError(
                    f"a hunk for {named[1]} no longer applies, its text stands there "
                    f"{len(places)} times; renew the patch:\n{old}"
                )
            found[path] = text = text[: places[0]] + new + text[places[0] + len(old) :]
    if not found:
        raise ValueError("the patch has no hunk")
    return found


def apply(patch: str, root: Path) -> None:
    """Change the files below a root as a patch says; see `patched`."""
    for path, text in patched(patch, root).items():
        path.write_text(text, encoding="utf-8")


def run_tests(folder: Path, patch: str | None, selection: list[str], *options: str) -> Outcome:
    """Run a selection of the tests on a copy of the package with a patch, made in the folder."""
    bare = shutil.ignore_patterns("__pycache__", "mutants", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "src", ignore=bare)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=bare)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "witness.py").write_text(WITNESS)
    if patch is not None:
        apply(patch, folder)
    inherited = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [f"{folder}/src", str(folder), inherited])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-p", "witness", *options, *selection],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    output = done.stdout + done.stderr
    told = folder / "seen.json"
    if not told.exists():
        return Outcome(done.returncode, [], [], ["pytest did not get to its end"], output)
    seen = json.loads(told.read_text())
    imported = Path(seen.pop("monge"))
    assert imported.is_relative_to(folder.resolve()), f"the tests ran on {imported}, not the copy"
    return Outcome(done.returncode, output=output, **seen)


@pytest.mark.parametrize("path", PATCHES, ids=lambda path: path.stem)
def test_the_patch_fits_the_present_code_and_tests(path: Path) -> None:
    patch = path.read_text()
    assert patched(patch, ROOT)
    for node in nodes(patch):
        file, *inside = node.split("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert all(f"def {name.split('[')[0]}(" in text for name in inside), node


@pytest.mark.slow
def test_without_a_defect_all_selections_pass(tmp_path: Path) -> None:
    selection = sorted({node for path in PATCHES for node in nodes(path.read_text())})
    outcome = run_tests(tmp_path.resolve(), None, selection)
    assert outcome.status == 0 and not outcome.failed, outcome.output
    for node in selection:
        ran = [
            name
            for name in outcome.passed
            if name == node or name.startswith((f"{node}[", f"{node}::"))
        ]
        assert ran, f"{node}: no test passes, so none can notice a defect"


@pytest.mark.slow
@pytest.mark.parametrize("path", PATCHES, ids=lambda path: path.stem)
def test_the_defect_is_noticed(path: Path, tmp_path: Path) -> None:
    patch = path.read_text()
    outcome = run_tests(tmp_path.resolve(), patch, nodes(patch), "-x")
    assert outcome.caught, (
        f"{path.name} survives (status {outcome.status}, errors {outcome.errors}): strengthen "
        f"{' '.join(nodes(patch))}\n{outcome.output}"
    )


@pytest.mark.slow
def test_a_broken_package_is_not_a_noticed_defect(tmp_path: Path) -> None:
    patch = (
        "# caught by: tests/test_couplings.py\n"
        "--- a/src/monge/couplings.py\n"
        "+++ b/src/monge/couplings.py\n"
        "@@ -1,1 +1,1 @@\n"
        "-import torch\n"
        "+import torch as\n"
    )
    outcome = run_tests(tmp_path.resolve(), patch, nodes(patch))
    assert outcome.status != 0
    assert not outcome.caught


def test_a_patch_that_does_not_apply_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\ny = 2\nx = 1\n")
    diff = "# caught by: t\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n"
    with pytest.raises(ValueError, match="stands there 0 times"):
        apply(f"{diff}-z = 1\n+z = 2\n", tmp_path)
    with pytest.raises(ValueError, match="stands there 2 times"):
        apply(f"{diff}-x = 1\n+x = 2\n", tmp_path)
    with pytest.raises(ValueError, match="no hunk"):
        apply("# caught by: t\n", tmp_path)
    with pytest.raises(ValueError, match="first line"):
        nodes("--- a/a.py\n")
    apply(f"{diff} y = 2\n-x = 1\n+x = 3\n", tmp_path)
    assert (tmp_path / "a.py").read_text() == "x = 1\ny = 2\nx = 3\n"
