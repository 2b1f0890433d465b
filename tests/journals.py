"""Journals of a few steps."""

import math

from zobench import derive
from zobench.run.journal import Journal, Record

HEADER = {
    "estimator": "LineEstimator(law=Gaussian(), stencil=CentralStencil(), epsilon=0.001, n=1)",
    "keys": {"key": ["directions", 0], "minibatch": ["minibatch", 0]},
    "weight_decay": 0.1,
    "environment": {"torch": "1"},
}


def record(step, **changes):
    keys = {"key": derive("directions", 0, step), "minibatch": derive("minibatch", 0, step)}
    numbers = {"losses": (0.5, -step / 3), "lr": 1e-3, "seconds": 0.25, "checksum": 7 + step}
    return Record(step, **{**keys, **numbers, **changes})


RECORDS = [
    record(0),
    record(1, key=2**63 - 1, minibatch=5),
    record(2, losses=(math.inf,), checksum=0, skipped="losses [inf]: lower --lr"),
    record(3, losses=tuple(map(float, range(20)))),
    record(4),
]
EVALUATION = {"kind": "evaluation", "step": 2, "dev_loss": 0.25, "word": "é"}


def written(folder, records=RECORDS, header=HEADER):
    file = folder / "journal.bin"
    journal = Journal(file, header)
    for one in records[len(journal.records) :]:
        journal.append(one)
    journal.close()
    return file
