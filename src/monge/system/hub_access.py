"""A quick test whether the Hugging Face hub can be reached; its own libraries retry for minutes."""

from __future__ import annotations

import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

PATIENCE_S = 3.0
"""Seconds to wait for a connection."""


def unreachable() -> str | None:
    """Why the hub cannot be reached; None if it can be. With a proxy or in offline mode it is not
    tested, and the result is None."""
    from huggingface_hub import constants

    if constants.is_offline_mode() or urllib.request.getproxies():
        return None
    place = urlsplit(constants.ENDPOINT)
    port = place.port or (80 if place.scheme == "http" else 443)
    try:
        socket.create_connection((place.hostname or "", port), PATIENCE_S).close()
    except OSError as error:
        what = error.strerror or str(error)
        return f"{place.hostname} cannot be reached ({what}), and no copy is in the cache"
    return None


@contextmanager
def hub_access() -> Iterator[str | None]:
    """While the hub cannot be reached, make its libraries use their caches only.

    Yields:
        Why the hub cannot be reached, for a message if the cache has no copy; else None.
    """
    why = unreachable()
    if why is None:
        yield None
        return
    from huggingface_hub import constants

    datasets = sys.modules.get("datasets")
    places = [constants, *([] if datasets is None else [datasets.config])]
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = True
        yield why
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
