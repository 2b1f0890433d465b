"""The official formats, flattened to records with the column names of the hub."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llm.tasks.decoding import lines
from llm.tasks.json_rows import json_document, json_lines
from llm.tasks.record import DataRecord


def wsc(file: Path) -> list[DataRecord]:
    """Return SuperGLUE's WSC with its spans as columns, repaired as `wsc.fixed` is: they are substrings of the text.

    Raises:
        ValueError: the file is missing or malformed; the message names file and line.
    """
    return [_whole_spans(DataRecord(r.where, {**r.fields, **_inner(r, r.fields, "target")})) for r in json_lines(file)]


def _whole_spans(record: DataRecord) -> DataRecord:
    """Spans in the case of the text, without a final dot, on one line: the hub's `wsc.fixed`."""
    text, fixed = record.text("text"), dict(record.fields)
    for name in ("span1", "span2"):
        span, words, index = record.text(f"{name}_text"), text.split(), record.value(f"{name}_index")
        if span in text or not span or not (isinstance(index, int) and 0 <= index < len(words)):
            continue
        begin = span[0].lower() if words[index][0].islower() else span[0].upper()
        corrected = (begin + span[1:]).rstrip(".").replace("\n", " ")
        fixed[f"{name}_text"] = corrected if corrected in text else span
    return DataRecord(record.where, fixed)


def multirc(file: Path) -> list[DataRecord]:
    """Return SuperGLUE's MultiRC, a row for each answer.

    Raises:
        ValueError: the file is missing or malformed; the message names file and line.
    """
    records = []
    for whole in json_lines(file):
        passage = _inner(whole, whole.fields, "passage")
        for question in _many(whole, passage, "questions"):
            for answer in _many(whole, question, "answers"):
                fields = {"paragraph": passage.get("text"), "question": question.get("question")}
                labelled = {"label": answer["label"]} if "label" in answer else {}
                records.append(DataRecord(whole.where, {**fields, "answer": answer.get("text"), **labelled}))
    return records


def record(file: Path) -> list[DataRecord]:
    """Return SuperGLUE's ReCoRD, a row for each query, with the distinct entities in the order of the passage.

    Raises:
        ValueError: the file is missing or malformed; the message names file and line.
    """
    records = []
    for whole in json_lines(file):
        passage = _inner(whole, whole.fields, "passage")
        text = str(passage.get("text"))
        spans = [
            (_whole_number(whole, e, "start"), _whole_number(whole, e, "end"))
            for e in _many(whole, passage, "entities")
        ]
        entities = [text[start : end + 1] for start, end in sorted(spans)]
        for query in _many(whole, whole.fields, "qas"):
            answers = [answer.get("text") for answer in _many(whole, query, "answers")]
            fields = {"passage": passage.get("text"), "query": query.get("query")}
            records.append(DataRecord(whole.where, {**fields, "entities": entities, "answers": answers}))
    return records


def squad(file: Path) -> list[DataRecord]:
    """Return SQuAD, a row for each question.

    Raises:
        ValueError: the file is missing or malformed; the message names the file and the question.
    """
    document, records = DataRecord(str(file), {"document": json_document(file)}), []
    for article in _many(document, _inner(document, document.fields, "document"), "data"):
        for paragraph in _many(document, article, "paragraphs"):
            for question in _many(document, paragraph, "qas"):
                where = f"{file}, question {question.get('id', question.get('question'))!r}"
                texts = [answer.get("text") for answer in _many(document, question, "answers")]
                fields = {"title": article.get("title"), "context": paragraph.get("context")}
                records.append(DataRecord(where, {**fields, "question": question.get("question"), "answers": texts}))
    return records


def drop(file: Path) -> list[DataRecord]:
    """Return DROP, a row for each question; the answer comes first, then those of the validators.

    An answer of several spans counts as several right answers, as in the hub's `answers_spans`.

    Raises:
        ValueError: the file is missing or malformed; the message names the file and the question.
    """
    document, records = DataRecord(str(file), {"document": json_document(file)}), []
    for name, section in _inner(document, document.fields, "document").items():
        if not isinstance(section, dict):
            raise ValueError(f"{file}: {name} is not an object with passage and qa_pairs")
        for pair in _many(document, section, "qa_pairs"):
            where = f"{file}, question {pair.get('query_id', pair.get('question'))!r}"
            given = DataRecord(where, pair)
            validated = pair.get("validated_answers", [])
            answers = [_inner(given, pair, "answer"), *(validated if isinstance(validated, list) else [])]
            texts = [text for answer in answers for text in _drop_texts(answer)]
            fields = {"passage": section.get("passage"), "question": pair.get("question"), "answers": texts}
            records.append(DataRecord(where, fields))
    return records


def _drop_texts(answer: Mapping[str, Any]) -> list[str]:
    """The texts of an answer: a number, a date as day, month and year, or spans."""
    date = " ".join(
        part for part in (answer.get("date", {}).get(name, "") for name in ("day", "month", "year")) if part
    )
    return [text for text in (str(answer.get("number", "")), date, *answer.get("spans", ())) if text]


def trec(file: Path) -> list[DataRecord]:
    """Return TREC: lines `COARSE:fine question` in ISO-8859-1.

    Raises:
        ValueError: the file is missing, or a line has no label; the message names file and line.
    """
    records = []
    for number, line in enumerate(lines(file, "latin-1"), 1):
        label, space, question = line.partition(" ")
        coarse, colon, _ = label.partition(":")
        if line.strip() and not (space and colon):
            raise ValueError(f"{file}:{number}: {line[:60]!r} is not `COARSE:fine question`")
        if line.strip():
            records.append(DataRecord(f"{file}:{number}", {"coarse_label": coarse, "text": question}))
    return records


def _inner(record: DataRecord, fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"{record.where}: {name} is missing, or is not an object: is this the official file?")
    return value


def _many(record: DataRecord, fields: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    value = fields.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"{record.where}: {name} is missing, or is not a list of objects: is this the official file?")
    return iter(value)


def _whole_number(record: DataRecord, fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int):
        raise ValueError(f"{record.where}: {name} of an entity is {value!r}, not a place in the passage")
    return value
