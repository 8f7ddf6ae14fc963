"""Each identity keeps the value of what it rewrites, and each one is met in the programs here."""

import sys
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from chainrule.core.node import Ratio, ancestors
from chainrule.explain.derivation import Derivation
from chainrule.ops import identities

sys.path.insert(0, str(Path(__file__).parent))
import models


def uses():
    """(identity, expression before, expression after, the derivation that can evaluate both)."""
    met = []
    for model in models.ALL:
        cr.manual_seed(3)
        loss = model()
        run = cr.explain(loss, wrt=next(x for x in ancestors([loss]) if x.op is None and x.requires_grad)).run
        for depth in (1, 2):
            derivation = Derivation(run, depth)

            def watched(identity, derivation=derivation):
                def watch(node):
                    found = identity(node)
                    if found is not None:
                        met.append((identity, node, found, derivation))
                    return found

                return watch

            watching = tuple(watched(identity) for identity in identities.ALL)
            derivation.simplified = lambda expression, watching=watching: rewrite(expression, watching)
            for leaf in run.leaves:
                derivation.path(leaf)
                derivation.combined(leaf)
    return met


def rewrite(expression, watching):
    from chainrule.core.rewrite import rewrite as apply_identities

    return apply_identities(expression, watching)


@pytest.fixture(scope="module")
def met():
    return uses()


def test_values_are_kept(met):
    for identity, before, after, derivation in met:
        assert before.aval == after.aval, identity.__name__
        left, right = (derivation.value(x, np.dtype(np.float64)) for x in (before, after))
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12, err_msg=identity.__name__)


def test_every_identity_is_met_or_tested_by_itself(met):
    seen = {identity.__name__ for identity, *_ in met}
    missing = {identity.__name__ for identity in identities.ALL} - seen
    assert missing <= {case.__name__ for case, _ in BY_ITSELF}, missing


S = cr.Tensor.symbolic
A = cr.tensor([[0.3, -1.2], [0.5, 2.0]])


def _x():
    return S("x", A.aval)


def _number(like, value):
    """An array of one number, as a formula holds it."""
    return cr.Tensor.number(like.aval, value if isinstance(value, Ratio) else Ratio(value))


BY_ITSELF = [
    (identities.plus_zero, lambda x: x + 0.0),
    (identities.times_zero, lambda x: x * 0.0),
    (identities.where_of_same, lambda x: cr.where(x > 0, x, x)),
    (identities.powers, lambda x: x * (1.0 / x)),
    (identities.movements_cancel, lambda x: x.flip(0).flip(0)),
    (identities.signs, lambda x: x - (-x)),
    (identities.minus_first, lambda x: -x - x),
    (identities.coefficient_out_of_gate, lambda x: (-x).where(x > 0, 0.0)),
    (identities.gate, lambda x: x.where(x > 0, 0.0)),
    (identities.softmax_from_log, lambda x: x.log_softmax(1).exp()),
    (identities.reshape_of_expand, lambda x: x.sum().expand(2, 2).reshape(2, 1, 2)),
    (identities.expand_of_scalar, lambda x: x.sum().reshape(1, 1).expand(2, 2)),
    (identities.transpose_of_product, lambda x: (x.mT @ x).mT),
    (identities.known_leaf, lambda x: x + cr.full((2, 2), 3.0) * cr.ones(2, 2)),
    (identities.known_condition, lambda x: cr.where((_number(x, 2.0) > 1.0) & (x > 0), x, -x)),
    (identities.known_choice, lambda x: cr.where(_number(x, 2.0) > 1.0, x, -x)),
    (identities.whole_number, lambda x: x * _number(x, 4.0).sqrt()),
    (identities.product_with_constant, lambda x: x @ _number(x, 0.5)),
    (identities.product_with_constant, lambda x: _number(x, 3.0) @ x),
    (identities.like_terms, lambda x: 2 * x.sin() + x - x.sin() * 3),
    (identities.like_terms, lambda x: x.exp() + x - x.exp()),
    (identities.quotients_cancel, lambda x: x.exp() * (1 - x) / x.exp()),
    (identities.quotients_cancel, lambda x: x.square() * x.sin() / x),
    (identities.quotients_cancel, lambda x: x / x.square()),
    (identities.sum_of_expand, lambda x: x[:, :1].expand(2, 5).sum(1)),
    (identities.sum_of_expand, lambda x: x.expand(3, 2, 2).mean(0, keepdim=True)),
    (identities.sum_of_sum, lambda x: x.sum(0).sum()),
    (identities.sum_of_sum, lambda x: x.sum(1, keepdim=True).sum(0).sin()),
    (identities.sum_of_sum, lambda x: x[None].sum((0, 2), keepdim=True).sum(1, keepdim=True)),
    (identities.sum_of_sum, lambda x: x[:, None].sum(0).sum(1, keepdim=True)),
    (identities.gate_of_relu, lambda x: x.relu().where(x > 0, 0.0)),
    (identities.gate_of_number, lambda x: _number(x, 0.5).where(x > 0, 0.0)),
    (identities.coefficient_first, lambda x: _number(x, Ratio(1, 3)) / x),
]


@pytest.mark.parametrize(("identity", "expression"), BY_ITSELF, ids=lambda v: getattr(v, "__name__", ""))
def test_by_itself(identity, expression):
    from chainrule.autodiff.evaluate import evaluate
    from chainrule.core.rewrite import rewrite as apply_identities

    x = _x()
    before = expression(x)
    fired = []

    def watch(node):
        found = identity(node)
        fired.append(found is not None)
        return found

    after = apply_identities(before, (watch, *identities.ALL))
    assert any(fired)
    values = {id(x): A.numpy().astype(np.float64)}
    np.testing.assert_allclose(evaluate(before, values), evaluate(after, values), rtol=1e-12)
