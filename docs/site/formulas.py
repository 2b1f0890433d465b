"""Formulas of the pages as MathML: browsers show it as it is, without a script from elsewhere."""

import re

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
SIZES = re.compile(r"\\[Bb]igg?[lr]?(?![a-zA-Z])")  # of brackets, which MathML stretches by itself
DOTS = re.compile(r"\\dots(?![a-zA-Z])")


def mathml(tex: str, block: bool) -> str:
    """Return a formula as MathML.

    Raises:
        MathError: docutils cannot read it.
    """
    return str(latex2mathml.tex2mathml(DOTS.sub(r"\\ldots", SIZES.sub("", tex)), as_block=block))


def _visit(writer, node: nodes.math | nodes.math_block, block: bool) -> None:
    try:
        found = mathml(node.astext(), block)
    except MathError as error:
        LOGGER.warning("formula %r: %s", node.astext(), error, location=node)
        raise nodes.SkipNode from None
    writer.body.append(f'<div class="math">{found}</div>' if block else found)
    raise nodes.SkipNode


def add(app: Sphinx) -> None:
    """Let pages have their formulas as MathML."""
    inline = (lambda writer, node: _visit(writer, node, False), None)
    app.add_html_math_renderer("mathml", inline, (lambda writer, node: _visit(writer, node, True), None))
