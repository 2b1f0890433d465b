"""Splits of tasks: drawn by key, disjoint, the same for ever; sizes that are not as asked for are told."""

from hashlib import blake2b
from pathlib import Path

import pytest

from llm import listing, tasks
from llm.__main__ import main
from llm.loop.train import train
from llm.options.train import TrainOptions
from llm.tasks import Example, Item, Pools, Sizes, Task
from llm.tasks.published import PUBLISHED

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = Path(__file__).parents[2] / "shared/data"
CANDIDATES = (" a", " b")


def items(count, prefix="question", labels=2):
    made = [Example(f"{prefix} {i}", i % labels, CANDIDATES) for i in range(count)]
    return [Item(example.prompt, example) for example in made]


def made(training, test=4, **changes):
    pools = Pools(items(training) if isinstance(training, int) else training, items(test, "test"))
    return Task("mine", lambda folder: pools, CANDIDATES, **changes)


def fingerprint(split):
    text = repr([[tuple(example)[:4] for example in part] for part in split])
    return blake2b(text.encode(), digest_size=8).hexdigest()


@pytest.mark.parametrize(
    ("name", "seed", "wanted"),
    [
        ("spam", 0, "4dbb08fb81f32fd7"),
        ("spam", 1, "1e07b37d79d7ef86"),
        ("spam", -1, "74631d786fa3a781"),
        ("sentences", 0, "2dfb1c9f6d693cf5"),
        ("sentences", -1, "f08df652748aa7c2"),
        ("genre", 0, "a68dffd47639b0b0"),
    ],
)
def test_the_splits_under_the_committed_rows_never_change(name, seed, wanted):
    split = tasks.split(tasks.find(name), None, None, None, None, seed)
    assert [len(part) for part in split] == [500, 200, 300] and split.notes == ()
    assert fingerprint(split) == wanted
    assert fingerprint(tasks.split(tasks.find(name), None, 500, 200, 299, seed)) != wanted


def test_splits_are_disjoint_balanced_and_share_their_test_set():
    spam = tasks.find("spam")
    first, second = (tasks.split(spam, None, 100, 40, 60, seed) for seed in (0, 1))
    sets = [{example.prompt for example in part} for part in first]
    assert [len(s) for s in sets] == [100, 40, 60] and not (sets[0] & sets[1] or sets[2] & (sets[0] | sets[1]))
    assert first.test == second.test and first.train != second.train
    for part in first:
        assert sum(example.label for example in part) * 2 == len(part)


def test_a_larger_draw_begins_with_the_smaller_and_other_seeds_draw_others():
    task = made(200, 50)
    small, large, other = (tasks.split(task, None, *sizes) for sizes in ((10, 5, 5, 0), (40, 5, 9, 0), (10, 5, 5, 1)))
    assert large.train[:10] == small.train and large.test[:5] == small.test
    assert other.train != small.train and other.test == small.test


def test_a_training_question_that_is_tested_repeated_or_contradicted_is_left_out_and_told():
    extra = [*items(6), *items(1, "test"), *items(2), Item("odd", Example("odd", 0, CANDIDATES))]
    task = made([*extra, Item("odd", Example("odd", 1, CANDIDATES))])
    split = tasks.split(task, None, 4, 2, 4, 0)
    assert {example.prompt for example in split.train + split.dev} == {f"question {i}" for i in range(6)}
    assert split.notes == (
        "mine: 1 training questions are in the test set too: left out",
        "mine: 3 training questions repeat another: left out",
        "mine: 1 training questions have two labels: left out",
    )


@pytest.mark.parametrize(
    ("rows", "sizes", "asked", "wanted"),
    [
        (250, Sizes(dev=100), (None, None, None), (150, 100)),  # CB: dev first, as in MeZO
        (554, Sizes(), (None, None, None), (54, 500)),  # WSC
        (2000, Sizes(), (None, None, None), (1000, 500)),
        (300, Sizes(dev_share=1 / 3), (None, None, None), (200, 100)),
        (30, Sizes(), (None, 10, None), (20, 10)),
        (30, Sizes(), (12, None, None), (12, 18)),
        (600, Sizes(), (12, None, None), (12, 500)),
        (30, Sizes(), (12, 8, None), (12, 8)),
    ],
)
def test_sizes_that_are_not_asked_for_give_way_and_say_so(rows, sizes, asked, wanted):
    split = tasks.split(made(rows, 2000, sizes=sizes), None, *asked, 0)
    assert (len(split.train), len(split.dev), len(split.test)) == (*wanted, 1000)
    usual = asked[0] or sizes.train, asked[1] or sizes.dev
    told = f"mine: {rows} rows give {wanted[0]} for training and {wanted[1]} for dev, not {usual[0]} and {usual[1]}"
    assert split.notes == (() if wanted == usual else (told,))


@pytest.mark.parametrize(
    ("rows", "asked", "message"),
    [
        (30, (20, 20, 4), "30 training and development rows, but 40 are requested"),
        (30, (20, 10, 5), "4 test rows, but 5 are requested"),
        (30, (None, None, None), "leave nothing for one of them: give --train and --dev"),
        (30, (30, None, None), "leave nothing for one of them"),
        (30, (20, 0, 4), "dev is 0: each split needs at least one example"),
        (0, (1, 1, 1), "0 training and development rows, but 2"),
    ],
)
def test_a_split_smaller_than_asked_for_is_an_error(rows, asked, message):
    with pytest.raises(ValueError, match=message):
        tasks.split(made(rows), None, *asked, 0)


def test_a_test_set_that_is_empty_is_an_error():
    with pytest.raises(ValueError, match="mine has no test rows: give it a test file"):
        tasks.split(made(30, 0), None, 5, 5, None, 0)


def test_labels_and_candidates_that_do_not_fit_the_task_are_refused():
    with pytest.raises(ValueError, match="label 2 of 'question 2' is out of range"):
        tasks.split(made(items(30, labels=3)), None, 1, 1, 1, 0)
    other = [Item("what", Example("what", 0, (" c", " d")))]
    with pytest.raises(ValueError, match=r"'what' has .* give Task\(candidates=None\)"):
        tasks.split(made(other), None, 1, 1, 1, 0)
    with pytest.raises(ValueError, match=r"unknown metric 'f2'\. Did you mean 'f1'"):
        made(1, metric="f2")


def test_a_run_keeps_what_was_told_and_its_sizes(tmp_path, capsys):
    for name in ("train", "test"):
        rows = "".join(f"{name} message {i},{i % 2}\n" for i in range(60))
        (tmp_path / f"{name}.csv").write_text("text,label\n" + rows)
    files = 'train = "train.csv"\ntest = "test.csv"\n'
    file = tmp_path / "few.toml"
    file.write_text(files + 'prompt = "{text} It was"\n[labels]\n0 = " bad"\n1 = " good"\n')
    options = TrainOptions(task=str(file), steps=1, batch=4, max_tokens=24, save=False, out=str(tmp_path / "run"))
    assert train(options)["test_examples"] == 60
    assert "few: 60 rows give 40 for training and 20 for dev, not 1000 and 500" in capsys.readouterr().out
    rows = (tmp_path / "run/rows.jsonl").read_text()
    assert rows.count('"kind": "note"') == 2 and '"task": "few"' in rows
    config = (tmp_path / "run/config.toml").read_text()
    assert "train = 40" in config and "dev = 20" in config and "test = 60" in config
    assert train(options)["step"] == 1
    assert (tmp_path / "run/rows.jsonl").read_text() == rows


def test_columns_in_continuations_give_each_example_its_own_candidates(tmp_path):
    rows = "".join(f"{i} is odd,yes {i},no {i},{i % 2}\n" for i in range(60))
    (tmp_path / "own.csv").write_text("text,one,two,label\n" + rows)
    (tmp_path / "own.toml").write_text('train = "own.csv"\nprompt = "{text}"\n[labels]\n0 = " {one}"\n1 = " {two}"\n')
    task = tasks.find(str(tmp_path / "own.toml"))
    assert (task.candidates, task.objective) == (None, "language-model")
    split = tasks.split(task, None, None, None, None, 0)
    assert all(example.candidates[0].startswith(" yes ") for part in split for example in part)
    assert len({example.candidates for example in split.train}) == len(split.train)


def test_the_list_shows_tasks_methods_and_models_and_one_task_with_its_data(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name}" in shown for name in (*tasks.TASKS, "mezo", "kerzoo", "adamw", "tiny-opt"))
    assert "'It rained so' -> *' the street was wet.' ' I slept.'" in shown and "1000/100/1000" in shown
    assert main(["list", "--task", "spam", "--examples", "1"]) == 0
    shown = capsys.readouterr().out
    assert "spam: 500 train, 200 dev, 300 test; classification, accuracy" in shown
    assert shown.count(" This message is' -> ") + shown.count(' This message is" -> ') == 2
    assert "label 1: 250 of the training examples" in shown


def test_the_guide_shows_the_list_as_it_is():
    guide = (Path(__file__).parents[1] / "docs/tasks.md").read_text(encoding="utf-8")
    assert listing.all_tasks() in guide
    assert all(f"| {name} |" in guide for name in PUBLISHED)


def shared(path):
    return pytest.mark.skipif(not (DATA / path).exists(), reason=f"needs ../shared/data/{path}")


@pytest.mark.parametrize(
    ("name", "folder", "sizes"),
    [
        pytest.param("sst2", "sst2", (1000, 500, 872), marks=shared("sst2")),
        pytest.param("rte", "superglue/RTE", (1000, 500, 277), marks=shared("superglue/RTE")),
        pytest.param("cb", "superglue/CB", (150, 100, 56), marks=shared("superglue/CB")),
        pytest.param("copa", "superglue/COPA", (300, 100, 100), marks=shared("superglue/COPA")),
        pytest.param("trec", "trec", (1000, 500, 500), marks=shared("trec")),
    ],
)
def test_sets_as_published(name, folder, sizes):
    split = tasks.split(tasks.find(name), str(DATA / folder), None, None, None, 0)
    assert tuple(map(len, split)) == sizes
    assert len({(e.prompt, e.candidates) for part in split for e in part}) == sum(sizes)
    if name == "sst2":
        assert sum(example.label for example in split.test) == 444
        sized = tasks.split(tasks.find(name), str(DATA / folder), 1000, 500, 872, 0)
        assert fingerprint(sized) == "245114b8d5412e2b"


@pytest.mark.parametrize(
    ("name", "folder", "rows"),
    [
        pytest.param("boolq", "superglue/BoolQ", 3270, marks=shared("superglue/BoolQ")),
        pytest.param("wsc", "superglue/WSC", 104, marks=shared("superglue/WSC")),
        pytest.param("multirc", "superglue/MultiRC", 4848, marks=shared("superglue/MultiRC")),
        pytest.param("wic", "superglue/WiC", 638, marks=shared("superglue/WiC")),
    ],
)
def test_one_official_file_is_cut_into_training_and_test_by_its_texts(name, folder, rows, tmp_path):
    (tmp_path / "cut.toml").write_text(f'task = "{name}"\ntrain = "val.jsonl"\n')
    pools = tasks.find(str(tmp_path / "cut.toml")).pools(str(DATA / folder))
    assert len(pools.training) + len(pools.test) == rows and 0.15 < len(pools.test) / rows < 0.35
    split = tasks.split(tasks.find(str(tmp_path / "cut.toml")), str(DATA / folder), 40, 20, 15, 0)
    assert not {e.prompt for e in split.test} & {e.prompt for e in split.train + split.dev}
    paragraphs = [{item.example.prompt.partition("\nQuestion:")[0] for item in part} for part in pools[:2]]
    assert name != "multirc" or not paragraphs[0] & paragraphs[1]
    assert f"{len(pools.test)} of {rows} rows are held out" in pools.notes[0]


def test_balanced_draws_of_an_odd_size_are_one_apart():
    chosen = tasks.split(made(20, 8, balanced=True), None, 4, 5, 3, 0)
    assert (len(chosen.train), len(chosen.dev), len(chosen.test)) == (4, 5, 3)
    assert [example.label for example in chosen.train + chosen.dev] == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert [example.label for example in chosen.test] == [0, 1, 0]


def test_one_example_a_split_is_enough():
    for rows, asked in ((20, (1, 1, 1)), (2, (None, None, 1))):
        chosen = tasks.split(made(rows, sizes=Sizes(dev_share=0.5)), None, *asked, 0)
        assert (len(chosen.train), len(chosen.dev), len(chosen.test)) == (1, 1, 1)
