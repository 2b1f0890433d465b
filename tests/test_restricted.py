"""Directions that live on some rows of a matrix: the losses of padded directions, the mean of the unrestricted one."""

import copy
import itertools

import pytest
import torch
from engines import ENGINES, IN_FORWARD, Net, Padded, bits, space_of, swept_by
from sampled import diagonal
from torch import Tensor, nn
from torch.nn import functional

from zobench import Combination, Gaussian, InForwardSpace, ModuleSpace, Rademacher, Term, layout, methods, query
from zobench.law import LAWS, Direction, Law
from zobench.random.keys import derive

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = [1, 3, 4, 20, 50, 51, 95]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 50 entries: rows of 8 end within them."""
    monkeypatch.setattr(layout, "BLOCK_SIZE", 50)


def some_logits(module: Net) -> Tensor:
    """A loss that reads the rows ROWS of the table alone: looked up, and as the head's columns."""
    ids = torch.tensor([[1, 3, 4, 20, 50], [95, 51, 4, 1, 1]])
    columns = module.hidden(ids) @ module.head.weight[torch.tensor(ROWS)].t()
    return functional.cross_entropy(columns.flatten(0, 1).double(), torch.arange(10) % 7)


def restricted(engine: str, rows=ROWS, name="embedding.weight", **net) -> tuple[Net, ModuleSpace]:
    module = Net(**net)
    space = space_of(engine, module)
    space.restrict({name: rows})
    return module, space


def padded(law: Law, space: ModuleSpace) -> Padded:
    return Padded(law, space.layout, {name: rows.clone() for name, rows in space.stored.support.rows.items()})


@pytest.mark.parametrize(("dtype", "way"), [*zip(DTYPES, ("eager", "native", "eager"), strict=True)])
@pytest.mark.parametrize(("engine", "law"), diagonal(ENGINES, ["gaussian", "rademacher", "sphere", "coordinate"]))
def test_losses_and_rows_are_those_of_padded_directions_to_the_bit(engine, law, dtype, way):
    module, space = restricted(engine, dtype=dtype)
    twin = Net(dtype=dtype)
    other = space_of(engine, twin)
    small, large = (methods.make("mezo", epsilon=0.05, law=each, n=2) for each in (LAWS[law], padded(LAWS[law], space)))
    with swept_by(way):
        for key in range(3):
            told = query(space, small, lambda: some_logits(module), key, ())
            wanted = query(other, large, lambda: some_logits(twin), key, ())
            assert torch.equal(told.losses, wanted.losses)
            space.step_(told.gradient, -0.01)
            other.step_(wanted.gradient, -0.01)
        space.settle_(), other.settle_()
    start = Net(dtype=dtype)
    for (name, p), q in zip(module.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(bits(p), bits(q)), name
    moved = (module.embedding.weight != start.embedding.weight).any(1).nonzero().flatten().tolist()
    if law != "coordinate":
        assert moved == ROWS


@pytest.mark.parametrize("law", ["gaussian", "rademacher", "sphere"])
def test_all_rows_chosen_are_the_unrestricted_directions(law):
    """Streams are named by segment and block, so that even the numbers are the same. With fewer rows they are others,
    and the estimate equals the unrestricted one in expectation only.
    """
    found = []
    for rows in ({}, {"embedding.weight": range(96)}, {"embedding.weight": range(1, 96)}):
        module = Net()
        space = InForwardSpace(module)
        space.restrict(rows)
        estimator = methods.make("mezo", epsilon=0.05, law=LAWS[law])
        found.append(query(space, estimator, lambda module=module: some_logits(module), 1, ()).losses)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("shrink", [0.0, 0.25])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("engine", ENGINES)
def test_untouched_rows_decay_and_never_move(engine, dtype, shrink):
    module, space = restricted(engine, dtype=dtype, tied=False)
    before = copy.deepcopy(module.state_dict())
    ids = torch.tensor([ROWS[:4]])
    for key in range(3):
        told = query(space, methods.make("mezo", epsilon=0.05), lambda: module(ids).square().mean(), key, ())
        space.step_(told.gradient, -0.1, shrink)
    space.settle_()
    rest = [row for row in range(96) if row not in ROWS]
    wanted = before["embedding.weight"][rest].clone()
    for _ in range(3):
        wanted = wanted * (1 - shrink)
    assert not torch.equal(module.head.weight, before["head.weight"])
    assert torch.equal(module.embedding.weight[rest], wanted)
    assert not (module.embedding.weight[ROWS] == before["embedding.weight"][ROWS]).all(1).any()


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_untouched_rows_decay_as_the_step_rounds(rounding, monkeypatch):
    """A decay of 1e-4 is below half a unit in the last place of bfloat16: to the nearest it is lost, at random it is
    right on average.
    """
    module = Net(dtype=torch.bfloat16, tied=False, width=16)
    monkeypatch.setattr(layout, "BLOCK_SIZE", 1000)
    space = InForwardSpace(module, rounding=rounding)
    rest = module.embedding.weight.detach()[2:].double()
    for key in range(100):
        space.restrict({"embedding.weight": [0, 1]})
        space.step_(Combination((Term(Gaussian(), key, torch.tensor([1e-9], dtype=torch.float64)),)), 1.0, 1e-4)
    lost = float(((rest - module.embedding.weight.detach()[2:].double()) * rest).sum() / rest.square().sum())
    assert abs(lost - (0.01 if rounding == "stochastic" else 0.0)) < 5e-4


@pytest.mark.parametrize("engine", IN_FORWARD)
@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda m: m.embedding(torch.tensor([[1, 2]])), "row 2 of 'embedding.weight' was looked up"),
        (lambda m: m.embedding.weight[torch.tensor([0])], "row 0 of"),
        (lambda m: m.embedding.weight[[1, 94]], "row 94 of"),
        (lambda m: m.embedding.weight[torch.tensor([-2])], "row 94 of"),
        (lambda m: m.head(torch.ones(8).double()), "all of 'embedding.weight' was read"),
        (lambda m: m.embedding.weight.sum(), "all of 'embedding.weight' was read"),
        (lambda m: m.embedding.weight[2], "all of 'embedding.weight' was read"),
        (lambda m: torch.cat([m.embedding.weight, m.shared.weight]), "all of 'embedding.weight' was read"),
    ],
)
def test_a_loss_that_reads_what_is_not_perturbed_is_told(engine, read, message):
    module, space = restricted(engine)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=message):
        query(space, methods.make("mezo", epsilon=0.05), lambda: read(module).sum(), 1, ())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    space.restrict({})
    query(space, methods.make("mezo", epsilon=0.05), lambda: read(module).sum(), 1, ())


def test_the_last_row_by_its_number_from_the_end():
    module, space = restricted("in-forward")
    one, other = (
        query(space, methods.make("mezo"), lambda rows=rows: module.embedding.weight[rows].sum(), 1, ()).losses
        for rows in ([95, 1], [-1, 1])
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"embedding.weight": [96]}, "give at least one of 0 to 95"),
        ({"embedding.weight": [-1]}, "give at least one of 0 to 95"),
        ({"embedding.weight": []}, "give at least one of 0 to 95"),
        ({"head.weight": [1]}, "no trainable matrix of that name"),
        ({"gains.0": [1]}, "no trainable matrix of that name"),
    ],
)
def test_rows_that_are_not_there_are_refused(rows, message):
    space = InForwardSpace(Net())
    with pytest.raises(ValueError, match=message):
        space.restrict(rows)
    assert space.layout == InForwardSpace(Net()).layout


@pytest.mark.parametrize("way", ["native", "eager"])
@pytest.mark.parametrize("engine", ["deferred", "paired-deferred"])
def test_what_is_owed_goes_to_the_rows_of_its_own_minibatch(engine, way):
    """Rows that differ from step to step, overlap, and come back; and a step pending when the restriction ends."""
    results = []
    for each in ("in-forward", engine):
        module = Net(dtype=torch.float32)
        space = space_of(each, module)
        with swept_by(way):
            for key, rows in enumerate([[1, 2], [2, 40, 95], None, [1], [2, 40, 95]]):
                space.restrict({} if rows is None else {"embedding.weight": rows})
                ids = torch.tensor([rows or [5, 6]])
                f = lambda ids=ids, module=module: module.hidden(ids).square().mean()  # noqa: E731
                told = query(space, methods.make("mezo", epsilon=0.05), f, key, ())
                space.step_(told.gradient, -0.1, 0.01)
            space.settle_()
        results.append(torch.cat([bits(p) for p in module.parameters()]))
    assert torch.equal(*results)


class Signs(Law):
    """One of the sign vectors of a layout, told by the key."""

    def direction(self, key: int, index: int, layout, batch) -> Direction:
        vectors = list(itertools.product([-1.0, 1.0], repeat=layout.dim))
        return lambda block: torch.tensor(vectors[key][block.offset : block.offset + block.size], dtype=torch.float64)


class Table(nn.Module):
    """Four rows of two entries, tied to the head; the loss looks up rows 0 and 3 and compares their two logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 2, dtype=torch.float64)
        self.head = nn.Linear(2, 4, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.embed.weight.copy_(torch.linspace(-1, 1, 8).view(4, 2))
        self.head.weight = self.embed.weight
        self.eval()

    def loss(self) -> Tensor:
        rows = torch.tensor([0, 3])
        return (torch.sin(self.embed(rows)) @ self.head.weight[rows].t()).log_softmax(-1).diagonal().mean()


def mean_estimate(rows: dict | None) -> tuple[Tensor, float]:
    """The mean over all sign vectors of the restricted space, and E|g|^2."""
    module = Table()
    space = InForwardSpace(module)
    space.restrict(rows or {})
    count = 2**space.layout.dim
    total, square = torch.zeros(4, 2, dtype=torch.float64), 0.0
    chosen = sorted(rows["embed.weight"]) if rows else [0, 1, 2, 3]
    for key in range(count):
        told = query(space, methods.make("mezo", epsilon=1e-4, law=Signs()), module.loss, key, ())
        g = space.dense(told.gradient)
        total[chosen] += g.view(-1, 2) / count
        square += float(g @ g) / count
    return total, square


def test_the_estimate_keeps_its_mean_and_loses_noise():
    """Over all 16 sign vectors of two rows, and all 256 of four. To 1e-7: the bias of epsilon^2 is of other terms."""
    module = Table()
    module.loss().backward()
    gradient = module.embed.weight.grad
    (some, less), (every, more) = mean_estimate({"embed.weight": [3, 0]}), mean_estimate(None)
    assert torch.allclose(some, gradient, atol=1e-7) and torch.allclose(every, gradient, atol=1e-7)
    assert less == pytest.approx(more / 2, rel=1e-6)  # d |grad f|^2, with half of the entries
    with pytest.raises(ValueError, match="looked up"):
        mean_estimate({"embed.weight": [0, 1]})
    assert not torch.allclose(some, 2 * gradient, atol=1e-3)  # planted: the unit of a whole table


def test_the_mean_over_keys_is_that_of_the_unrestricted_estimate():
    """Sampled: the estimate's product with the true gradient over |grad f|^2, with 100 keys fixed in advance."""
    module, space = restricted("in-forward")
    some_logits(module).backward()
    grads = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    square = sum(float(g.square().sum()) for g in grads.values())
    module.zero_grad()
    found = []
    for step in range(100):
        told = query(
            space, methods.make("mezo", epsilon=1e-4, law=Rademacher()), lambda: some_logits(module), derive(step), ()
        )
        for name, p in module.named_parameters():
            p.grad = grads.get(name)
        found.append(space.dot(told.gradient) / square)
        module.zero_grad()
    ratios = torch.tensor(found, dtype=torch.float64)
    error = float(ratios.std()) / 10
    assert abs(float(ratios.mean()) - 1) < 5 * error
    assert abs(float(2 * ratios.mean()) - 1) > 5 * error  # planted: twice too long


def test_the_share_left_unmoved_is_of_all_parameters():
    space = restricted("in-forward", dtype=torch.bfloat16)[1]
    assert 0 <= space.unresolved_share(1e-4) <= 1
    assert space.unresolved_share(0.0) == 1.0
