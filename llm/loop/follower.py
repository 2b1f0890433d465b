"""A rank other than 0: it takes the steps of the run, and writes nothing."""

from llm.loop.crew import Crew
from llm.loop.signals import interruptible
from llm.options.train import TrainOptions
from llm.run.context import prepare
from zobench import derive
from zobench.run.progress import quietly


def follow(options: TrainOptions, crew: Crew) -> None:
    """Take the steps of a run whose rank 0 is another process, until it has taken all.

    Raises:
        KeyboardInterrupt: a rank got a signal to end.
        RankError: a rank was lost, or differs.
        ValueError: the options, the data or the model cannot be used here.
    """
    with quietly():
        if not crew.told_to_begin():
            return
        context = prepare(options, test=True)
        stepper = context.stepper(crew.shared)
        with interruptible() as interrupted:
            while crew.follow(context, stepper, interrupted):
                step = stepper.steps
                stepper.step(derive(*context.keys["key"], step), context.losses(step, crew.shared))
