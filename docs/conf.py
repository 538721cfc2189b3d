"""Settings of the documentation site. `make docs` builds it; nothing of it needs a network."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import monge  # noqa: E402

project = "monge"
author = "the authors of monge"
copyright = author
release = version = monge.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "site_parts.docstrings",
    "site_parts.mathematics",
    "site_parts.pages",
    "site_parts.references",
]
exclude_patterns = ["_build", "site_parts", "description.md"]
html_theme = "furo"
html_title = f"monge {release}"
html_static_path = ["site_parts/style.css"]
html_css_files = ["style.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

# The notebooks are stored with their outputs; tests/test_notebooks.py executes them.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
# A reader of the repository sees the same links, so files outside docs/ are linked by address.
myst_url_schemes = ["http", "https", "mailto"]
copybutton_prompt_text = "$ "

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_custom_sections = [("Source", "notes_style")]
default_role = "py:obj"

# A name in backticks is a link where the site documents it, and else plain code: arguments and
# types of other libraries stand in backticks too. Every other unknown reference is an error.
nitpicky = True
nitpick_ignore_regex = [("py:(obj|class|data|exc)", ".*")]
