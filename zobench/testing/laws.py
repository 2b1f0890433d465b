"""check_law: what a law of directions declares, against its draws."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from zobench.law import Isotropic, Law
from zobench.layout import CPU, Layout, Segment
from zobench.random.keys import derive
from zobench.random.streams import Shape
from zobench.testing.check import Check, Level, run
from zobench.testing.function_subject import global_states, globally_seeded
from zobench.testing.mean import LARGEST
from zobench.testing.promises import is_rotation_invariant
from zobench.testing.report import Finding, NotApplicableError, Report

MATRIX = (Segment("first", 4, shape=(2, 2)), Segment("second", 2, shape=(2,)))
LAYOUT = Layout(MATRIX)
V = torch.tensor([1.0, -2.0, 0.5, 1.5, -1.0, 0.25], dtype=torch.float64, device=CPU)


def drawn(law: Law, key: int, index: int = 0, batch: Shape = (), layout: Layout = LAYOUT) -> Tensor:
    """Return a direction as a vector, float64 (*batch, d); a law that reads weights reads those of a wave."""
    weights = torch.arange(layout.dim, dtype=torch.float64, device=CPU).mul(1.7).sin()
    bound = law.bind(layout, lambda b: weights[b.offset : b.offset + b.size].to(b.segment.dtype))
    draw = bound.direction(key, index, layout, batch)
    parts = []
    for block in layout.blocks:
        u = draw(block)
        parts.append(torch.zeros(*batch, block.size, dtype=torch.float64, device=CPU) if u is None else u.double())
        if parts[-1].shape != (*batch, block.size):
            raise ValueError(f"a block of {block.size} entries has the shape {tuple(parts[-1].shape)}, batch {batch}")
    return torch.cat(parts, -1)


def _key(name: str) -> int:
    return derive("zobench.testing", "law", name)


def determinism(law: Law, level: Level) -> Finding:
    """One name, one direction: drawn twice, in batches too."""
    for batch in ((), (5,)):
        if not torch.equal(drawn(law, 3, 1 % _room(law), batch), drawn(law, 3, 1 % _room(law), batch)):
            return Finding(f"two draws of one direction differ, batch {batch}", False, repr(law), "key = 3")
    return Finding("equal to the bit", True)


def again(law: Law, level: Level) -> Finding:
    """Ask for the blocks of one direction in another order, and twice."""
    weights = torch.arange(6, dtype=torch.float64, device=CPU).sin()
    bound = law.bind(LAYOUT, lambda b: weights[b.offset : b.offset + b.size])
    draw = bound.direction(5, 0, LAYOUT, ())
    asked = [*LAYOUT.blocks, *reversed(LAYOUT.blocks)]
    entries: dict[str, list[Tensor | None]] = {}
    for block in asked:
        entries.setdefault(block.segment.name, []).append(draw(block))
    for name, (one, two) in entries.items():
        if not (one is two is None or (one is not None and two is not None and torch.equal(one, two))):
            return Finding(
                f"the block of {name!r} is another one when it is asked for again", False, repr(law), "key = 5"
            )
    return Finding("blocks are the same in any order", True)


def names(law: Law, level: Level) -> Finding:
    """Directions of several keys and indices."""
    wide = Layout.of({"only": (32, 2)})
    keys = [(key, index) for key in range(8) for index in range(min(2, _room(law, 64)))]
    distinct = {tuple(drawn(law, key, index, (), wide).tolist()) for key, index in keys}
    sentence = f"{len(distinct)} of {len(keys)} names of directions differ"
    return Finding(sentence, len(distinct) > 0.6 * len(keys), repr(law), "keys 0 to 7")


def global_state(law: Law, level: Level) -> Finding:
    """Draw under two global seeds."""
    rows = []
    for seed in (1, 2):
        with globally_seeded(seed):
            before = global_states()
            rows.append(drawn(law, 7))
            if before != global_states():
                return Finding("a global generator's state changes", False, repr(law), "key = 7")
    return Finding("not used" if torch.equal(*rows) else "it is read", torch.equal(*rows), repr(law), "key = 7")


def odd_moments(law: Law, level: Level) -> Finding:
    """E (u . v) and E (u . v)^3, since u ~ -u."""
    along = drawn(law, _key("odd"), 0, (level.samples,)) @ V
    for power in (1, 3):
        values = along**power
        z = float(values.mean()) / (float(values.std()) / level.samples**0.5 + 1e-300)
        if not abs(z) < LARGEST:
            text = f"E (u . v)^{power} = {float(values.mean()):.4g}"
            return Finding(text, False, f"v = {V.tolist()}", f"n = {level.samples}, z = {z:.3g}, key = {_key('odd')}")
    return Finding("E (u . v) and E (u . v)^3 are 0", True)


def second_moment(law: Law, level: Level) -> Finding:
    """E[credit u^T], entry by entry."""
    key, declared = _key("second"), law.second_moment
    u, credit = (drawn(one, key, 0, (level.samples,)) for one in (law, law.credit))
    products = credit.unsqueeze(-1) * u.unsqueeze(-2)
    mean, error = products.mean(0), products.std(0) / level.samples**0.5 + 1e-9
    if declared is None:
        return Finding(f"the diagonal of E[credit u^T] is {[round(m, 3) for m in mean.diagonal().tolist()]}", True)
    z = (mean - declared * torch.eye(len(V), dtype=torch.float64, device=CPU)).abs() / error
    i, j = divmod(int(z.argmax()), len(V))
    sentence = (
        f"E[credit_{i} u_{j}] = {float(mean[i, j]):.4g} (± {float(error[i, j]):.2g}), {declared * (i == j):g} declared"
    )
    return Finding(
        sentence, float(z.max()) < LARGEST, repr(law), f"n = {level.samples}, z = {float(z.max()):.3g}, key = {key}"
    )


def fourth_moment(law: Law, level: Level) -> Finding:
    """E[|u|^2 (u . v)^2] / |v|^2."""
    key = _key("fourth")
    u = drawn(law, key, 0, (level.samples,))
    values = u.square().sum(-1) * (u @ V).square() / float(V @ V)
    mean, error = float(values.mean()), float(values.std()) / level.samples**0.5 + 1e-9
    if not isinstance(law, Isotropic):
        return Finding(f"E[|u|^2 (u . v)^2] = {mean:.4g} |v|^2 (± {error:.2g})", True)
    declared = law.fourth_moment(len(V))
    z = abs(mean - declared) / error
    sentence = f"E[|u|^2 (u . v)^2] = {mean:.4g} |v|^2 (± {error:.2g}), c_d = {declared:g} declared"
    return Finding(sentence, z < LARGEST, f"v = {V.tolist()}", f"n = {level.samples}, z = {z:.3g}, key = {key}")


def orthogonal(law: Law, level: Level) -> Finding:
    """The scalar products of the directions of a step, and one direction more than there is room for."""
    count = min(4, len(V))
    rows = torch.stack([drawn(law, _key("orthogonal"), i, (50,)) for i in range(count)], -2)
    gram = rows @ rows.mT
    off = float((gram - torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))).abs().max())
    try:
        drawn(law, 1, len(V))
    except ValueError:
        return Finding(f"scalar products are {off:.2g} at most", off < 1e-9 * len(V), repr(law))
    return Finding(f"direction {len(V)} of dimension {len(V)} is drawn", False, repr(law), "key = 1")


def independent(law: Law, level: Level) -> Finding:
    """The law of independent directions: as many as one likes, of the same second moments."""
    other, count = law.independent, level.samples // 4
    if other.orthogonal:
        return Finding(f"{other!r} has orthogonal directions", False, repr(law))
    drawn(other, 1, len(V))
    rows = [drawn(one, _key("independent"), 0, (count,)).square() for one in (law, other)]
    error = (sum(r.var(0) for r in rows) / count) ** 0.5 + 1e-9
    z = float(((rows[0].mean(0) - rows[1].mean(0)).abs() / error).max())
    return Finding(f"{other!r} has the same E[u_i^2]", z < LARGEST, repr(law), f"n = {count}, z = {z:.3g}")


def rotation(law: Law, level: Level) -> Finding:
    """E (u . v)^4 for v along an axis and along a diagonal."""
    if law.by_tensor:
        raise NotApplicableError("it draws by tensor")
    layout, count = Layout.of({"only": (4,)}), level.samples
    u = drawn(law, _key("rotation"), 0, (count,), layout)
    one, two = u[:, 0] ** 4, (u.sum(-1) / 2) ** 4
    means, error = (float(one.mean()), float(two.mean())), float((one - two).std()) / count**0.5 + 1e-9
    z = abs(means[0] - means[1]) / error
    sentence = f"E (u . v)^4 is {means[0]:.4g} along an axis and {means[1]:.4g} along a diagonal"
    return Finding(sentence, z < LARGEST, "d = 4", f"n = {count}, z = {z:.3g}")


def dtypes(law: Law, level: Level) -> Finding:
    """Directions of float32 and bfloat16 tensors, and of batches of one."""
    for dtype in (torch.float32, torch.bfloat16):
        layout = Layout(tuple(Segment(s.name, s.size, dtype, s.device, s.shape) for s in MATRIX))
        rows = drawn(law, 2, 0, (64,), layout)
        if not bool(rows.isfinite().all()):
            return Finding(f"{dtype} directions are not finite", False, repr(law), "key = 2")
    if not law.unit(len(V)) > 0:
        return Finding(f"unit({len(V)}) is {law.unit(len(V))}", False, repr(law))
    return Finding("float32 and bfloat16 directions have the shapes of their batches", True)


def hashable(law: Law, level: Level) -> Finding:
    """A law is part of the name of a direction: it is frozen, hashable, and equal to its copy."""
    twin = copy.deepcopy(law)
    same = hash(law) == hash(twin) and law == twin and repr(law) == repr(twin)
    return Finding(
        "hash, equality and repr are those of its copy" if same else "its copy is another law", same, repr(law)
    )


def _room(law: Law, dim: int = 6) -> int:
    return dim if law.orthogonal else 1 << 30


CHECKS: tuple[Check, ...] = (
    Check("determinism", "one key and index, one direction", determinism),
    Check("blocks", "a direction is the same whatever is asked of it, and in which order", again),
    Check("names", "another key or index, another direction", names),
    Check("global-state", "global random state is neither read nor written", global_state),
    Check("hashable", "hash and equality by value", hashable),
    Check("shapes", "blocks are (*batch, size), finite in every dtype; unit(d) > 0", dtypes),
    Check("odd-moments", "E (u . v) = E (u . v)^3 = 0, since u ~ -u", odd_moments),
    Check("second-moment", "E[credit u^T] = second_moment I", second_moment, "second_moment",
          lambda law: law.second_moment is not None),
    Check("fourth-moment", "E[|u|^2 (u . v)^2] = c_d |v|^2", fourth_moment, "an Isotropic law",
          lambda law: isinstance(law, Isotropic)),
    Check("orthogonal", "u_i . u_j = 0 within a step, and d directions at most", orthogonal, "orthogonal",
          lambda law: law.orthogonal),
    Check("independent", "law.independent has any number of directions with the same E[u_i^2]", independent),
    Check("rotation", "E (u . v)^4 depends on |v| alone", rotation, "rotation_invariant", is_rotation_invariant),
)  # fmt: skip
"""The checks of laws."""


def check_law(law: Law, level: str = "quick", expected_failures: Mapping[str, str] | None = None) -> Report:
    """Return the report of every check of a law of directions, on a matrix and a vector of 6 entries in all: those that
    `estimators` have, of what a law declares: E[credit u^T] = second_moment I, c_d, u ~ -u, orthogonality.

    Raises:
        CheckFailedError: a check failed, see `check_estimator`.
        UnknownNameError: no such level or check.
    """
    return run(repr(law), CHECKS, law, level, expected_failures)
