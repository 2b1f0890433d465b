"""The claims on KerZOO that exact gradients decide, as rows: what theory predicts and what samples measure."""

from synthetic.claims.command import run as run
