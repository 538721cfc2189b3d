"""MathML as docutils writes it, with its indices where a reader expects them."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET

SPACE = "http://www.w3.org/1998/Math/MathML"
NAMED = re.compile(r"&(?!amp;|lt;|gt;|quot;|apos;)[A-Za-z]\w*;")
"""Signs by a name that HTML knows and XML does not."""
ACCENTS = set("˙ˆ˜¯^~´`˘ˇ¨")


def indices_beside(text: str) -> str:
    """MathML in which the index of a letter with an accent stands beside it, not below."""
    ET.register_namespace("", SPACE)
    root = ET.fromstring(NAMED.sub(lambda found: html.unescape(found.group()), text))
    for node in list(root.iter(f"{{{SPACE}}}munderover")):
        letter, index, accent = node
        if accent.tag.endswith("}mo") and accent.text in ACCENTS:
            node.tag = f"{{{SPACE}}}msub"
            node[:] = [ET.Element(f"{{{SPACE}}}mover", {"accent": "true"}), index]
            node[0].extend([letter, accent])
    return ET.tostring(root, encoding="unicode")
