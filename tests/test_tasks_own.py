"""The user's own data: task files and functions, and what is said where they are wrong."""

import json

import pytest

from llm import tasks
from llm.__main__ import main
from llm.tasks import Example

pytestmark = pytest.mark.usefixtures("one_thread")

CSV = 'id,text,kind\n1,"Broken, again ",bug\n2,I like it,praise\n3,"two\nlines",bug\n'
TOML = 'train = "mail.csv"\ntest = "mail.csv"\nlabel = "kind"\nprompt = "{text} This is"\n'
LABELS = '[labels]\nbug = " bad"\npraise = " good"\n'


def write(folder, toml=TOML + LABELS, **files):
    for name, text in {"mail.csv": CSV, **files}.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "mail.toml").write_text(toml)
    return str(folder / "mail.toml")


def examples(name, data=None):
    return [item.example for item in tasks.find(name).pools(data).training]


def test_a_csv_with_a_prompt_and_labels(tmp_path):
    file = write(tmp_path)
    pair = (" bad", " good")
    assert examples(file) == [
        Example("Broken, again This is", 0, pair),
        Example("I like it This is", 1, pair),
        Example("two\nlines This is", 0, pair),
    ]
    task = tasks.find(file)
    assert (task.name, task.candidates, task.objective, task.metric) == ("mail", pair, "classification", "accuracy")
    assert examples(file, str(tmp_path)) == examples(file)


def test_tsv_and_json_lines_say_the_same(tmp_path):
    tsv = 'text\tkind\nsaid "no\tbug\n'
    lines = '{"text": "said \\"no", "kind": "bug", "n": 3}\n\n{"text": 4, "kind": "praise", "n": 1}\n'
    file = write(tmp_path, TOML.replace("mail.csv", "mail.tsv") + LABELS, **{"mail.tsv": tsv})
    assert examples(file) == [Example('said "no This is', 0, (" bad", " good"))]
    file = write(tmp_path, TOML.replace("mail.csv", "mail.jsonl") + LABELS, **{"mail.jsonl": lines})
    assert [example.prompt for example in examples(file)] == ['said "no This is', "4 This is"]


def test_labels_may_be_true_false_or_numbers_in_json(tmp_path):
    lines = '{"text": "a", "kind": true}\n{"text": "b", "kind": false}\n'
    toml = TOML.replace("mail.csv", "mail.jsonl") + '[labels]\nfalse = " no"\ntrue = " yes"\n'
    assert [e.label for e in examples(write(tmp_path, toml, **{"mail.jsonl": lines}))] == [1, 0]
    lines = lines.replace("true", "7").replace("false", "3")
    toml = toml.replace("false =", "3 =").replace("true =", "7 =")
    assert [e.label for e in examples(write(tmp_path, toml, **{"mail.jsonl": lines}))] == [1, 0]


def test_an_answer_that_is_written(tmp_path):
    lines = '{"q": "2 + 2?", "a": ["4", "four", "4"]}\n{"q": "Why?", "a": "because "}\n'
    toml = 'train = "qa.jsonl"\ntest = "qa.jsonl"\nprompt = "Question: {q}\\nAnswer:"\nanswer = "a"\n'
    file = write(tmp_path, toml, **{"qa.jsonl": lines})
    assert examples(file) == [
        Example("Question: 2 + 2?\nAnswer:", 0, (" 4\n",), ("4", "four")),
        Example("Question: Why?\nAnswer:", 0, (" because\n",), ("because",)),
    ]
    task = tasks.find(file)
    assert (task.candidates, task.objective, task.metric) == (None, "language-model", "f1")
    task = tasks.find(write(tmp_path, toml + 'metric = "exact-match"\n'))
    assert task.metric == "exact-match"


def test_without_a_test_file_a_quarter_is_held_out_and_groups_stay_together(tmp_path):
    rows = "".join(f"{i % 40},sentence number {i},{'bug' if i % 3 else 'praise'}\n" for i in range(400))
    toml = TOML.replace('test = "mail.csv"\n', 'group = "id"\n')
    file = write(tmp_path, toml + LABELS, **{"mail.csv": "id,text,kind\n" + rows})
    pools = tasks.find(file).pools(None)
    assert len(pools.training) + len(pools.test) == 400 and 40 <= len(pools.test) <= 160
    assert len(pools.test) % 10 == 0  # whole groups of ten
    assert pools.notes == (
        f"mail: no test set: {len(pools.test)} of 400 rows are held out for it, fixed by a hash of their texts",
    )
    first, second = (tasks.split(tasks.find(file), None, 50, 20, 30, seed) for seed in (0, 1))
    assert first.test == second.test and first.train != second.train


def test_a_published_task_from_files_of_other_names_and_with_another_prompt(tmp_path):
    row = {"premise": "Rain fell.", "hypothesis": "It was dry.", "label": "not_entailment"}
    lines = json.dumps(row) + "\n"
    toml = 'task = "rte"\ntrain = "some.jsonl"\ntest = "some.jsonl"\n'
    file = write(tmp_path, toml, **{"some.jsonl": lines})
    (found,) = examples(file)
    assert found == Example('Rain fell.\nDoes this mean that "It was dry." is true? Yes or No?\n', 1, ("Yes", "No"))
    bare = toml + 'prompt = "{premise} {hypothesis}"\n[labels]\nentailment = " Yes"\nnot_entailment = " No"\n'
    assert examples(write(tmp_path, bare)) == [Example("Rain fell. It was dry.", 1, (" Yes", " No"))]


def test_braces_that_are_braces(tmp_path):
    file = write(tmp_path, TOML.replace("{text}", "{{{text}}}") + LABELS)
    assert examples(file)[1].prompt == "{I like it} This is"


def test_an_encoding_that_is_named(tmp_path):
    data = "text,kind\ncaf\xe9,bug\n".encode("latin-1")
    file = write(tmp_path, 'encoding = "latin-1"\n' + TOML + LABELS, **{"mail.csv": data})
    assert examples(file)[0].prompt == "café This is"
    with pytest.raises(ValueError, match=r"mail\.csv: encoding 'latin-x' is unknown"):
        examples(write(tmp_path, 'encoding = "latin-x"\n' + TOML + LABELS))
    assert examples(write(tmp_path, **{"mail.csv": b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode()}))[1].label == 1


@pytest.mark.parametrize(
    ("csv", "message"),
    [
        ("text,sort\na,bug\n", r"unknown column in .*mail\.csv:2: 'kind'.*Known: text, sort"),
        ("txt,kind\na,bug\n", r"unknown column in .*mail\.csv:2: 'text'. Did you mean 'txt'"),
        ("text,kind\na,bug\nb,praze\n", r"unknown label in .*mail\.csv:3: 'praze'. Did you mean 'praise'"),
        ('text,kind\n"a\nb",bug\nc,x\n', r"mail\.csv:4: 'x'"),
        ("", r"mail\.csv:1: the file is empty"),
        ("text,kind\n", r"mail\.csv:1: there is a header and no row"),
        ("text,kind\na,b,bug\n", r"mail\.csv:2: 3 cells, but the header has 2 \(text, kind\): quote a cell"),
        ('text,kind\n"a,bug\n', r"mail\.csv:\d: "),
        ("text,text\na,bug\n", r"mail\.csv:1: columns are \['text', 'text'\]: give each a name of its own"),
        (
            b"text,kind\na,bug\n\xff,bug\n",
            r"mail\.csv:3: byte 0xff at 1 is not utf-8: convert the file, or name its enc",
        ),
    ],
)
def test_a_wrong_data_file_is_told_with_its_line(csv, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        examples(write(tmp_path, **{"mail.csv": csv}))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"text": "a", "kind": "bug"}\n{"text": "b", "kind"\n', r"mail\.jsonl:2: not JSON \(Expecting ':' del"),
        ('{"text": "a", "kind": "bug"}\n{"text": ["b"], "kind": "bug"}\n', r"mail\.jsonl:2: text is \['b'\]: give a"),
        ('{"text": null, "kind": "bug"}\n', r"mail\.jsonl:1: text is None"),
        ('"a"\n', r"mail\.jsonl:1: 'a' is not a JSON object"),
    ],
)  # fmt: skip
def test_a_wrong_line_of_json_is_told(lines, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        examples(write(tmp_path, TOML.replace("mail.csv", "mail.jsonl") + LABELS, **{"mail.jsonl": lines}))


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("trian = 1\n", r"unknown key in .*mail\.toml: 'trian'. Did you mean 'train'"),
        ('prompt = "{text} It"\n' + LABELS, r"mail\.toml: no training file: give train"),
        ('train = "mail.csv"\n', r"mail\.toml: a task needs prompt, and either a table \[labels\] or answer = COLUMN"),
        (TOML, "either a table"),
        (TOML + 'answer = "text"\n' + LABELS, "either a table"),
        (TOML.replace("This is", "This is ") + LABELS, r"mail\.toml: prompt ends in a space"),
        (TOML + '[labels]\nbug = " bad"\n', "labels are .*: give two or more lines"),
        (TOML + "[labels]\nbug = 1\npraise = 2\n", "label bug is 1: give its continuation"),
        (TOML.replace("{text}", "{text") + LABELS, r"template '\{text This is': expected '}' before end"),
        (TOML.replace("{text}", "{}") + LABELS, "write only the name of a column"),
        (TOML.replace("{text}", "{text!r}") + LABELS, "write only the name of a column"),
        ("train = 3\n", r"mail\.toml: train is 3: give a str"),
        ("train =\n", r"mail\.toml: not TOML: .*line 1"),
        ('task = "rte2"\ntrain = "a.jsonl"\n', "unknown task in .*mail.toml: 'rte2'. Did you mean 'rte'"),
        ('metric = "acuracy"\n' + TOML + LABELS, "unknown metric in .*: 'acuracy'. Did you mean 'accuracy'"),
        (
            TOML.replace("mail.csv", "mail.xlsx") + LABELS,
            r"mail\.xlsx: a file of rows ends in .csv, .tsv, .jsonl or .json",
        ),
        (TOML.replace("mail.csv", "post.csv") + LABELS, r"post\.csv: no such file"),
    ],
)
def test_a_wrong_task_file_is_told(toml, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        examples(write(tmp_path, toml))


def test_an_answer_that_is_missing_is_told(tmp_path):
    toml = 'train = "qa.jsonl"\nprompt = "{q}"\nanswer = "a"\n'
    for answer in ('""', "null", "[]", "[1]", '["a", " "]'):
        file = write(tmp_path, toml, **{"qa.jsonl": f'{{"q": "Why?", "a": {answer}}}\n'})
        with pytest.raises(ValueError, match=r"qa\.jsonl:1: a is "):
            examples(file)


FUNCTIONS = """
from llm.tasks import Example, Item, Pools, Task
PAIR = (" no", " yes")
def many():
    return [Example(f"Is {i} long?", i % 2, PAIR) for i in range(40)]
def two():
    return many(), [Example("Is this tested?", 1, PAIR)]
def choices():
    return [Example(f"{i}:", 0, (f" {i}", f" {i + 1}")) for i in range(9)], many()
def written():
    return [Example(f"{i} + 1 =", 0, (f" {i + 1}\\n",), (str(i + 1),)) for i in range(40)]
def whole():
    return Task("whole", lambda folder: Pools([], []), metric="exact-match")
def none(): return []
def wrong(): return ["Is this one?"]
def bare(): return [Example("Is this one?", 0)]
def half(): return [*many(), Example("Is this \\ud83d?", 0, PAIR)]
def missing(): return [Example(float("nan"), 0, PAIR)]
def single(): return [Example("Is this one?", 0, " yes")]
def named(): return [Example("Is this one?", " yes", PAIR)]
def lists(): return [Example(f"Is {i} long?", i % 2, list(PAIR)) for i in range(40)]
number = 3
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    (tmp_path / "my_questions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_function_of_ones_own(functions):
    many, two, choices, written, whole = (
        tasks.find(f"my_questions:{name}") for name in ("many", "two", "choices", "written", "whole")
    )
    pools = many.pools(None)
    assert len(pools.training) + len(pools.test) == 40 and "held out" in pools.notes[0]
    assert (many.name, many.candidates, many.objective, many.metric) == (
        "many", (" no", " yes"), "classification", "accuracy",
    )  # fmt: skip
    assert len(two.pools(None).training) == 40 and two.pools(None).test[0].example.prompt == "Is this tested?"
    assert (choices.candidates, choices.objective, choices.metric) == (None, "language-model", "accuracy")
    assert (written.candidates, written.objective, written.metric) == (None, "language-model", "f1")
    assert whole.metric == "exact-match"
    assert tasks.find("my_questions:lists").candidates == (" no", " yes")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_questions:mani", "has no function 'mani'"),
        ("my_answers:many", "No module named 'my_answers'"),
        ("my_questions:number", "has no function 'number'"),
        ("my_questions:none", "returned .*: return Examples"),
        ("my_questions:wrong", "item 0 is 'Is this one"),
        ("my_questions:half", r"item 40 has 'Is this \\ud83d\?': give texts"),
        ("my_questions:missing", "item 0 has nan: give texts"),
        ("my_questions:single", "item 0 has ' yes': give a tuple"),
        ("my_questions:named", "item 0: label is ' yes': give the index"),
        ("my_questions:bare", r"item 0 is .*: give Example\(prompt, label, candidates\)"),
        ("mail.csv", "is a data file: name it in a task file"),
        ("mail.toml", r"mail\.toml: no such file"),
        ("rte2", "unknown task 'rte2'. Did you mean 'rte'"),
    ],
)
def test_a_task_that_cannot_be_found_is_told(name, message, functions):
    with pytest.raises(ValueError, match=message):
        tasks.find(name)


def test_a_wrong_file_is_one_line_on_the_command_line(tmp_path, capsys):
    file = write(tmp_path, **{"mail.csv": CSV.replace("praise", "prase")})
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--task", file, "--out", str(tmp_path / "run")])
    told = capsys.readouterr().err
    assert stopped.value.code == 2 and told.count("\n") == 1 and "mail.csv:3: 'prase'. Did you mean 'praise'" in told
    assert not (tmp_path / "run").exists()
