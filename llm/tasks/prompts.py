"""Prompts: what a model reads for a record of each published task.

They are those of MeZO (Malladi et al. 2023, arXiv 2305.17333, template version 0 there; BoolQ's version 2), most of
them from PromptSource; WinoGrande's is that of ZO-Bench (Zhang et al. 2024, arXiv 2402.11592). MeZO strips spaces from
the end of a prompt, so that the space before an option belongs to the option.
"""

from llm.tasks.example import Example
from llm.tasks.record import DataRecord

CONJUNCTIONS = {"effect": " so", "cause": " because"}


def sst2(record: DataRecord) -> str:
    """`sentence It was`."""
    return f"{record.text('sentence').strip()} It was"


def rte(record: DataRecord) -> str:
    """Premise, then whether the hypothesis follows."""
    premise, hypothesis = record.text("premise"), record.text("hypothesis")
    return f'{premise}\nDoes this mean that "{hypothesis}" is true? Yes or No?\n'


def cb(record: DataRecord) -> str:
    """Suppose the premise: can the hypothesis be inferred?"""
    return f'Suppose {record.text("premise")} Can we infer that "{record.text("hypothesis")}"? Yes, No, or Maybe?\n'


def boolq(record: DataRecord) -> str:
    """Passage and question, which begins with a capital and ends with a question mark."""
    question = record.text("question")
    if not question.endswith("?"):
        question += "?"
    return f"{record.text('passage')} {question[:1].upper()}{question[1:]}\n"


def wsc(record: DataRecord) -> str:
    """Text, then whether the pronoun (span 2, in lower case) refers to span 1."""
    text, span, pronoun = (record.text(name) for name in ("text", "span1_text", "span2_text"))
    return f'{text}\nIn the previous sentence, does the pronoun "{pronoun.lower()}" refer to {span}? Yes or No?\n'


def wic(record: DataRecord) -> str:
    """Whether a word means the same in two sentences."""
    word, first, second = (record.text(name) for name in ("word", "sentence1", "sentence2"))
    return f'Does the word "{word}" have the same meaning in these two sentences? Yes, No?\n{first}\n{second}\n'


def multirc(record: DataRecord) -> str:
    """Paragraph and question, then whether one answer is correct."""
    paragraph, question, answer = (record.text(name) for name in ("paragraph", "question", "answer"))
    return f'{paragraph}\nQuestion: {question}\nI found this answer "{answer}". Is that correct? Yes or No?\n'


def trec(record: DataRecord) -> str:
    """The question, then ` It is about`: ours, for MeZO has TREC for masked models only."""
    return f"{record.text('text').strip()} It is about"


def copa(record: DataRecord) -> Example:
    """The premise without its dot and ` so` or ` because`; candidates: the alternatives, in lower case.

    Raises:
        ValueError: the question is neither effect nor cause, or the label neither 0 nor 1.
    """
    premise, asked = record.text("premise").rstrip(), record.text("question")
    if asked not in CONJUNCTIONS:
        raise ValueError(f"{record.where}: question is {asked!r}, not cause or effect")
    alternatives = tuple(f" {_uncapitalised(record.text(name))}" for name in ("choice1", "choice2"))
    return Example(premise.removesuffix(".") + CONJUNCTIONS[asked], _one_of_two(record, "label", 0), alternatives)


def _uncapitalised(text: str) -> str:
    first, space, rest = text.rstrip(" ").partition(" ")
    return first + space + rest if first == "I" else first.lower() + space + rest


def record(row: DataRecord) -> Example:
    """The passage, its highlights as a list, and one more dash; candidates: the query with each entity filled in.

    Raises:
        ValueError: no answer is among the entities, or the query has no placeholder.
    """
    passage, query = row.text("passage").replace("@highlight\n", "- "), row.text("query")
    entities, answers = row.texts("entities"), row.texts("answers")
    right = [i for i, entity in enumerate(entities) if entity in answers]
    if not right or "@placeholder" not in query:
        raise ValueError(f"{row.where}: the query needs @placeholder, and the entities need one of {answers}")
    label = entities.index(next(answer for answer in answers if answer in entities))
    filled = tuple(f" {query.replace('@placeholder', entity)}" for entity in entities)
    return Example(f"{passage}\n-", label, filled, answers, entities)


def squad(record: DataRecord) -> Example:
    """Title, context and question; the answer is generated."""
    title, context, question = record.text("title"), record.text("context"), record.text("question").strip()
    return generated(f"Title: {title}\nContext: {context}\nQuestion: {question}\nAnswer:", record.texts("answers"))


def drop(record: DataRecord) -> Example:
    """Passage and question; the answer is generated."""
    passage, question = record.text("passage"), record.text("question").strip()
    return generated(f"Passage: {passage}\nQuestion: {question}\nAnswer:", record.texts("answers"))


def generated(prompt: str, answers: tuple[str, ...]) -> Example:
    """Return an example whose answer is generated: the target is the first answer and the end of its line.

    A space at the end of the prompt, which belongs to what follows, becomes that of the target.
    """
    prompt = prompt.rstrip(" \t")
    space = "" if prompt[-1:].isspace() else " "
    return Example(prompt, 0, (f"{space}{answers[0]}\n",), answers)


def winogrande(record: DataRecord) -> Example:
    """The sentence up to the gap; candidates: each option with the rest of the sentence.

    Raises:
        ValueError: there is not one gap, or the answer is neither 1 nor 2.
    """
    before, gap, rest = record.text("sentence").partition("_")
    if not gap or "_" in rest:
        raise ValueError(f"{record.where}: the sentence needs one gap, written _")
    prompt = before.rstrip(" ")
    space = before[len(prompt) :]
    options = tuple(f"{space}{record.text(name)}{rest.rstrip(' ')}" for name in ("option1", "option2"))
    return Example(prompt, _one_of_two(record, "answer", 1), options)


def _one_of_two(record: DataRecord, column: str, first: int) -> int:
    value = record.value(column)
    named = {str(first): 0, str(first + 1): 1, "choice1": 0, "choice2": 1}
    if str(value) not in named:
        raise ValueError(f"{record.where}: {column} is {value!r}, neither {first} nor {first + 1}")
    return named[str(value)]
