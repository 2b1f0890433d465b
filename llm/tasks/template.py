"""Templates: texts with the columns of a row in braces."""

from dataclasses import dataclass
from string import Formatter

from llm.tasks.record import DataRecord


@dataclass(frozen=True)
class Template:
    """A text such as `{title}: {text} It was`; `{{` and `}}` are braces. Values are stripped before they go in, and so
    is the end of a text whose template ends in a column, which may be empty.

    Raises:
        ValueError: a brace is not closed, or has more inside than the name of a column.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            parts = list(Formatter().parse(self.text))
        except ValueError as error:
            raise ValueError(f"template {self.text!r}: {error}; write a literal brace twice") from None
        for _, name, spec, conversion in parts:
            if name == "" or spec or conversion:
                raise ValueError(f"template {self.text!r}: write only the name of a column between braces")

    @property
    def columns(self) -> tuple[str, ...]:
        """The names between braces."""
        return tuple(name for _, name, _, _ in Formatter().parse(self.text) if name)

    def fill(self, record: DataRecord) -> str:
        """Return the text with the values of a record.

        Raises:
            ValueError: the record has no such column, or its value is a list, an object or null.
        """
        parts = list(Formatter().parse(self.text))
        text = "".join(literal + ("" if name is None else record.shown(name)) for literal, name, _, _ in parts)
        return text.rstrip() if parts and parts[-1][1] else text
