"""A perturbed embedding of which only the rows that are looked at come into being."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zobench.layout import BLOCK_SIZE, CPU, Block, Segment, on_device
from zobench.space.sweep import Drawn, Update, native_lines

Rows = Callable[[Tensor], Tensor]
Meeting = tuple[slice, Tensor, slice, int]
"""Where a block meets sorted rows, see `overlaps`."""
GAP = 1 << 13
"""Rows with fewer entries between them are drawn together: to draw these takes less time than another call."""


class LazyRows:
    """Stands for a matrix (rows, width): an embedding lookup and an index by rows ask `rows` for those alone; any other
    use asks `whole` for all of it. `rows` is given each row once, in ascending order, which a device makes the host
    wait for; with `repeating` it is given rows as they are asked for.
    """

    def __init__(
        self, parameter: Tensor, dtype: torch.dtype, rows: Rows, whole: Callable[[], Tensor], repeating: bool = False
    ) -> None:
        self.shape, self.dtype, self.device, self.ndim = parameter.shape, dtype, parameter.device, 2
        self.rows, self.whole, self.repeating = rows, whole, repeating

    def chosen(self, rows: Tensor) -> Tensor:
        """Return these rows, of any shape, (*rows.shape, width)."""
        if self.repeating:
            return self.rows(rows.flatten()).view(*rows.shape, self.shape[1])
        wanted, inverse = torch.unique(rows, return_inverse=True)
        return functional.embedding(inverse, self.rows(wanted))

    def __getitem__(self, index: Any) -> Tensor:
        chosen = _row_numbers(index, len(self), self.device)
        if chosen is None:
            return self.whole()[index]
        return self.chosen(chosen)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole(), name)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.embedding and kwargs.get("max_norm") is None:
            ids, table = (*args, *(kwargs[name] for name in ("input", "weight") if name in kwargs))[:2]
            if isinstance(table, LazyRows):
                return table.chosen(ids.long())
        return func(*_whole(args), **_whole(kwargs))


def _operator(name: str) -> Callable[..., Any]:
    return lambda lazy, *others: getattr(lazy.whole(), name)(*_whole(others))


OPERATORS = (
    "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "mod", "matmul", "rmatmul", "pow",
    "rpow", "neg", "abs", "lt", "le", "gt", "ge", "eq", "ne",
)  # fmt: skip
for _name in OPERATORS:
    setattr(LazyRows, f"__{_name}__", _operator(f"__{_name}__"))  # Python looks operators up in the class alone


def _row_numbers(index: Any, count: int, device: torch.device) -> Tensor | None:
    """The rows that an index asks for, counted from the first; None if it is of another kind."""
    if isinstance(index, list) and index and all(type(i) is int for i in index):
        index = on_device(index, device, torch.int64)
    if isinstance(index, Tensor) and index.ndim == 1 and index.dtype in (torch.int64, torch.int32):
        return torch.where(index < 0, index + count, index).long()
    return None


def _whole(value: Any) -> Any:
    if type(value) in (list, tuple):
        return type(value)(map(_whole, value))
    if type(value) is dict:
        return {name: _whole(each) for name, each in value.items()}
    return value.whole() if isinstance(value, LazyRows) else value


def overlaps(block: Block, rows: Tensor, width: int) -> list[Meeting]:
    """Where a block of a matrix meets sorted rows: (slice of `rows`, their numbers from the offset on, columns, offset
    in the block), for the whole rows, the row it begins within, and the row it ends within.
    """
    meetings = []
    first, last = -(-block.start // width), block.stop // width  # whole rows are first ... last - 1
    edges = [(first - 1, block.start - (first - 1) * width, width)] if first * width > block.start else []
    if last < first:  # within one row
        edges = [(first - 1, block.start - (first - 1) * width, block.stop - (first - 1) * width)]
    elif last * width < block.stop:
        edges.append((last, 0, block.stop - last * width))
    wanted = [first, max(first, last), *(row for row, _, _ in edges)]
    numbers = torch.tensor(wanted, dtype=torch.int64, device=rows.device)
    bounds = torch.searchsorted(rows, numbers).tolist()
    if bounds[0] < bounds[1]:
        chosen_rows = slice(bounds[0], bounds[1])
        meetings.append((chosen_rows, rows[chosen_rows] - first, slice(0, width), first * width - block.start))
    for (row, begin, end), position in zip(edges, bounds[2:], strict=True):
        if position < len(rows) and int(rows[position]) == row:
            first_row = torch.zeros(1, dtype=torch.int64, device=CPU)
            chosen_rows = slice(position, position + 1)
            meetings.append((chosen_rows, first_row, slice(begin, end), row * width + begin - block.start))
    return meetings


def runs(segment: Segment, offset: int, rows: Tensor) -> Iterator[tuple[Block, Meeting]]:
    """Yield blocks of whole rows of a matrix that hold these sorted ones, and where they meet them: rows with less than
    GAP entries between them share a block, of BLOCK_SIZE entries at most. `offset` is where the segment starts.
    """
    width, numbers = segment.shape[1], rows.tolist()
    begin = 0
    for end in range(1, len(numbers) + 1):
        first, last = numbers[begin], numbers[end - 1] + 1
        alone = end == len(numbers) or (numbers[end] - last) * width >= GAP
        if alone or (numbers[end] + 1 - first) * width > BLOCK_SIZE:
            block = Block(segment, 0, first * width, last * width, offset + first * width)
            yield block, (slice(begin, end), rows[begin:end] - first, slice(0, width), 0)
            begin = end


class RowSweep:
    """Perturbs rows of a matrix, given for each target in ascending order. Directions that a native sweep knows, whose
    entries are functions of their places, are drawn in runs of near rows; others in the blocks that hold a row.
    """

    def __init__(
        self, blocks: Sequence[Block], wanted: Tensor, _: Update, lines: list[Drawn], targets: list[Tensor]
    ) -> None:
        self.lines, self.targets = lines, targets
        segment, width = blocks[0].segment, targets[0].shape[1]
        if segment.dtype == torch.float32 and width <= BLOCK_SIZE and native_lines(segment, lines) is not None:
            parts = [(block, [meeting]) for block, meeting in runs(segment, blocks[0].offset, wanted)]
        else:
            parts = [(block, found) for block in blocks if (found := overlaps(block, wanted, width))]
        self.blocks, self._waiting = [block for block, _ in parts], iter(parts)

    @torch.no_grad()
    def take(self) -> None:
        """Perturb what lies in the blocks that no other thread has taken."""
        for block, meetings in self._waiting:
            for draw, amounts in self.lines:
                u = draw(block)
                if u is None:
                    continue
                for chosen_rows, rows, columns, offset in meetings:
                    length = columns.stop - columns.start
                    seen = u[offset:][: (len(u) - offset) // length * length].view(-1, length)[rows]
                    for target, amount in zip(self.targets, amounts, strict=True):
                        target[chosen_rows, columns].add_(seen, alpha=amount)  # rounded once, as in a sweep
