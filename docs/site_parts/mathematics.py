"""Formulas as MathML, which browsers draw themselves: no script, no font, no network.

docutils translates TeX to MathML. What it cannot translate is an error of the build.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

from site_parts.mathml import indices_beside

LOG = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the renderer under the name ``mathml``."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(writer: Any, node: nodes.math) -> None:
    """A formula within a line."""
    writer.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def display(writer: Any, node: nodes.math_block) -> None:
    """A formula on lines of its own."""
    writer.body.append(f'<div class="math">{mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def mathml(node: nodes.Element, as_block: bool) -> str:
    """The MathML of a formula; a warning, which stops a strict build, if it has none."""
    tex = re.sub(r"\\label\{.*?\}", "", node.astext())
    tex = re.sub(r"\\([bB]igg?)(?=[(\[|\\])", r"\\\1l", tex)
    tex = re.sub(r"\\([bB]igg?)(?=[)\]])", r"\\\1r", tex)
    if as_block and r"\\" in tex and r"\begin" not in tex:
        tex = rf"\begin{{aligned}} {tex} \end{{aligned}}"
    try:
        return indices_beside(tex2mathml(tex, as_block=as_block))
    except MathError as error:
        LOG.warning("no MathML for %r: %s", tex, error, location=node)
        return f"<code>{tex}</code>"
