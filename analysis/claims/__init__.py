"""The claims on KerZOO, each with what was measured, and a verdict that code draws from rows."""
