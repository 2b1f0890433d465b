"""The table of methods: names, options, identities and costs."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import zobench
from docs.site import fill
from zobench import FlatSpace, KernelStencil, LineEstimator, ModuleSpace, estimators, kernels, maps, methods, query
from zobench.law import LAWS
from zobench.layout import Layout
from zobench.methods.rounds import ROWS as OF_ROUNDS
from zobench.naming import UnknownNameError

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = [method.name for method in methods.table()]
WITH_LAW = [method.name for method in methods.table() if "law" in method.options]
SLOPE_KNOWN = [name for name in NAMES if name not in ("kerzoo", "optimal", "chebyshev", "telescoping")]
ROUNDS = [method.name for method in OF_ROUNDS]
SEVERAL = [name for name in ROUNDS if name not in ("one-point-residual", "random-search", "spall")]  # rounds in a step
LEAST = {"fzoo": 2, "es": 2, "mezo-gv": 2, "zo-ranksgd": 3}
"""Lines that a method needs, as it compares them."""
DIM = 8  # room for the orthogonal directions of a step
LINEAR = [name for name in NAMES if methods.make(name).linear or name == "kerzoo-code"]
NAMESPACE = {**vars(zobench), **vars(kernels), **vars(maps), **vars(estimators)}


@pytest.mark.parametrize(
    ("call", "nearest"),
    [
        (lambda: methods.make("mezzo"), "unknown method 'mezzo'. Did you mean 'mezo'?"),
        (lambda: methods.make("kerzo"), "Did you mean 'kerzoo'?"),
        (lambda: methods.make("KerZOO"), "unknown method"),
        (lambda: methods.make("kerzoo", ordr=5), "unknown option of method 'kerzoo': 'ordr'. Did you mean 'order'?"),
        (lambda: methods.make("mezo", order=5), "unknown option of method 'mezo': 'order'"),
        (lambda: methods.make("coordinate", law="gaussian"), "unknown option of method 'coordinate': 'law'"),
        (lambda: methods.make("mezo", law="gausian"), "unknown law 'gausian'. Did you mean 'gaussian'?"),
        (lambda: methods.make("kerzoo", kernel="kerzoo5_printed"), "Did you mean 'kerzoo5_as_printed'?"),
        (lambda: methods.parse("fwd"), f"Known: {', '.join(NAMES)}."),
        (lambda: methods.parse("forward:epsilonn=1"), "Did you mean 'epsilon'?"),
        (lambda: methods.make("optimal", noise=1.0), "unknown option of method 'optimal': 'noise'"),
        (lambda: methods.make("kerzoo-cod"), "Did you mean 'kerzoo-code'?"),
        (lambda: methods.make("mezo", law="orthogonl"), "Did you mean 'orthogonal'?"),
        (lambda: methods.parse("forward:law=spere"), "Did you mean 'sphere'?"),
    ],
)
def test_an_unknown_name_gets_the_nearest(call, nearest):
    with pytest.raises(UnknownNameError) as caught:
        call()
    assert nearest in str(caught.value)


@pytest.mark.parametrize("text", ["kerzoo:order", "mezo:", "mezo:n:epsilon=1"])
def test_a_part_that_is_no_option_is_refused(text):
    with pytest.raises(ValueError, match="is not option=value"):
        methods.parse(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n is 0"),
        ({"n": 1.5}, "n is 1.5"),
        ({"epsilon": -1.0}, "epsilon is -1.0"),
        ({"law": 3}, "a Law|law is 3"),
    ],
)
@pytest.mark.parametrize("name", WITH_LAW)
def test_values_out_of_range(name, options, message):
    if not options.keys() <= next(method for method in methods.table() if method.name == name).options.keys():
        message = "unknown option"
    with pytest.raises(ValueError, match=message):
        methods.make(name, **options)


@pytest.mark.parametrize("order", [2, -3, 2.5])
def test_orders_out_of_range(order):
    for name in ("kerzoo", "kerzoo-code", "optimal", "chebyshev"):
        with pytest.raises(ValueError, match="kernel order"):
            methods.make(name, order=order)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimal:noise_to_gradient=0", "is not attained"),
        ("optimal:noise_to_gradient=-1", "noise_to_gradient is -1"),
        ("kerzoo:kernel=kerzoo5_as_printed:order=3", "give the kernel or the others"),
        ("kerzoo:kernel=kerzoo5_as_printed:constant=4", "give the kernel or the others"),
        ("kerzoo:interval=0", "scale is 0"),
        ("kerzoo:unscaled=yes", "unscaled is 'yes': give True or False"),
        ("telescoping:decay=2", "decay is 2"),
        ("coordinate:replace=1", "replace is 1"),
        ("kerzoo-code:per_tensor=1", "per_tensor is 1"),
    ],
)
def test_options_out_of_range(text, message):
    with pytest.raises(ValueError, match=message):
        methods.parse(text)


def test_parse_is_make():
    assert methods.parse("kerzoo:order=5:n=3") == methods.make("kerzoo", order=5, n=3)
    assert methods.parse("mezo:epsilon=1e-2:law=sphere", n=4) == methods.make("mezo", epsilon=1e-2, law="sphere", n=4)
    assert methods.parse("mezo:n=2", n=9).n == 2
    assert methods.parse("mezo") == methods.make("mezo") == methods.make("mezo", epsilon=1e-3, n=1, law="gaussian")
    assert methods.parse("kerzoo:kernel=kerzoo5_as_printed") == methods.make("kerzoo", kernel="kerzoo5_as_printed")
    assert methods.parse("kerzoo:unscaled=true:interval=0.5") == methods.make("kerzoo", unscaled=True, interval=0.5)
    assert methods.parse("kerzoo:unscaled=false") == methods.make("kerzoo")
    assert methods.parse("coordinate:replace=false").law == LAWS["distinct-coordinate"]
    assert methods.parse("optimal:noise_to_gradient=inf:order=5") == methods.make("chebyshev", order=5)
    assert methods.parse("kerzoo-code").n == 3 and methods.parse("orthogonal:n=2").law == LAWS["orthogonal"]


def test_what_the_new_rows_are():
    made = {name: methods.make(name) for name in NAMES}
    assert made["optimal"].stencil == KernelStencil(kernels.optimal(3, 1.0))
    assert made["chebyshev"].stencil == KernelStencil(kernels.chebyshev(3))
    assert [made[f"central{m}"].stencil for m in (4, 6)] == [zobench.least_noise(m) for m in (4, 6)]
    assert made["telescoping"].stencil == zobench.TelescopingStencil()
    assert made["one-point"].stencil == zobench.OnePointStencil()
    assert made["orthogonal"].law == zobench.Orthogonal()


def test_the_options_of_kerzoo():
    make = lambda **options: methods.make("kerzoo", **options).stencil.kernel  # noqa: E731
    assert make(constant=4.0) == kernels.legendre(3, 4.0)
    assert make(interval=0.5) == kernels.rescaled(kernels.legendre(3), 0.5)
    assert make(interval=0.5, unscaled=True, constant=4.0) == kernels.shrunk(kernels.legendre(3, 4.0), 0.5)
    assert make(kernel=kernels.optimal(3, 1.0), interval=0.5) == kernels.rescaled(kernels.optimal(3, 1.0), 0.5)
    with pytest.raises(ValueError, match="only a polynomial kernel"):
        make(kernel=kernels.optimal(3, 1.0), unscaled=True)


def test_a_whole_order_written_as_a_float_gets_a_sentence_or_the_kernel():
    try:
        assert methods.parse("kerzoo:order=3.0") == methods.make("kerzoo", order=3)
    except ValueError as error:
        assert "order" in str(error)


def test_the_printed_kernel():
    printed = methods.make("kerzoo", kernel="kerzoo5_as_printed")
    assert printed.stencil == KernelStencil(kernels.kerzoo5_as_printed())
    assert printed.stencil.moment(1) == pytest.approx(13 / 7)
    assert methods.make("kerzoo", order=5).stencil.moment(1) == pytest.approx(1.0)
    assert printed != methods.make("kerzoo", order=5)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_declares_its_options_and_builds_with_them(name):
    row = next(method for method in methods.table() if method.name == name)
    assert row.formula and row.source
    assert methods.make(name, **row.options) == methods.make(name)
    for option, value in {"epsilon": 0.25, "n": 3, "law": LAWS["sphere"]}.items():
        if option in row.options:
            built = methods.make(name, **{option: value})
            assert getattr(getattr(built, "line", built), option) == value


def cost(name: str, n: int) -> int:
    documented = next(method for method in methods.table() if method.name == name).evaluations
    a, b = re.fullmatch(r"(?:(\d+) )?n(?: \+ (\d+))?", documented).groups()
    return int(a or 1) * n + int(b or 0)


def made(name: str, n: int):
    """The method with n lines; maps that compare lines refuse to compare one."""
    if n < LEAST.get(name, 1):
        pytest.skip(f"{name} compares {LEAST[name]} lines or more")
    return methods.make(name, n=n)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SEVERAL])
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("batch", [(), (7,), (2, 3)])
def test_the_plan_costs_what_is_documented(name, n, batch):
    estimator = made(name, n)
    plan = estimator.ask(12, estimator.init(), batch)
    assert plan.queries == cost(name, n)
    assert plan.offsets.shape[:-1] == (*batch, n)
    assert plan.offsets.dtype == plan.weights.dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [2, 3])
def test_a_step_evaluates_as_often_as_documented(name, n):
    """Over as many steps as one snapshot serves, of which the cost is an average."""
    calls, counted = [], 3 if name == "forward-gradient" else 1  # a pass that differentiates counts as three

    def flat(points):
        calls.append(1)
        return points.square().sum(-1)

    def loss():
        calls.append(1)
        return module.weight.square().sum()

    module, estimator = torch.nn.Linear(DIM, 1, bias=False).eval(), made(name, n)
    point = FlatSpace(torch.ones(DIM, dtype=torch.float64), layout=Layout.of([(DIM,)]))
    for space, f in [(point, flat), (ModuleSpace(module), loss)]:
        calls.clear()
        state, queries, steps = estimator.init(), 0, getattr(estimator, "every", 1)
        for step in range(steps):
            told = query(space, estimator, {"": f, "whole": f}, 4 + step, state)
            state, queries = told.state, queries + told.queries
        assert counted * len(calls) == queries == steps * cost(name, n)


BUILDS = (
    st.builds(
        lambda name, **options: methods.make(name, **options),
        st.sampled_from([name for name in WITH_LAW if name not in ("forward-gradient", *ROUNDS)]),
        epsilon=st.floats(1e-6, 10),
        n=st.integers(2, 50),
        law=st.sampled_from(list(LAWS)),
    )
    | st.builds(
        lambda name, **options: methods.make(name, **options),
        st.sampled_from(ROUNDS),
        epsilon=st.floats(1e-6, 10),
        n=st.integers(3, 50),
        law=st.sampled_from([LAWS[name] for name in ("gaussian", "rademacher", "sphere", "low-rank")]),
    )
    | st.builds(
        lambda **options: methods.make("forward-gradient", **options),
        n=st.integers(1, 50),
        law=st.sampled_from(list(LAWS)),
    )
    | st.builds(
        lambda **options: methods.make("kerzoo-code", **options),
        steps=st.integers(1, 9000),
        least=st.floats(1e-6, 1),
        unscaled=st.booleans(),
        per_tensor=st.booleans(),
    )
    | st.builds(
        lambda **options: methods.make("kerzoo", **options),
        epsilon=st.floats(1e-6, 10),
        law=st.sampled_from(list(LAWS)),
        kernel=st.sampled_from([1, 3, 5, 7]).map(kernels.legendre)
        | st.floats(-9, 9).filter(bool).map(lambda c: kernels.legendre(3, c))
        | st.floats(-9, 9).filter(bool).map(kernels.kerzoo5_as_printed)
        | st.floats(1e-3, 1e3).map(lambda t: kernels.optimal(3, t)),
        interval=st.floats(0.01, 2),
    )
)


@given(first=BUILDS, second=BUILDS)
def test_the_repr_is_the_identity(first, second):
    assert eval(repr(first), NAMESPACE) == first
    assert (repr(first) == repr(second)) == (first == second)
    assert hash(first) == hash(eval(repr(first), NAMESPACE))


def test_the_readme_has_the_table_as_it_is():
    page = (fill.ROOT / "README.md").read_text(encoding="utf-8")
    assert fill.filled(page) == page, "python -m docs.site.fill writes the table of methods into README.md"
    assert all(f"| `{name}` |" in page for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_has_the_rule_of_its_paper(name):
    rule = methods.rule(name, lr=0.25, weight_decay=0.5)
    first = 0.25 / 101**0.602 if name == "spall" else 0.25  # which has a schedule
    assert rule.rate(rule.init(FlatSpace(torch.zeros(2, dtype=torch.float64)))) == pytest.approx(first)
    assert rule.weight_decay == 0.5


@given(method=st.sampled_from(LINEAR), epsilon=st.floats(1e-4, 10), n=st.integers(1, 4), slope=st.floats(-5, 5))
def test_an_affine_function_gets_its_slope(method, epsilon, n, slope):
    """f = 3 + slope a on every line: the coefficients are slope sum_k w_k r_k / n, whatever epsilon is."""
    estimator = methods.parse(method, epsilon=epsilon, n=n)
    state = estimator.init()
    plan = estimator.ask(77, state)
    answers, based = 3.0 + slope * plan.offsets, method == "one-point"
    wanted = slope * (plan.weights * plan.offsets).sum(-1) + 3.0 * plan.weights.sum(-1)
    if plan.asks == "slope":
        answers[..., 1] = slope
        wanted = slope * plan.weights[..., 1]
    told = estimator.tell(plan, answers, state)
    assert torch.allclose(told.gradient.terms[0].coefficients, wanted, atol=1e-9 / epsilon)
    assert plan.asks == "slope" or (float(plan.weights.sum(-1).abs().max()) > 1e-6 / epsilon) == based
    if method in SLOPE_KNOWN and method != "one-point":
        assert torch.allclose(wanted, torch.full((n,), slope / n, dtype=torch.float64))


def test_keys_are_shared_between_methods_and_nodes_are_not_directions():
    """Two methods under one key look along the same lines; a kernel's nodes have a stream of their own."""
    one, two = methods.make("mezo").ask(5, ()), methods.make("kerzoo").ask(5, ())
    assert (one.law, one.key) == (two.law, two.key)
    assert isinstance(methods.make("kerzoo"), LineEstimator)
    nodes = [methods.make("kerzoo", epsilon=1.0).ask(key, ()).offsets[0, 0].item() for key in range(50)]
    assert len(set(nodes)) == 50
    assert methods.make("kerzoo", epsilon=1.0).ask(5, ()).offsets[0, 0].item() == nodes[5]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("good", [0, 2, 6])
def test_losses_that_are_no_numbers_make_an_estimate_or_a_floating_point_error(name, good):
    """Either is a step that training skips; another error would end a run."""
    calls, estimator = [], methods.make(name)

    def f(x):
        calls.append(1)
        return x.square().sum(-1) * (float("nan") if len(calls) > good else 1.0)

    space = FlatSpace(torch.ones(DIM, dtype=torch.float64), layout=Layout.of([(DIM,)]))
    try:
        estimate = query(space, estimator, {"": f, "whole": f}, 3, estimator.init())
    except FloatingPointError:
        return
    assert isinstance(estimate.gradient, zobench.Combination)
