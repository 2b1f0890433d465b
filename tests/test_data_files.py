"""Data files as people have them: encodings, line ends, dialects, damage: what is read, told and refused."""

import codecs
import csv
import json

import pytest

from llm import tasks
from llm.__main__ import main
from llm.tasks.doubts import without_empty
from llm.tasks.record import DataRecord

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = '[labels]\n0 = " bad"\n1 = " good"\n'
ROWS = "text,label\ncafé,0\n“two”,1\n"
TEXTS = ["café", "“two”"]


def pools(folder, data, name="d.csv", keys="", labels=LABELS):
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    toml = f'train = "{name}"\ntest = "{name}"\nprompt = "{{text}} is"\n{keys}\n{labels}'
    (folder / "t.toml").write_text(toml, "utf-8")
    return tasks.find(str(folder / "t.toml")).pools(None)


def texts(*arguments, **keywords):
    return [item.example.prompt.removesuffix(" is") for item in pools(*arguments, **keywords).training]


def labels(*arguments, **keywords):
    return [item.example.label for item in pools(*arguments, **keywords).training]


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (ROWS.encode(), None),
        (codecs.BOM_UTF8 + ROWS.encode(), None),
        (codecs.BOM_UTF8 + ROWS.encode(), "latin-1"),
        (ROWS.encode("utf-16"), None),
        (ROWS.encode("utf-16"), "utf-16"),
        (ROWS.replace("\n", "\r\n").encode("utf-16"), "utf-16-le"),
        (codecs.BOM_UTF16_BE + ROWS.encode("utf-16-be"), None),
        (ROWS.encode("utf-16-le"), "UTF16"),
        (ROWS.encode("utf-16-be"), "utf-16"),
        (ROWS.encode("utf-16-be"), "utf-16-be"),
        (ROWS.encode("utf-32"), None),
        (ROWS.encode("cp1252"), "cp1252"),
    ],
)
def test_an_encoding_is_named_or_marked(data, named, tmp_path):
    assert texts(tmp_path, data, keys=f'encoding = "{named}"' if named else "") == TEXTS
    assert pools(tmp_path, data, keys=f'encoding = "{named}"' if named else "").notes == ()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_line_ends(end, tmp_path):
    assert texts(tmp_path, ROWS.replace("\n", end)) == TEXTS
    assert texts(tmp_path, ROWS.replace("\n", end, 1)) == TEXTS
    lines = [json.dumps({"text": text, "label": 1}) for text in TEXTS]
    assert texts(tmp_path, end.join(lines), "d.jsonl") == TEXTS
    assert texts(tmp_path, "text\tlabel" + end + "a\u2028b\x85\t1" + end, "d.tsv") == ["a\u2028b"]


@pytest.mark.parametrize(
    ("name", "keys", "data", "wanted"),
    [
        ("D.CSV", "", "text,label\na,1\n", ["a"]),
        ("D.TSV", "", "text\tlabel\na\t1\n", ["a"]),
        ("D.JsonL", "", '{"text": "a", "label": 1}', ["a"]),
        ("d.csv", "", " text , label\na, 1\n", ["a"]),
        ("d.csv", "", "\n  \ntext,label\n\na,1\n   \n \t\n", ["a"]),
        ("d.csv", "", 'text,label\n"' + "x" * 200_000 + '",1\n', ["x" * 200_000]),
        ("d.csv", "", 'text,label\n"a ""b"", c\nd",1\n', ['a "b", c\nd']),
        ("d.csv", "quoting = false", 'text,label\n"a \\"b\\"",1\n', ['"a \\"b\\""']),
        ("d.csv", 'separator = ";"', 'text;label\n"a; b";1\n', ["a; b"]),
        ("d.csv", 'separator = "\\t"', 'text\tlabel\n"a\tb"\t1\n', ["a\tb"]),
        ("d.tsv", "quoting = true", 'text\tlabel\n"a ""no"""\t1\n"two\nlines"\t0\n', ['a "no"', "two\nlines"]),
        ("d.tsv", "", 'text\tlabel\n"a\t1\n', ['"a']),
        ("d.json", "", '[{"text": "a", "label": 1},\n {"text": "b",\n "label": 0}]\n', ["a", "b"]),
        ("d.JSON", "", '\ufeff[{"text": "a", "label": 1}]', ["a"]),
        ("d.json", "", '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n', ["a", "b"]),
        ("d.jsonl", "", '\ufeff{"text": "a", "label": 1}\n\ufeff{"text": "b", "label": 0}\n', ["a", "b"]),
        ("d.csv", "", "text,label\na,1\n\ufeffb,0\n", ["a", "b"]),
        ("d.jsonl", "", '{"text": 3, "label": 1}\n{"text": true, "label": 1}', ["3", "true"]),
        ("d.jsonl", "", '{"text": 0.5, "label": 1.0}', ["0.5"]),
        ("d.jsonl", "", '{"text": "a", "label": 1, "score": NaN, "more": {"x": [null]}}', ["a"]),
        ("d.jsonl", "", '{"text": "\\ud83d\\ude00", "label": 1}', ["\U0001f600"]),
    ],
)  # fmt: skip
def test_what_is_read(name, keys, data, wanted, tmp_path):
    found = pools(tmp_path, data, name, keys)
    assert [item.example.prompt.removesuffix(" is") for item in found.training] == wanted
    assert found.notes == ()


def test_the_limit_of_a_cell_is_put_back(tmp_path):
    before = csv.field_size_limit()
    texts(tmp_path, ROWS)
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "keys", "data", "note"),
    [
        ("d.csv", "", ",text,label\n0,a,1\n1,b,0\n", "without a name are passed over: 1; rows with text in them: 2"),
        ("d.csv", "", "label,text,,\n1,a,,\n0,b,,c\n", "passed over: 2; rows with text in them: 1, first at "),
        ("d.csv", "", "label,text, ,\r\n1,a,,\r\n0,b,,\r\n", "d.csv: columns without a name are passed over: 2"),
        ("d.csv", "", "text,label\na,1\nb,0\n,\n , \n", "d.csv: rows of empty cells are passed over: 2"),
        ("d.csv", "", "text,label\na,1\n,0\nb,0\n \u00a0,0\n", "rows left out: 2 of 4, text is empty, first at "),
        ("d.jsonl", "", '{"text": "", "label": 1}\n{"text": "a", "label": 1}\n{"text": "b", "label": 1}', "d.jsonl:1"),
        ("d.csv", "", "text,label\na,1\nNaN,0\n", "for a missing value but taken as text in 1 of 2 rows: 'NaN' at "),
        ("d.tsv", "", 'text\tlabel\na\t1\n"say ""no"""\t0\n', ":3: if its quotes enclose cells, give quoting = true"),
        ("d.csv", 'encoding = "latin-1"', ROWS.encode("cp1252"), 'give encoding = "cp1252"'),
        ("d.csv", 'encoding = "latin-1"', ROWS.encode(), "text looks like UTF-8 decoded as another encoding"),
        ("d.csv", 'encoding = "cp1252"', "text,label\ncafé,1\nb,1\n".encode(), "in 1 of 2 rows: 'cafÃ©' at "),
        ("d.csv", "", "text,label\nlost \ufffd,1\nb,1\n", "text has U+FFFD"),
    ],
)  # fmt: skip
def test_what_is_told(name, keys, data, note, tmp_path):
    found = pools(tmp_path, data, name, keys)
    assert len(found.notes) == 1 and found.notes[0].startswith("t: ") and note in found.notes[0]
    assert len(found.training) == len(found.test) == 2


@pytest.mark.parametrize(
    ("name", "keys", "data", "message"),
    [
        ("d.jsonl", "", '{"text": "a", "label": 1}\n{"text": NaN, "label": 1}', r"d\.jsonl:2: text is nan"),
        ("d.jsonl", "", '{"text": -1e999, "label": 1}', r"d\.jsonl:1: text is -inf, which is no text: correct"),
        ("d.jsonl", "", '{"text": "a", "label": NaN}', r"d\.jsonl:1: label is nan"),
        ("d.jsonl", "", '{"text": "a", "label": null}', r"d\.jsonl:1: label is None: give a text"),
        ("d.jsonl", "", '{"text": {"a": 1}, "label": 1}', r"d\.jsonl:1: text is \{'a': 1\}: give a text"),
        ("d.jsonl", "", '{"text": "a\\ud83d", "label": 1}', r"d\.jsonl:1: text is .*lone surrogate"),
        ("d.jsonl", "", '{"text": "a", "text": "b", "label": 1}', r"d\.jsonl:1: the name 'text' occurs twice"),
        ("d.jsonl", "", '{"text": ' + "[" * 100_000 + "}", r"d\.jsonl:1: .*nested too deeply"),
        ("d.jsonl", "", '\n{"text": ' + "9" * 5000 + "}", r"d\.jsonl:2: a number has more digits"),
        ("d.json", "", '[{"text": "a", "label": 1},\n{"text": NaN, "label": 1}]', r"d\.json:2, item 2: text is nan"),
        ("d.json", "", '[{"text": "a", "label": 1},\n\n3]', r"d\.json:3: 3 is not a JSON object"),
        ("d.json", "", '[{"text": "a",\n "label" 1}]', r"d\.json:2: not JSON \(Expecting ':' delimiter at 10\)"),
        ("d.json", "", '[{"text": "a", "label": 1}\n{}]', r"d\.json:2: not JSON: a comma or \] is missing"),
        ("d.json", "", '[{"text": "a", "label": 1}', r"d\.json:1: not JSON: a comma or \] is missing"),
        ("d.json", "", '[{"text": "a", "label": 1},\n', r"d\.json:\d: not JSON"),
        ("d.json", "", '[{"text": "a", "label": 1}]\n[]', r"d\.json:1: give one list of objects, and nothing after"),
        ("d.json", "", '{"data":\n[{"text": "a"}]}', r"d\.json:1: the file is one object \(data\): give a list"),
        ("d.jsonl", "", '[{"text": "a", "label": 1}]', r"d\.jsonl:1: .* is not a JSON object.*\.json: a list of them"),
        ("d.json", "", "[]", r"d\.json:1: give one list of objects"),
        ("d.json", "", '{"text": {"0": "a"}, "label": {"0": 1}}', r"the file is one object \(text, label\): .*records"),
        ("d.jsonl", "", '{"text": ' + str(list(range(999))) + "}", r"d\.jsonl:1: text is \[0, 1, 2"),
        ("d.json", "", "[" * 100_000, r"d\.json:1: .*nested too deeply"),
        ("d.csv", "", "text;label\na;1\n", r'd\.csv:1: the header is one column, .*: give separator = ";"'),
        ("d.csv", "", "text\tlabel\na\t1\n", r'give separator = "\\t"'),
        ("d.tsv", "", "text,label\na,1\n", r'give separator = ","'),
        ("d.tsv", "", '"text"\t"label"\n"a"\t1\n', r"d\.tsv:1: columns are .*, with quotes: .*quoting = true"),
        ("d.tsv", "", "text\tlabel\na\tb\t1\n", r"d\.tsv:2: 3 cells, .*: leave separators and line breaks out"),
        ("d.tsv", "", 'text\tlabel\n"two\nlines"\t1\n', r"d\.tsv:2: 1 cells, .*quoting = true"),
        ("d.csv", "", 'text,label\n"a \\"b\\" c",1\n', r'd\.csv:2: .*a quote is written twice \(""\).*quoting = false'),
        ("d.csv", "", 'text,label\na,1\n"b,1\n"c",1\n', r"d\.csv:3: ',' expected after '\"'"),
        ("d.csv", "", 'text,label\na,1\n"b,1\nc,1\n', r"d\.csv:3: a quoted cell of this row is not closed"),
        ("d.csv", "", "text,label\n,\n", r"d\.csv:1: there is a header and no row"),
        ("d.csv", "", "text,label\n,1\n \u200b\ufeff,0\n", r"d\.csv:2: text is empty, here and in every row"),
        ("d.csv", "", "text,label\na,\n", r"unknown label in .*d\.csv:2: ''"),
        ("d.csv", "", ",,\na,b,c\n", r"d\.csv:1: columns are \['', '', ''\]"),
        ("d.csv", "", "text,label\na,1\n# end\n", r"d\.csv:3: 1 cells, .*: give the cells that are missing"),
        ("d.csv", "", "text,label, text\na,1,b\n", r"d\.csv:1: columns are .*give each a name of its own"),
        ("d.csv", "", "text,label\na,1\nb\x00c,1\n", r"d\.csv:3: there is a zero byte at 2"),
        ("d.csv", "", "text,label\na,1\n".encode("utf-16-le"), r'd\.csv:1: there is a zero byte at 2: .*"utf-16"'),
        ("d.csv", "", b"text,label\na,1\nno\xe9l,1\n", r'd\.csv:3: byte 0xe9 at 3 is not utf-8.*"cp1252"'),
        ("d.csv", 'encoding = "utf-16"', ROWS.encode("utf-16")[:-1], r"d\.csv:3: byte 0x0a at 8 is not utf-16-le"),
        ("d.csv", 'encoding = "cp1252"', b"text,label\r\na,1\rb\x81,1\r\n", r"d\.csv:3: byte 0x81 at 2 is not cp1252"),
        ("d.csv", 'encoding = "hex"', ROWS, "encoding 'hex' is unknown"),
        ("d.csv", 'encoding = "undefined"', ROWS, "encoding 'undefined' is unknown"),
        ("d.csv", "", b"\x1f\x8b\x08\x00", r"d\.csv:1: the file is gzip by its first bytes"),
        ("d.csv", "", b"PK\x03\x04", r"d\.csv:1: the file is zip or Excel"),
        ("d.csv", "", b"\xff\xfe", r"d\.csv:1: the file is empty"),
        ("d.csv", "", '""\n', r"d\.csv:1: the file is empty"),
        ("d.csv.gz", "", b"", r"ends in .csv, .tsv, .jsonl or .json: unpack it first"),
        ("d.parquet", "", b"", r"pandas.read_parquet\(FILE\).to_json\("),
        ("d.txt", "", b"", r"or .json: rename it, or convert it"),
        ("d.csv", 'separator = "::"', ROWS, "separator is '::': give one character"),
        ("d.csv", 'quoting = "none"', ROWS, "quoting is 'none': give a bool"),
        ("d.jsonl", "quoting = true", '{"text": "a", "label": 1}', r"separator and quoting are for .csv and .tsv"),
    ],
)  # fmt: skip
def test_what_is_refused(name, keys, data, message, tmp_path):
    with pytest.raises(ValueError, match=message) as refused:
        pools(tmp_path, data, name, keys)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("keys", "cells"),
    [
        (("0", "1"), ("0.0", "1.0")),
        (('"0.0"', '"1.0"'), ("0", "1.00")),
        (('"-1"', '"1"'), ("-1.0", "1")),
        (('"caf\u00e9"', "b"), ("cafe\u0301", "b")),
        (('"cafe\u0301"', "b"), ("caf\u00e9", "b")),
        (('"very good"', "b"), ("very\u00a0good", "b")),
    ],
)
def test_a_label_is_read_in_its_canonical_form(keys, cells, tmp_path):
    table = "[labels]\n" + "".join(f'{key} = " {i}"\n' for i, key in enumerate(keys))
    assert labels(tmp_path, f"text,label\na,{cells[0]}\nb,{cells[1]}\n", labels=table) == [0, 1]


def test_labels_that_differ_stay_different(tmp_path):
    table = '[labels]\n"1" = " a"\n"1.0" = " b"\n"1.5" = " c"\n'
    assert labels(tmp_path, "text,label\na,1\nb,1.0\nc,1.5\n", labels=table) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"unknown label in .*:2: '1.00'"):
        labels(tmp_path, "text,label\na,1.00\n", labels=table)
    with pytest.raises(ValueError, match=r"unknown label in .*:2: '1.5'"):
        labels(tmp_path, "text,label\na,1.5\n")


def test_a_column_is_found_however_its_name_is_composed(tmp_path):
    prompt = 'label = "cat\u00e9gorie"'
    assert labels(tmp_path, "text,cate\u0301gorie\na,1\n", keys=prompt) == [1]
    assert labels(tmp_path, '{"text": "a", "cate\u0301gorie": 1}', "d.jsonl", keys=prompt) == [1]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('[labels]\n0.0 = " a"\n1.0 = " b"\n', r'TOML reads label 0.0 as a table 0: quote the key, "0.0" = '),
        ('[labels]\na = ""\nb = " b"\n', "label a is '': give its continuation"),
        ("x = " + "[" * 100_000, "not TOML: "),
        ("x = " + "9" * 5000, "not TOML: "),
        ('[labels]\na = "\\ud83d"\nb = "b"\n', "not TOML: "),
        ('task = "sst2"\nencoding = "latin-1"\n', "encoding: the files of a published task have a format of their own"),
    ],
)
def test_a_wrong_table_of_a_task_file_is_told(table, message, tmp_path):
    with pytest.raises(ValueError, match=message) as refused:
        pools(tmp_path, ROWS, labels=table)
    assert "t.toml: " in str(refused.value)


def test_a_task_file_in_another_encoding(tmp_path):
    pools(tmp_path, ROWS)
    file = tmp_path / "t.toml"
    file.write_bytes(file.read_text().encode("utf-16"))
    assert len(tasks.find(str(file)).pools(None).training) == 2
    (tmp_path / "T.TOML").write_bytes(b'prompt = "\xe9"')
    with pytest.raises(ValueError, match=r"T\.TOML:1: byte 0xe9 at 11 is not utf-8: convert the file to UTF-8$"):
        tasks.find(str(tmp_path / "T.TOML"))


def test_one_empty_column_of_two_is_told_and_kept():
    records = [
        DataRecord("f:2", {"a": "x", "b": " "}),
        DataRecord("f:3", {"a": "", "b": ""}),
        DataRecord("f:4", {"a": 3, "b": "y"}),
    ]
    kept, notes = without_empty(records, ("a", "b"), ("a",))
    assert kept == [records[0], records[2]]
    assert notes == ["rows left out: 1 of 3, a and b is empty, first at f:3", "b is empty in 1 of 2 rows: '' at f:2"]


def test_a_list_of_answers_with_half_a_character_is_told(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"q": "a", "a": ["b", "\\ud83d"]}\n')
    (tmp_path / "q.toml").write_text('train = "q.jsonl"\nprompt = "{q}"\nanswer = "a"\n')
    with pytest.raises(ValueError, match=r"q\.jsonl:1: a is '\\ud83d', which has a lone surrogate"):
        tasks.find(str(tmp_path / "q.toml")).pools(None)
    (tmp_path / "q.jsonl").write_text('{"q": "a", "a": {"b": 1}}\n')
    with pytest.raises(ValueError, match=r"q\.jsonl:1: a is \{'b': 1\}"):
        tasks.find(str(tmp_path / "q.toml")).pools(None)


def test_a_continuation_that_a_row_leaves_empty_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"d\.csv:3: a continuation is empty: fill its columns"):
        pools(tmp_path, "text,label,a\nx,1,y\nz,0,\n", labels='[labels]\n0 = " {a}"\n1 = " b"\n')


def test_notes_of_files_are_printed_once_and_kept_as_rows(tmp_path, capsys):
    rows = "".join(f"{i},sentence {i},{i % 2}\n" for i in range(40)) + "40,,1\n"
    pools(tmp_path, ",text,label\n" + rows)
    file = tmp_path / "t.toml"
    file.write_text(file.read_text().replace('test = "d.csv"', ""))
    sizes = ["--train", "20", "--dev", "5", "--test", "5", "--max-tokens", "16"]
    main(["evaluate", "--task", str(file), *sizes, "--out", str(tmp_path / "run")])
    told = capsys.readouterr()
    kept = [json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    notes = [row["note"] for row in kept if row["kind"] == "note"]
    for part in ("columns without a name are passed over: 1", "rows left out: 1 of 41, text is empty, first at"):
        assert sum(part in note for note in notes) == 1 and (told.out + told.err).count(part) == 1


def test_a_prompt_that_would_flood_the_screen_is_shown_by_its_ends(tmp_path, capsys):
    rows = "".join(f"begin {i} {'word ' * 20_000} end {i},{i % 2}\n" for i in range(20))
    (tmp_path / "d.csv").write_text("text,label\n" + rows)
    (tmp_path / "t.toml").write_text('train = "d.csv"\nprompt = "{text} is"\n' + LABELS)
    main(["list", "--task", str(tmp_path / "t.toml"), "--examples", "1"])
    shown = capsys.readouterr().out
    assert "'begin " in shown and " [...] " in shown and " is' -> " in shown and len(shown) < 10_000
