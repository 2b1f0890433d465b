"""The environment of the oldest versions is made of the lower bounds of pyproject.toml."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("lowest", ROOT / ".ci" / "lowest.py")
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)


def test_the_highest_lower_bound_counts_by_number():
    assert script.lowest(["a>=4.48", "b>=2", "a>=5.0", "c>=1.9", "c>=1.10"]) == {"a": "5.0", "b": "2", "c": "1.10"}


@pytest.mark.parametrize("requirement", ["a", "a==1.0", "a<2"])
def test_a_requirement_that_is_no_lower_bound_is_refused(requirement):
    with pytest.raises(ValueError, match=f"requires '{requirement}': write it as name>=version"):
        script.lowest([requirement])


def test_a_pin_takes_the_place_of_a_bound(capsys):
    script.main(["torch==2.13.0"])
    printed = capsys.readouterr().out.split()
    assert [line for line in printed if line.startswith("torch==")] == ["torch==2.13.0"]
    assert "peft==0.20" in printed and "pyarrow==15.0" in printed
