"""The published tasks, a row each: files, hub sets, prompts, verbalisers, objectives and metrics, as in MeZO."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llm.tasks import formats, prompts
from llm.tasks.example import Example
from llm.tasks.files import tab_separated
from llm.tasks.hub import HubSet
from llm.tasks.json_rows import json_lines
from llm.tasks.labels import Verbaliser, classified
from llm.tasks.official import Official
from llm.tasks.record import DataRecord
from llm.tasks.task import USUAL, Sizes

Read = Callable[[Path], list[DataRecord]]

ENTAILMENT = {"entailment": "Yes", "not_entailment": "No"}
INFERENCE = {"entailment": "Yes", "contradiction": "No", "neutral": "Maybe"}
NO_YES = {"false": "No", "true": "Yes"}
# LM-BFF's words (Gao et al. 2021, arXiv 2012.15723) for the six coarse types.
QUESTIONS = {
    "ABBR": " expression",
    "ENTY": " entity",
    "DESC": " description",
    "HUM": " human",
    "LOC": " location",
    "NUM": " number",
}


def superglue(
    name: str,
    group: str,
    sample: Mapping[str, Any],
    prompt: Callable[[DataRecord], str],
    words: Mapping[str, str],
    numbers: tuple[str, ...] = (),
    read: Read = json_lines,
    subset: str | None = None,
    sizes: Sizes = USUAL,
    told_apart_by: tuple[str, ...] = (),
) -> Official:
    """Return a SuperGLUE task of classification; `numbers`: the labels 0, 1, ..., if the words are in another order."""
    verbaliser = Verbaliser(words, numbers or tuple(words))
    hub, example = HubSet("aps/super_glue", subset or name), classified(prompt, verbaliser)
    return Official(
        name,
        ("train.jsonl",),
        ("val.jsonl",),
        read,
        hub,
        group,
        example,
        sample,
        verbaliser.candidates,
        sizes=sizes,
        told_apart_by=told_apart_by,
    )


def chosen(
    name: str,
    training: str,
    test: str,
    read: Read,
    hub: HubSet,
    group: str,
    example: Callable[[DataRecord], Example],
    sample: Mapping[str, Any],
    metric: str = "accuracy",
    sizes: Sizes = USUAL,
) -> Official:
    """Return a task whose examples have their own candidates or answers: it is trained as a language model."""
    files = (training,), (test,)
    return Official(name, *files, read, hub, group, example, sample, None, "language-model", metric, sizes)


def labelled(
    name: str,
    training: tuple[str, ...],
    test: tuple[str, ...],
    read: Read,
    hub: HubSet,
    text: str,
    prompt: Callable[[DataRecord], str],
    verbaliser: Verbaliser,
    sample: Mapping[str, Any],
) -> Official:
    """Return a task of labelled texts."""
    example, words = classified(prompt, verbaliser), verbaliser.candidates
    column = verbaliser.column
    return Official(name, training, test, read, hub, text, example, sample, words, keyed_by=text, label=column)


def _answers(column: str, inner: str) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    return lambda row: {**row, "answers": row[column][inner]}


SST2 = labelled(
    "sst2",
    ("train.tsv",),
    ("dev.tsv",),
    tab_separated,
    HubSet("nyu-mll/glue", "sst2"),
    "sentence",
    prompts.sst2,
    Verbaliser({"negative": " terrible", "positive": " great"}, ("negative", "positive")),
    {"sentence": "a quiet , moving film ", "label": 1},
)
TREC = labelled(
    "trec",
    ("train_5500.label", "train_raw.txt"),
    ("TREC_10.label", "test_raw.txt"),
    formats.trec,
    HubSet("CogComp/trec", test="test"),
    "text",
    prompts.trec,
    Verbaliser(QUESTIONS, tuple(QUESTIONS), "coarse_label"),
    {"coarse_label": "LOC", "text": "Where is Rome ?"},
)
RTE = superglue(
    "rte",
    "premise",
    {"premise": "The bridge opened in May.", "hypothesis": "The bridge is open.", "label": "entailment"},
    prompts.rte,
    ENTAILMENT,
)
CB = superglue(
    "cb",
    "premise",
    {"premise": "I doubt that it rains.", "hypothesis": "it rains", "label": "contradiction"},
    prompts.cb,
    INFERENCE,
    sizes=Sizes(dev=100),
)
BOOLQ = superglue(
    "boolq",
    "passage",
    {"passage": "Rain -- Rain is liquid water.", "question": "is rain wet", "label": True},
    prompts.boolq,
    {"true": "Yes", "false": "No"},
    ("false", "true"),
)
WSC = superglue(
    "wsc",
    "text",
    {"text": "Ann called Bea when she was late.", "span1_text": "Ann", "span2_text": "she", "label": True},
    prompts.wsc,
    NO_YES,
    read=formats.wsc,
    subset="wsc.fixed",
    told_apart_by=("span1_index", "span2_index"),  # the second "it" of a text is another question of the same prompt
)
WIC = superglue(
    "wic",
    "word",
    {"word": "bank", "sentence1": "A river bank.", "sentence2": "The bank is shut.", "label": False},
    prompts.wic,
    NO_YES,
)
MULTIRC = superglue(
    "multirc",
    "paragraph",
    {"paragraph": "Tom ate a pear.", "question": "What did Tom eat?", "answer": "A pear", "label": 1},
    prompts.multirc,
    NO_YES,
    read=formats.multirc,
)
COPA = chosen(
    "copa",
    "train.jsonl",
    "val.jsonl",
    json_lines,
    HubSet("aps/super_glue", "copa"),
    "premise",
    prompts.copa,
    {
        "premise": "It rained.",
        "question": "effect",
        "choice1": "The street was wet.",
        "choice2": "I slept.",
        "label": 0,
    },
    sizes=Sizes(dev=100),
)
RECORD = chosen(
    "record",
    "train.jsonl",
    "val.jsonl",
    formats.record,
    HubSet("aps/super_glue", "record"),
    "passage",
    prompts.record,
    {
        "passage": "Ann met Bea.\n@highlight\nThey met in Rome.",
        "query": "@placeholder was there first.",
        "entities": ["Ann", "Bea", "Rome"],
        "answers": ["Ann"],
    },
    metric="f1",
)
SQUAD = chosen(
    "squad",
    "train-v1.1.json",
    "dev-v1.1.json",
    formats.squad,
    HubSet("rajpurkar/squad", columns=_answers("answers", "text")),
    "context",
    prompts.squad,
    {"title": "Rain", "context": "Rain is water.", "question": "What is rain?", "answers": ["water"]},
    metric="f1",
)
DROP = chosen(
    "drop",
    "drop_dataset_train.json",
    "drop_dataset_dev.json",
    formats.drop,
    HubSet("ucinlp/drop", columns=_answers("answers_spans", "spans")),
    "passage",
    prompts.drop,
    {"passage": "They won 3 of 5 games.", "question": "How many were lost?", "answers": ["2"]},
    metric="f1",
)
WINOGRANDE = chosen(
    "winogrande",
    "train_m.jsonl",
    "dev.jsonl",
    json_lines,
    HubSet("allenai/winogrande", "winogrande_m"),
    "sentence",
    prompts.winogrande,
    {
        "sentence": "The cup is not in the box since the _ is small.",
        "option1": "cup",
        "option2": "box",
        "answer": "2",
    },
)

PUBLISHED = {
    official.name: official
    for official in (
        SST2, RTE, CB, BOOLQ, WSC, WIC, MULTIRC, COPA, RECORD, SQUAD, DROP, WINOGRANDE, TREC
    )
}  # fmt: skip
