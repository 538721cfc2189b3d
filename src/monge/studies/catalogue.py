"""The studies that monge brings, by name, and studies from a user's file."""

from __future__ import annotations

from monge.errors import UserError, nearest
from monge.studies.study import Study
from monge.system.loading import load

STUDIES: dict[str, str] = {
    "discretisation": "monge.studies.discretisation:STUDY",
    "score-error": "monge.studies.score_error:STUDY",
    "dimension": "monge.studies.dimension:STUDY",
    "early-stopping": "monge.studies.early_stopping:STUDY",
    "coupling": "monge.studies.coupling:STUDY",
    "solver-cost": "monge.studies.solver_cost:STUDY",
    "jko": "monge.studies.jko:STUDY",
    "autoencoder": "monge.studies.autoencoder:STUDY",
    "schedules": "monge.studies.schedules:STUDY",
    "sample-size": "monge.studies.sample_size:STUDY",
    "approximation": "monge.studies.approximation:STUDY",
    "flow-maps": "monge.studies.flow_maps:STUDY",
    "tangent-mix": "monge.studies.tangent_mix:STUDY",
}
"""Name to the module and name of a study, in the order in which they are listed."""


def reference(text: str) -> str:
    """``MODULE:NAME`` or ``FILE.py:NAME`` of a study's name or of a file, whose study is `STUDY`.

    Raises:
        UserError: no such study, with the nearest one.
    """
    if text in STUDIES:
        return STUDIES[text]
    if text.endswith(".py"):
        return f"{text}:STUDY"
    if ":" in text:
        return text
    raise UserError(f"unknown study {text!r}: {nearest(text, STUDIES)}; or name a file, mine.py")


def find(text: str) -> Study:
    """The study of a name or in a file.

    Raises:
        UserError: no such study, or what is there is none.
    """
    found = load(reference(text))
    if not isinstance(found, Study):
        raise UserError(f"{reference(text)} is no Study but a {type(found).__name__}")
    return found
