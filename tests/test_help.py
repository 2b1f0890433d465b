"""The help of every command: each option says what it is."""

import argparse

import pytest

from analysis.__main__ import main as analysis
from llm.__main__ import main as llm
from llm.options.journal import main as journal
from synthetic.__main__ import main as synthetic


class Seen(Exception):
    """(parser,)."""


def parsers(main, monkeypatch):
    """The parser of each command, by its name."""

    def see(parser, *_):
        raise Seen(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", see)
    with pytest.raises(Seen) as seen:
        main([])
    (parser,) = seen.value.args
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return commands.choices


@pytest.mark.parametrize(
    ("main", "some"), [(llm, "pretrain"), (journal, "replay"), (synthetic, "converge"), (analysis, "report")]
)
def test_every_option_says_what_it_is(main, some, monkeypatch):
    found = parsers(main, monkeypatch)
    assert some in found
    for name, parser in found.items():
        assert parser.description, name
        for action in parser._actions:
            text = (action.help or "").partition("(default:")[0].strip()
            assert text, f"{name} {action.option_strings or action.dest}: no help"
