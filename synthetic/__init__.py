"""Problems with exact gradients, and the suites run on them: `python -m synthetic`."""
