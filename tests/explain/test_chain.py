"""The fraction line says what is true: a product where the program is a chain, a sum where paths meet."""

import re

import chainrule as cr
from chainrule.explain import chain, text

X = cr.randn(4, 3)


def leaf():
    return cr.randn(3, 3, requires_grad=True)


def lines(explanation):
    return [line.strip() for line in chain.chain(explanation)]


def test_a_chain_is_a_product():
    w = leaf()
    h = X @ w
    loss = h.sum()
    explanation = cr.explain(loss, wrt=w)
    assert chain.is_chain(explanation.derivation, explanation.links)
    assert lines(explanation) == ["dloss     dloss     dh", "-----  =  -----  .  --", "dw        dh      dw"]


def test_paths_that_meet_are_a_sum():
    w = leaf()
    data = (X @ w).square().sum()
    reg = (w * w).sum()
    loss = data + 0.1 * reg
    explanation = cr.explain(loss, wrt=w)
    top, _, bottom = lines(explanation)
    assert top.split() == ["dloss", "dloss", "ddata", "dloss", "dreg"]
    assert bottom.split() == ["dw", "ddata", "dw", "dreg", "dw"]
    assert chain.MEETING in str(explanation)


def test_a_value_used_beside_the_step_that_uses_it():
    a = cr.tensor(3.0, requires_grad=True)
    b = 2 * a
    c = a + b
    loss = c * 1.0
    explanation = cr.explain(loss, wrt=a)
    top, _, bottom = lines(explanation)
    assert top.split() == ["dloss", "dloss", "db", "dloss", "dc"]
    assert bottom.split() == ["da", "db", "da", "dc", "da"]
    assert float(explanation.value) == 3.0


def test_many_paths_are_counted():
    w = leaf()
    parts = []
    for _ in range(6):
        part = (X @ w).sum()
        parts.append(part)
    loss = parts[0] + parts[1] + parts[2] + parts[3] + parts[4] + parts[5]
    assert "+  3 more" in chain.chain(cr.explain(loss, wrt=w))[1]


def test_gain_is_told_of_one_step_back_only():
    w = leaf()
    h = X @ w
    left = h * 3.0
    right = h * 2.0
    loss = (left + right).sum()
    explanation = cr.explain(loss, wrt=h)
    gains = {link.name: chain.gain(explanation.derivation, link) for link in explanation.links}
    assert gains == {"left": None, "right": None, "h": None}
    assert cr.explain(loss, wrt=w).links[-1].name == "w"


def test_the_other_notation_names_functions_and_variables():
    w = leaf()

    def double(x):
        return x * 2

    h = X @ w
    d = double(h)
    loss = d.sum()
    assert chain.chain(cr.explain(loss, wrt=w, notation="composition")) == [
        "(loss o double o h)'(w)  =  loss'(d) . double'(h) . h'(w)"
    ]


def test_the_check_raises_its_voice():
    class Half(cr.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g

    w = leaf()
    loss = Half.apply(w).sum()
    said = str(cr.explain(loss, wrt=w))
    assert "DIFFERS" in said
    assert "cr.check(loss)" in said


def test_the_check_does_not_measure_at_other_values():
    w = leaf()
    loss = (X @ w).sum()
    loss.backward()
    with cr.no_grad():
        w -= 0.1 * w.grad
    explanation = cr.explain(loss, wrt=w)
    assert isinstance(explanation.checked, str)
    assert "w was changed in place since the forward pass" in str(explanation)


def test_the_check_of_what_is_not_finite():
    w = cr.tensor([0.0, 1.0], requires_grad=True)
    loss = w.log().sum()
    assert "not finite, so nothing to compare" in str(cr.explain(loss, wrt=w))


def test_the_check_of_what_is_zero():
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    loss = (w - w.detach()).square().sum()
    assert "too small to measure" in str(cr.explain(loss, wrt=w))


def test_the_check_knows_rounding_from_a_wrong_rule():
    x = cr.randn(50, 4)
    w = cr.randn(4, 3, requires_grad=True)
    b = cr.zeros(3, requires_grad=True)
    z = x @ w + b
    loss = (z - z.mean(1, keepdim=True)).square().mean(1).sum() * 1000.0
    # Every row's gradient sums to 0: what is left of the sum over the three is rounding of numbers near a thousand.
    shift = cr.ones(3)
    explanation = cr.explain(loss, wrt=b)
    assert abs(float((cr.tensor(explanation.value) * shift).sum())) < 0.1
    assert "DIFFERS" not in str(explanation)


def test_a_narrow_terminal_puts_below_what_does_not_fit_beside():
    x, y = cr.randn(200, 100), cr.randn(200)
    w1, w2 = cr.randn(100, 50, requires_grad=True), cr.randn(50, 1, requires_grad=True)
    l1 = x @ w1
    l2 = l1.clamp_min(0.0)
    out = l2 @ w2
    loss = (out.squeeze(-1) - y).pow(2).mean()
    explanation = cr.explain(loss, wrt=w1)
    wide, narrow = text.explanation(explanation, 120), text.explanation(explanation, 80)
    assert "re-evaluated" in narrow
    assert max(map(len, wide.split("\n"))) > 80
    fractions_and_table = [line for line in narrow.split("\n") if "why" not in line and "slope" not in line]
    assert max(map(len, fractions_and_table[:25])) <= 80
    assert "(100,200)@(200,50) -> (100,50)" in narrow


def test_long_lines_are_broken_and_many_uses_are_summed_up():
    w, x = leaf(), X
    for _ in range(9):
        x = (x @ w).tanh()
    said = str(cr.explain(x.sum(), wrt=w))
    assert max(map(len, said.splitlines())) <= 120
    assert re.search(r"sum of 9 uses, of norms \S+ to \S+, the largest at test_chain\.py:\d+", " ".join(said.split()))


def test_constants_that_have_no_name_are_told():
    w = leaf()
    mask = X[:, :1] > 0
    loss = cr.where(mask, X @ w, 0.0).square().sum()
    assert "named here    c = " not in str(cr.explain(loss, wrt=w))  # it is a variable, mask
    loss = cr.where(X[:, :1] > 0, X @ w, 0.0).square().sum()
    said = str(cr.explain(loss, wrt=w))
    assert re.search(r"named here    c = a constant, bool\[\d+,1\] \[", said), said
