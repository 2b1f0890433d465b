"""Chance, zero-shot and calibrated zero-shot accuracy of a model before it is trained."""

from typing import NamedTuple

from llm.cost.meter import Meter, together
from llm.objective import Encoded, Measured, Objective, calibrated_accuracy, chance_accuracy
from zobench.run.records import Row

NAMES = ("chance", "zero-shot", "calibrated zero-shot")


class StartMeasurements(NamedTuple):
    """The measurements of an untrained model on train, dev and test, and their cost."""

    train: Measured
    dev: Measured
    test: Measured
    meters: tuple[Meter, Meter, Meter]

    @property
    def cost(self) -> Row:
        """The cost of all three."""
        return together(*self.meters)

    def rows(self) -> dict[str, Row]:
        """Return accuracies and cost by `NAMES`; calibration reads the training examples, chance no model."""
        cost = dict(zip(NAMES, (together(), together(*self.meters[1:]), self.cost), strict=True))
        return {name: {**self._accuracies(name), **cost[name]} for name in NAMES}

    def _accuracies(self, name: str) -> Row:
        if name == "zero-shot":
            return {"dev_accuracy": self.dev.accuracy, "test_accuracy": self.test.accuracy}
        accuracy = chance_accuracy if name == "chance" else calibrated_accuracy
        return {
            "dev_accuracy": accuracy(self.train, self.dev),
            "test_accuracy": accuracy(self.train, self.test),
        }


def untouched(objective: Objective, train: list[Encoded], dev: list[Encoded], test: list[Encoded]) -> StartMeasurements:
    """Return the measurements of the untrained model. Cost: the forward passes of the three parts."""
    meters = tuple(Meter(objective.language_model) for _ in range(3))
    measurements = []
    for meter, part in zip(meters, (train, dev, test), strict=True):
        with meter:
            measurements.append(objective.measure(part))
    return StartMeasurements(measurements[0], measurements[1], measurements[2], (meters[0], meters[1], meters[2]))
