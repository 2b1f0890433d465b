"""The rows of the embeddings that a minibatch touches: no other row influences its loss."""

from collections.abc import Sequence
from typing import Any

from llm.model.logits import padding
from llm.objective import Encoded, Objective


def touched_rows(objective: Objective, batch: Sequence[Encoded]) -> dict[str, list[int]]:
    """Return parameter name -> rows that the loss of the batch reads: tokens of the prompts and, where the logits of
    single-token candidates alone are computed, those of the candidates.

    The candidates' normaliser cancels in their loss, so that it is that of the whole vocabulary; the loss with every
    row perturbed is equal to the bit.

    Raises:
        ValueError: a candidate has several tokens: its score needs the normaliser, and so every row of a tied head.
    """
    candidates = {candidate for row in batch for candidate in objective.options(row)}
    if type(objective) is not Objective or any(len(candidate) != 1 for candidate in candidates):
        raise ValueError(
            "directions cannot be restricted to touched rows: the loss is not a choice among candidates of one token, "
            "so that it depends on every row of the head"
        )
    model: Any = objective.language_model.model
    read = {padding(objective.language_model), *(token for row in batch for token in row.tokens)}
    chosen = {candidate[0] for candidate in candidates}
    inputs, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    tied = inputs.data_ptr() == head.data_ptr()
    rows = {id(inputs): read | chosen} if tied else {id(inputs): read, id(head): chosen}
    return {name: sorted(rows[id(p)]) for name, p in model.named_parameters() if id(p) in rows and p.requires_grad}
