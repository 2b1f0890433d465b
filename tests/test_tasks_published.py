"""The published tasks: official files and hub rows become the prompts that are written out by hand."""

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
from published_rows import EXPECTED, FILES, HUB

from llm import tasks
from llm.tasks.published import PUBLISHED

pytestmark = [pytest.mark.environment, pytest.mark.usefixtures("one_thread")]


def write(folder, name, **changed):
    for file, text in {**FILES[name], **changed}.items():
        encoding = "latin-1" if name == "trec" else "utf-8"
        (folder / file).write_bytes(text.encode(encoding))
    return str(folder)


def test_every_published_task_is_here():
    assert set(EXPECTED) == set(FILES) == set(HUB) == set(PUBLISHED) and len(EXPECTED) == 13
    assert set(tasks.TASKS) == {"spam", "sentences", "genre", "countdown", *PUBLISHED}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_question_from_the_official_files_reads_as_written_by_hand(name, tmp_path):
    pools = tasks.find(name).pools(write(tmp_path, name))
    assert pools.test[-1].example == EXPECTED[name]
    assert len(pools.training) == 1 and pools.training[0].key != pools.test[-1].key


def test_other_labels_other_questions(tmp_path):
    """The other side of what EXPECTED shows, from the training files."""
    found = {}
    for name in FILES:
        folder = tmp_path / name
        folder.mkdir()
        found[name] = tasks.find(name).pools(write(folder, name)).training[0].example
    labels = {name: example.label for name, example in found.items()}
    assert labels == {
        **{"sst2": 0, "rte": 1, "cb": 0, "boolq": 1, "wsc": 1, "wic": 1, "multirc": 0, "copa": 1, "record": 0},
        **{"squad": 0, "drop": 0, "winogrande": 1, "trec": 2},
    }
    assert found["sst2"].prompt == 'a "dull film It was'
    assert found["copa"].prompt == "I slept because" and found["copa"].candidates == (" I ran.", " I was tired.")
    assert found["winogrande"].prompt == "Ann thanked Eve, so"
    assert found["winogrande"].candidates == (" Ann smiled.", " Eve smiled.")
    assert found["drop"].answers == ("3 May 1950",) and found["squad"].answers == ("The Seine", "Seine")


def hub(monkeypatch, name, scripted=False):
    """A `datasets` that has one task's rows, and remembers what it was asked for."""
    named, classes, row = HUB[name]
    asked = []

    class Rows(list):
        features: ClassVar = {
            column: SimpleNamespace(names=classes[column]) if column in classes else None for column in row
        }

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        if scripted and not options:
            raise RuntimeError("Dataset scripts are no longer supported, but found it.py")
        if arguments != named:
            raise FileNotFoundError(arguments)
        return {"train": Rows([row]), "test" if name == "trec" else "validation": Rows([row, row])}

    module = ModuleType("datasets")
    module.disable_progress_bars = lambda: None
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


@pytest.mark.parametrize("name", EXPECTED)
def test_a_question_from_the_hub_is_the_one_from_the_files(name, monkeypatch):
    hub(monkeypatch, name)
    pools = tasks.find(name).pools(None)
    assert [item.example for item in pools.test] == [EXPECTED[name]] * 2 and len(pools.training) == 1


def test_class_numbers_without_names_mean_the_same(monkeypatch):
    for name in ("sst2", "rte", "cb", "boolq", "wsc", "wic", "multirc", "copa", "trec"):
        named, _, row = HUB[name]
        monkeypatch.setitem(HUB, name, (named, {}, row))
        hub(monkeypatch, name)
        assert tasks.find(name).pools(None).test[0].example == EXPECTED[name], name


def test_a_set_that_is_a_script_is_taken_from_the_hubs_conversion(monkeypatch):
    asked = hub(monkeypatch, "cb", scripted=True)
    assert tasks.find("cb").pools(None).test[0].example == EXPECTED["cb"]
    assert asked[-1] == (("aps/super_glue", "cb"), {"revision": "refs/convert/parquet"})


def test_a_hub_out_of_reach_and_a_missing_package_say_what_to_do(monkeypatch):
    hub(monkeypatch, "cb")
    with pytest.raises(
        ValueError, match=r"task rte: aps/super_glue rte could not .* --data FOLDER \(train.jsonl and val"
    ):
        tasks.find("rte").pools(None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ValueError, match=r"needs --data FOLDER \(train.jsonl and val.jsonl\), or the library of the hub: pip install"
    ):
        tasks.find("rte").pools(None)


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("rte", "val.jsonl", '{"premise": "a"', r"val\.jsonl:1: not JSON \(Expecting ',' delimiter at 16\)"),
        ("rte", "val.jsonl", '\n{"premise": "a", "hypothesis": "b"}\n', r"unknown column in .*val\.jsonl:2: 'label'"),
        ("rte", "val.jsonl", '{"premise": "a", "hypothesis": "b", "label": -1}', r"label -1 is none of entailment"),
        ("rte", "val.jsonl", '{"premise": 3, "hypothesis": "b", "label": 0}', r"val\.jsonl:1: premise is 3, not a"),
        ("rte", "val.jsonl", "[1]\n", r"val\.jsonl:1: \[1\] is not a JSON object"),
        ("rte", "val.jsonl", " \n", r"val\.jsonl:1: the file is empty"),
        ("sst2", "dev.tsv", "sentence\tlabel\nfine\t0\nnot so\t2\n", r"dev\.tsv:3: label '2' is none of negative, p"),
        ("sst2", "dev.tsv", "text\tlabel\nfine\t0\n", r"unknown column in .*dev\.tsv:2: 'sentence'.*Known: text, l"),
        ("sst2", "dev.tsv", "sentence\tlabel\nfine\n", r"dev\.tsv:2: 1 cells, but the header has 2"),
        ("sst2", "dev.tsv", "sentence\tlabel\n", r"dev\.tsv:1: there is a header and no row"),
        ("copa", "val.jsonl", FILES["copa"]["val.jsonl"].replace("effect", "why"), r"question is 'why', not cause or"),
        ("copa", "val.jsonl", FILES["copa"]["val.jsonl"].replace('label": 1', 'label": 2'), "neither 0 nor 1"),
        ("multirc", "val.jsonl", FILES["rte"]["val.jsonl"], r"val\.jsonl:1: passage is missing, or is not an object"),
        ("wsc", "val.jsonl", FILES["rte"]["val.jsonl"], r"val\.jsonl:1: target is missing"),
        ("record", "val.jsonl", FILES["record"]["val.jsonl"].replace('"Nice"', '"Metz"'), r"need one of \('Metz',\)"),
        ("squad", "dev-v1.1.json", '{"data":\n [}', r"dev-v1\.1\.json:2: not JSON"),
        ("squad", "dev-v1.1.json", "{}", "data is missing, or is not a list"),
        ("drop", "drop_dataset_dev.json", '{"a": 1}', "a is not an object"),
        ("winogrande", "dev.jsonl", FILES["winogrande"]["dev.jsonl"].replace("_", ""), "the sentence needs one gap"),
        ("winogrande", "dev.jsonl", FILES["winogrande"]["dev.jsonl"].replace('"1"', '""'), "neither 1 nor 2"),
        ("trec", "TREC_10.label", "LOC:city\n", r"TREC_10\.label:1: 'LOC:city' is not"),
        ("trec", "TREC_10.label", "PLACE:city Where ?\n", r"TREC_10\.label:1: coarse_label 'PLACE' is none of ABBR"),
    ],
)  # fmt: skip
def test_a_malformed_official_file_is_named_with_the_line(name, file, text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        tasks.find(name).pools(write(tmp_path, name, **{file: text}))


def test_undecodable_bytes_and_missing_files_are_named(tmp_path):
    write(tmp_path, "rte")
    (tmp_path / "val.jsonl").write_bytes(b'{"premise": "a"}\n{"premise": "caf\xe9"}\n')
    with pytest.raises(ValueError, match=r"val\.jsonl:2: byte 0xe9 at 17 is not utf-8: convert the file"):
        tasks.find("rte").pools(str(tmp_path))
    (tmp_path / "val.jsonl").unlink()
    with pytest.raises(ValueError, match=r'val\.jsonl: no such file; .* task file: task = "rte"'):
        tasks.find("rte").pools(str(tmp_path))
    with pytest.raises(ValueError, match=r"train_5500\.label: no such file \(nor train_raw\.txt\)"):
        tasks.find("trec").pools(str(tmp_path))


def test_questions_without_an_answer_are_left_out_and_told(tmp_path):
    text = FILES["squad"]["dev-v1.1.json"].replace('"answers": [', '"answers": [], "plausible": [')
    pools = tasks.find("squad").pools(write(tmp_path, "squad", **{"train-v1.1.json": text}))
    assert pools.training == [] and len(pools.test) == 1
    assert pools.notes == ("squad: 1 training and 0 test questions without an answer are left out",)


def test_two_pronouns_of_one_text_are_two_questions(tmp_path):
    row = {"span1_index": 0, "span1_text": "Ann", "span2_text": "she"}
    targets = [{**row, "span2_index": index} for index in (3, 7, 3)]
    rows = [{"text": "Ann said that she will if she can.", "target": target, "label": True} for target in targets]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    pools = tasks.find("wsc").pools(write(tmp_path, "wsc", **{"train.jsonl": lines}))
    first, second, third = (item.key for item in pools.training)
    assert first == third != second and len({item.example.prompt for item in pools.training}) == 1


def test_how_each_task_is_trained_and_judged():
    named = {task.name: task for task in tasks.TASKS.values()}
    trained = {name for name, task in named.items() if task.objective == "language-model"}
    assert trained == {"copa", "record", "squad", "drop", "winogrande"}
    assert {name for name, task in named.items() if task.candidates is None} == {*trained, "countdown"}
    assert {name for name, task in named.items() if task.metric == "f1"} == {"record", "squad", "drop"}
    assert {name: task.sizes[:3] for name, task in named.items() if task.sizes.dev == 100} == {
        "cb": (1000, 100, 1000),
        "copa": (1000, 100, 1000),
        "countdown": (500, 100, 200),
    }
    assert all(named[name].sizes[:3] == (1000, 500, 1000) for name in PUBLISHED if name not in ("cb", "copa"))
