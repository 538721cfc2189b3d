"""What `make dist` checks of a built wheel and sdist: run as ``check_dist.py FOLDER [--demo]``.

The wheel is installed in a new environment, in a folder without a checkout, and its command is run
there. With ``--demo`` the whole demo runs, which takes minutes.
"""

from __future__ import annotations

import email
import email.message
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

RELATIVE = re.compile(r"\]\((?!https?://|mailto:|#)([^)]+)\)")


def relative_links(description: str) -> list[str]:
    """The links of a long description that would break on an index page."""
    return RELATIVE.findall(description)


def metadata_of(wheel: Path) -> email.message.Message:
    """The METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def faults_of(wheel: Path, sdist: Path) -> list[str]:
    """What is wrong with the files of a distribution, in words; empty if nothing is."""
    faults = []
    metadata = metadata_of(wheel)
    if metadata["License-Expression"] != "Apache-2.0":
        faults.append(f"the license is {metadata['License-Expression']}, not Apache-2.0")
    if metadata["Description-Content-Type"] != "text/markdown":
        faults.append("the long description is not declared as Markdown")
    text = metadata.get_payload()
    if links := relative_links(text if isinstance(text, str) else ""):
        faults.append(f"the long description has relative links: {', '.join(links)}")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    if strangers := {top for top in tops if top != "monge" and not top.endswith(".dist-info")}:
        faults.append(f"the wheel also installs {', '.join(sorted(strangers))}")
    if "monge/py.typed" not in names:
        faults.append("the wheel lacks monge/py.typed")
    if not any(name.endswith("/LICENSE") for name in names):
        faults.append("the wheel lacks the license")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    faults += [
        f"the sdist lacks {file}" for file in ("LICENSE", "pyproject.toml") if file not in inside
    ]
    return faults


def run_installed(wheel: Path, constraints: Path, demo: bool) -> None:
    """Installs the wheel in a new environment and runs its command outside any checkout."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        venv.create(home / "env", with_pip=True)
        python = home / "env" / "bin" / "python"
        quiet = ["--quiet", "--disable-pip-version-check"]
        arguments = [python, "-m", "pip", "install", *quiet, "-c", constraints, wheel]
        subprocess.run(arguments, check=True)
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        monge = home / "env" / "bin" / "monge"
        words = [["--version"], ["--help"], ["demo", "--help"]]
        for arguments in [*words, *([["demo"]] if demo else [])]:
            done = subprocess.run([monge, *arguments], cwd=home, env=clean, stdout=subprocess.PIPE)
            print(f"monge {' '.join(arguments)}: exit code {done.returncode}")
            if done.returncode:
                raise SystemExit(1)
            if arguments == ["--version"]:
                expected = f"monge {metadata_of(wheel)['Version']}\n"
                if done.stdout.decode() != expected:
                    raise SystemExit(f"monge --version prints {done.stdout!r}")


def main(folder: Path, demo: bool) -> int:
    wheels, sdists = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        print(f"error: {folder} must hold one wheel and one sdist", file=sys.stderr)
        return 2
    if faults := faults_of(wheels[0], sdists[0]):
        print("\n".join(f"error: {fault}" for fault in faults), file=sys.stderr)
        return 1
    constraints = Path(os.environ.get("CONSTRAINTS", "constraints.txt")).resolve()
    run_installed(wheels[0].resolve(), constraints, demo)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), "--demo" in sys.argv[2:]))
