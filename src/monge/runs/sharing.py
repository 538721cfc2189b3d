"""Shares a run: copies the files that sampling needs, and uses the Hugging Face hub."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from monge.data.columns import schema
from monge.errors import UserError
from monge.runs.layout import CONFIG, DATA
from monge.sampling import conditions
from monge.system import own_code
from monge.system.files import copy_new, status
from monge.system.hub_access import hub_access

FILES = (
    CONFIG,
    DATA,
    "ema.safetensors",
    "README.md",
    schema.FILE,
    conditions.FILE,
    "autoencoder/autoencoder.json",
    "autoencoder/autoencoder.safetensors",
)
"""Files of a run that sampling or its card may need."""


def save(run: Path, target: Path) -> Path:
    """Copy the files that sampling needs to a new folder; only regular files, no links.

    Raises:
        UserError: the target is no empty folder, or a file of the run is a link, which might
            expose any file of the user.
    """
    if status(target) is not None:
        if not target.is_dir():
            raise UserError(f"{target} is no folder: choose another")
        if any(target.iterdir()):
            raise UserError(f"{target} is not empty: choose another folder")
    own = (f"{own_code.FOLDER}/{path.name}" for path in (run / own_code.FOLDER).glob("*.py"))
    for name in (*FILES, *sorted(own)):
        source = blob(run, run / name)
        if (run / name).parent.is_symlink() and (run / name).parent != run:
            raise UserError(f"{(run / name).parent} is a link: put the folder itself in its place")
        if status(source) is not None:
            copy_new(source, target / name)
    return target


def blob(run: Path, path: Path) -> Path:
    """A file, or the target of its link within the hub's cache.

    In that cache a run is MODEL/snapshots/REVISION, and its files are links to MODEL/blobs.
    """
    snapshot = run.resolve()
    blobs = snapshot.parent.parent / "blobs"
    target = path.resolve()
    if path.is_symlink() and snapshot.parent.name == "snapshots" and target.parent == blobs:
        return target
    return path


def fetch(name: str | Path) -> Path:
    """The folder of a name, or a downloaded copy of the run with that name on the hub.

    Raises:
        UserError: neither exists.
    """
    if os.path.isdir(name):
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    with hub_access() as why:
        try:
            return Path(snapshot_download(str(name)))
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = why if why and not isinstance(error, HFValidationError) else error
            raise UserError(f"no folder {name!r}, and not on the hub: {reason}") from None


def push(run: Path, repo: str, private: bool) -> str:
    """Upload the files of `save`; returns the address."""
    from huggingface_hub import HfApi

    api = HfApi()
    url = api.create_repo(repo, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save(run, Path(folder) / "run")
        api.upload_folder(repo_id=url.repo_id, folder_path=str(Path(folder) / "run"))
    return str(url)
