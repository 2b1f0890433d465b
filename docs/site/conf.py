"""Sphinx configuration of the site; read by `python -m docs.site`, which writes the pages first."""

import re

from sphinx.application import Sphinx

from docs.site import formulas
from docs.site.plain import as_rst
from zobench.version import VERSION

project = "zobench"
author = copyright = "The zobench maintainers"
release = version = VERSION
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
copybutton_prompt_text = "$ "  # of transcripts; without it all of a block is copied
copybutton_line_continuation_character = "\\"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
highlight_language = "none"
default_role = "code"
smartquotes = False
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_title = f"zobench {VERSION}"
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
autodoc_default_options = {"members": True, "show-inheritance": True, "special-members": "__call__"}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
# Pages of other libraries are not fetched: only names of ours must lead somewhere, but for type variables.
VARIABLES = "|".join(
    [
        "zobench.random.keys.Item",
        "zobench.run.options.Options",
        "zobench.spelling.T",
        "zobench.theory.lines.Moments",
        "synthetic.problems.series.Point",
    ]
)
PARTS = (
    r"space\.(copies|in_forward|meeting|scratch|slots|streamed|support|sweep|whole)"
    r"|rule\.(adam|averaging|factor_momentum|interpolated|iterate_average|momentum|muon|power_muon|tensor_clip|window)"
    r"|estimators\.\w+|law\.(adaptive|by_tensor|factors)|maps\.(entrywise|standardised)|testing\.modules"
)
INTERNAL = rf"zobench\.({PARTS})\.\w+"
"""What engines and rules are made of: their signatures name it, and it has no page."""
nitpick_ignore_regex = [(r"py:.*", r"(?!(zobench|synthetic)\b).*"), (r"py:class", VARIABLES), (r"py:class", INTERNAL)]


def _leave_out(app, what, name, obj, skip, options):
    """What a NamedTuple says of its fields."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def _escape(app, what, name, obj, options, lines) -> None:
    lines[:] = as_rst(lines)


def whole_options(body: str) -> str:
    """Return the HTML of a page whose commands mark their options, which `pages.css` keeps on one line each: a browser
    breaks lines after any hyphen.
    """
    return re.sub(
        r"(<pre>)(.*?)(</pre>)",
        lambda block: re.sub(r"(?<![\w-])--?[A-Za-z][\w-]*", r'<span class="option">\g<0></span>', block[0]),
        body,
        flags=re.DOTALL,
    )


def _mark_options(app, page, template, context, doctree) -> None:
    if "body" in context:
        context["body"] = whole_options(context["body"])


def setup(app: Sphinx) -> None:
    """Read docstrings as plain text, before napoleon takes their sections."""
    formulas.add(app)
    app.connect("autodoc-process-docstring", _escape, priority=400)
    app.connect("autodoc-skip-member", _leave_out)
    app.connect("html-page-context", _mark_options)
