"""Names in backticks become links where the site documents them, wherever they are written.

The docstrings write `Linear`, not `monge.paths.Linear`. A short name is linked if exactly one
documented object ends in it.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the search for short names."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """The link of a short name; None if no object, or more than one, ends in it."""
    if node.get("refdomain") != "py" or node.get("reftype") not in ("obj", "class"):
        return None
    objects = env.domains.python_domain.objects
    name = node["reftarget"].removesuffix("()")
    found = [
        full
        for full in by_last_part(env).get(name.rpartition(".")[2], [])
        if full == name or full.endswith(f".{name}")
    ]
    if len(found) != 1:
        return None
    entry = objects[found[0]]
    return make_refnode(
        app.builder, node["refdoc"], entry.docname, entry.node_id, content, found[0]
    )


def by_last_part(env: BuildEnvironment) -> dict[str, list[str]]:
    """The documented names by their last part, made once."""
    names: dict[str, list[str]] | None = getattr(env, "monge_names", None)
    if names is None:
        names = {}
        for full, entry in env.domains.python_domain.objects.items():
            if not entry.aliased:
                names.setdefault(full.rpartition(".")[2], []).append(full)
        env.monge_names = names  # type: ignore[attr-defined]
    return names
