"""The checks of a distribution find what they are for."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from check_dist import faults_of, relative_links

DESCRIPTION = Path(__file__).parents[1] / "docs" / "description.md"
HEAD = "License-Expression: Apache-2.0\nDescription-Content-Type: text/markdown\n\n"


@pytest.mark.skipif(not DESCRIPTION.exists(), reason="the documentation is not beside the tests")
def test_the_long_description_has_no_relative_link() -> None:
    assert relative_links(DESCRIPTION.read_text()) == []
    assert relative_links("[a](https://a.b) [c](docs/c.md) ![d](d.png)") == ["docs/c.md", "d.png"]


def made(tmp_path: Path, metadata: str, names: tuple[str, ...]) -> list[str]:
    """The faults of a small distribution."""
    wheel, sdist = tmp_path / "a.whl", tmp_path / "a.tar.gz"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("monge-1.dist-info/METADATA", metadata)
        for name in names:
            archive.writestr(name, "")
    with tarfile.open(sdist, "w:gz") as archive:
        for name in ("LICENSE", "pyproject.toml"):
            archive.addfile(tarfile.TarInfo(f"monge-1/{name}"))
    return faults_of(wheel, sdist)


WHOLE = ("monge/py.typed", "monge-1.dist-info/licenses/LICENSE")


@pytest.mark.parametrize(
    ("metadata", "names", "fault"),
    [
        (HEAD + "[a](docs/a.md)", WHOLE, "relative links: docs/a.md"),
        (HEAD.replace("Apache-2.0", "MIT"), WHOLE, "the license is MIT"),
        (HEAD.replace("markdown", "plain"), WHOLE, "not declared as Markdown"),
        (HEAD, (*WHOLE, "tests/a.py"), "also installs tests"),
        (HEAD, WHOLE[1:], "lacks monge/py.typed"),
        (HEAD, WHOLE[:1], "lacks the license"),
    ],
)
def test_each_fault_is_named(
    metadata: str, names: tuple[str, ...], fault: str, tmp_path: Path
) -> None:
    (found,) = made(tmp_path, metadata, names)
    assert fault in found


def test_a_whole_distribution_has_none(tmp_path: Path) -> None:
    assert made(tmp_path, HEAD + "[a](https://a.b)", WHOLE) == []
