"""`python -m docs.site`: the site, from docs/*.md, the docstrings and the code."""
