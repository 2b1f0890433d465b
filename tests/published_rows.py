"""A question of each published task: its official file, the hub's row, and the example, all written by hand.

Each task has a training and a test file of one question each; the test file's is what `EXPECTED` says.
"""

import json

from llm.tasks import Example

NO_YES = ("No", "Yes")


def _lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def _superglue(training, test):
    return {"train.jsonl": _lines(training), "val.jsonl": _lines(test)}


def _squad(question, answers):
    qas = [{"id": "q1", "question": question, "answers": [{"text": a, "answer_start": 0} for a in answers]}]
    paragraphs = [{"context": "The Seine flows through Paris.", "qas": qas}]
    return json.dumps({"version": "1.1", "data": [{"title": "Seine_River", "paragraphs": paragraphs}]}, indent=1)


def _drop(question, answer, validated=None):
    pair = {"query_id": "d1", "question": question, "answer": answer}
    pair |= {"validated_answers": validated} if validated else {}
    return json.dumps(
        {"nfl_1": {"passage": "Wolf kicked goals of 30 and 41 yards.", "qa_pairs": [pair], "wiki_url": ""}}
    )


def _drop_answer(number="", spans=(), **date):
    return {"number": number, "date": {"day": "", "month": "", "year": "", **date}, "spans": list(spans)}


def _multirc(question, *answers):
    answers = [{"text": text, "idx": i, "label": label} for i, (text, label) in enumerate(answers)]
    text = "Ann grew beans. They were green."
    return {
        "idx": 0,
        "version": 1.1,
        "passage": {"text": text, "questions": [{"question": question, "answers": answers}]},
    }


def _wsc(text, one, two, label):
    target = {"span1_index": one[0], "span1_text": one[1], "span2_index": two[0], "span2_text": two[1]}
    return {"text": text, "target": target, "idx": 0, "label": label}


PASSAGE = "Lyon lost to Nice.\n@highlight\nNice lead the table"
ENTITIES = [{"start": 13, "end": 16}, {"start": 0, "end": 3}, {"start": 30, "end": 33}]


def _record(query, answer):
    answers = [{"start": 0, "end": 3, "text": answer}]
    return {
        "source": "Daily mail",
        "passage": {"text": PASSAGE, "entities": ENTITIES},
        "idx": 1,
        "qas": [{"query": query, "answers": answers, "idx": 0}],
    }


FILES = {
    "sst2": {
        "train.tsv": 'sentence\tlabel\na "dull film \t0\n',
        "dev.tsv": "sentence\tlabel\nit 's a charming journey . \t1\n",
    },
    "rte": _superglue(
        {"premise": "Rain fell.", "hypothesis": "It was dry.", "label": "not_entailment", "idx": 0},
        {"premise": "A dog ran home.", "hypothesis": "A dog ran.", "label": "entailment", "idx": 0},
    ),
    "cb": _superglue(
        {"premise": "He knows it is late.", "hypothesis": "it is late", "label": "entailment", "idx": 0},
        {"premise": "Did she say it snowed?", "hypothesis": "it snowed", "label": "neutral", "idx": 0},
    ),
    "boolq": _superglue(
        {"question": "is a lake salty", "passage": "Lake -- A lake is a body of water.", "idx": 0, "label": False},
        {"question": "is the sea salty", "passage": "Sea -- The sea holds salt.", "idx": 0, "label": True},
    ),
    "wsc": _superglue(
        _wsc("Bob paid Al because he was kind.", (2, "Al"), (4, "he"), True),
        _wsc("I took the bottle out of the bag. It was heavy.", (2, "The bottle."), (8, "It"), False),
    ),
    "wic": _superglue(
        {"word": "run", "sentence1": "I run.", "sentence2": "We run home.", "idx": 0, "label": True, "start1": 2},
        {"word": "bank", "sentence1": "A river bank.", "sentence2": "The bank is shut.", "idx": 0, "label": False},
    ),
    "multirc": _superglue(
        _multirc("Who grew beans?", ("Bob", 0)), _multirc("What was green?", ("Her hat", 0), ("The beans", 1))
    ),
    "copa": _superglue(
        {"premise": "I slept.", "choice1": "I ran.", "choice2": "I was tired.", "question": "cause", "label": 1},
        {
            "premise": "The tap was on.",
            "choice1": "I went.",
            "choice2": "The sink filled.",
            "question": "effect",
            "label": 1,
        },
    ),
    "record": _superglue(_record("@placeholder lost.", "Lyon"), _record("At home @placeholder won.", "Nice")),
    "squad": {
        "train-v1.1.json": _squad("Which river flows through Paris?", ["The Seine", "Seine"]),
        "dev-v1.1.json": _squad(" What does the Seine flow through? ", ["Paris", "Paris", "the city of Paris"]),
    },
    "drop": {
        "drop_dataset_train.json": _drop("When did he play?", _drop_answer(day="3", month="May", year="1950")),
        "drop_dataset_dev.json": _drop(
            "How many goals? ", _drop_answer("2"), [_drop_answer("2"), _drop_answer(spans=["30 and 41", "two"])]
        ),
    },
    "winogrande": {
        "train_m.jsonl": _lines(
            {"qID": "a", "sentence": "Ann thanked Eve, so _ smiled.", "option1": "Ann", "option2": "Eve", "answer": "2"}
        ),
        "dev.jsonl": _lines(
            {
                "qID": "b",
                "sentence": "He wore a (_) hat, not a cap.",
                "option1": "tall",
                "option2": "flat",
                "answer": "1",
            }
        ),
    },
    "trec": {
        "train_5500.label": "DESC:manner How is tea made ?\n",
        "TREC_10.label": "LOC:city What is the capital of Per\xfa ?\n",
    },
}

EXPECTED = {
    "sst2": Example("it 's a charming journey . It was", 1, (" terrible", " great")),
    "rte": Example('A dog ran home.\nDoes this mean that "A dog ran." is true? Yes or No?\n', 0, ("Yes", "No")),
    "cb": Example(
        'Suppose Did she say it snowed? Can we infer that "it snowed"? Yes, No, or Maybe?\n', 2, ("Yes", "No", "Maybe")
    ),
    "boolq": Example("Sea -- The sea holds salt. Is the sea salty?\n", 0, ("Yes", "No")),
    "wsc": Example(
        "I took the bottle out of the bag. It was heavy.\n"
        'In the previous sentence, does the pronoun "it" refer to the bottle? Yes or No?\n',
        0,
        NO_YES,
    ),
    "wic": Example(
        'Does the word "bank" have the same meaning in these two sentences? Yes, No?\n'
        "A river bank.\nThe bank is shut.\n",
        0,
        NO_YES,
    ),
    "multirc": Example(
        "Ann grew beans. They were green.\nQuestion: What was green?\n"
        'I found this answer "The beans". Is that correct? Yes or No?\n',
        1,
        NO_YES,
    ),
    "copa": Example("The tap was on so", 1, (" I went.", " the sink filled.")),
    "record": Example(
        "Lyon lost to Nice.\n- Nice lead the table\n-",
        1,
        (" At home Lyon won.", " At home Nice won."),
        ("Nice",),
        ("Lyon", "Nice"),
    ),
    "squad": Example(
        "Title: Seine_River\nContext: The Seine flows through Paris.\n"
        "Question: What does the Seine flow through?\nAnswer:",
        0,
        (" Paris\n",),
        ("Paris", "the city of Paris"),
    ),
    "drop": Example(
        "Passage: Wolf kicked goals of 30 and 41 yards.\nQuestion: How many goals?\nAnswer:",
        0,
        (" 2\n",),
        ("2", "30 and 41", "two"),
    ),
    "winogrande": Example("He wore a (", 0, ("tall) hat, not a cap.", "flat) hat, not a cap.")),
    "trec": Example(
        "What is the capital of Perú ? It is about",
        4,
        (" expression", " entity", " description", " human", " location", " number"),
    ),
}

# What the hub has for the same test questions: (path, subset), the class names it has, and the row.
HUB = {
    "sst2": (
        ("nyu-mll/glue", "sst2"),
        {"label": ["negative", "positive"]},
        {"sentence": "it 's a charming journey . ", "label": 1},
    ),
    "rte": (
        ("aps/super_glue", "rte"),
        {"label": ["entailment", "not_entailment"]},
        {"premise": "A dog ran home.", "hypothesis": "A dog ran.", "label": 0},
    ),
    "cb": (
        ("aps/super_glue", "cb"),
        {"label": ["entailment", "contradiction", "neutral"]},
        {"premise": "Did she say it snowed?", "hypothesis": "it snowed", "label": 2},
    ),
    "boolq": (
        ("aps/super_glue", "boolq"),
        {"label": ["False", "True"]},
        {"question": "is the sea salty", "passage": "Sea -- The sea holds salt.", "label": 1},
    ),
    "wsc": (
        ("aps/super_glue", "wsc.fixed"),
        {"label": ["False", "True"]},
        {
            "text": "I took the bottle out of the bag. It was heavy.",
            "span1_text": "the bottle",
            "span2_text": "It",
            "label": 0,
        },
    ),
    "wic": (
        ("aps/super_glue", "wic"),
        {"label": ["False", "True"]},
        {"word": "bank", "sentence1": "A river bank.", "sentence2": "The bank is shut.", "label": 0},
    ),
    "multirc": (
        ("aps/super_glue", "multirc"),
        {"label": ["False", "True"]},
        {
            "paragraph": "Ann grew beans. They were green.",
            "question": "What was green?",
            "answer": "The beans",
            "label": 1,
        },
    ),
    "copa": (
        ("aps/super_glue", "copa"),
        {"label": ["choice1", "choice2"]},
        {
            "premise": "The tap was on.",
            "choice1": "I went.",
            "choice2": "The sink filled.",
            "question": "effect",
            "label": 1,
        },
    ),
    "record": (
        ("aps/super_glue", "record"),
        {},
        {
            "passage": PASSAGE,
            "query": "At home @placeholder won.",
            "entities": ["Lyon", "Nice"],
            "answers": ["Nice"],
        },
    ),
    "squad": (
        ("rajpurkar/squad",),
        {},
        {
            "title": "Seine_River",
            "context": "The Seine flows through Paris.",
            "question": " What does the Seine flow through? ",
            "answers": {"text": ["Paris", "Paris", "the city of Paris"], "answer_start": [24, 24, 0]},
        },
    ),
    "drop": (
        ("ucinlp/drop",),
        {},
        {
            "passage": "Wolf kicked goals of 30 and 41 yards.",
            "question": "How many goals? ",
            "answers_spans": {"spans": ["2", "30 and 41", "two"], "types": ["number", "span", "span"]},
        },
    ),
    "winogrande": (
        ("allenai/winogrande", "winogrande_m"),
        {},
        {"sentence": "He wore a (_) hat, not a cap.", "option1": "tall", "option2": "flat", "answer": "1"},
    ),
    "trec": (
        ("CogComp/trec",),
        {"coarse_label": ["ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"]},
        {"text": "What is the capital of Perú ?", "coarse_label": 4, "fine_label": 0},
    ),
}  # fmt: skip
