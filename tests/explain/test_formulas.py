"""Every printed formula re-evaluates: over many programs, each leaf, at three depths."""

import sys
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr

sys.path.insert(0, str(Path(__file__).parent))
import models

# Gradients that add entries back where an index took them have no one NumPy expression; a cr.Function is ours alone.
WITHOUT_FORM = {
    (models.embedding_and_pieces, "numpy"),
    (models.own_function, "torch"),
    (models.own_function, "numpy"),
}
CASES = [pytest.param(model, id=model.__name__) for model in models.ALL]


def run(model):
    cr.manual_seed(0)
    loss = model()
    leaves = cr.explain(loss, wrt=first_leaf(loss)).run.leaves
    return loss, leaves


def first_leaf(node):
    return next(x for x in ancestors(node) if x.op is None and x.requires_grad)


def ancestors(node):
    seen, pending = {}, [node]
    while pending:
        x = pending.pop()
        if id(x) not in seen:
            seen[id(x)] = x
            pending.extend(x.inputs)
    return sorted(seen.values(), key=lambda x: x.made)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("model", CASES)
def test_every_link_gives_the_gradient_in_use(model, depth):
    loss, leaves = run(model)
    loss.backward()
    for leaf in leaves:
        explanation = cr.explain(loss, wrt=leaf, depth=depth)
        np.testing.assert_array_equal(explanation.value, leaf.grad.numpy())
        for link in explanation.links:
            assert link.agrees, f"{link.name}: {link.error} {explanation}"
        assert explanation.checked.error < 2e-4, str(explanation)


@pytest.mark.parametrize("model", CASES)
def test_the_combined_formula_gives_the_gradient_too(model):
    loss, leaves = run(model)
    for leaf in leaves:
        explanation = cr.explain(loss, wrt=leaf)
        if explanation.combined is None:
            assert len(explanation.links) > 12
            continue
        found = explanation.derivation.value(explanation.combined)
        np.testing.assert_allclose(found, explanation.value, rtol=1e-3, atol=1e-5 * np.abs(explanation.value).max())


@pytest.mark.parametrize("model", CASES)
def test_rules_agree_with_numbers(model):
    loss, _ = run(model)
    report = cr.check(loss)
    assert report.passed, str(report)
    assert not report.unchecked, str(report)


@pytest.mark.parametrize("model", CASES)
def test_the_terms_of_an_entry_add_up(model):
    loss, leaves = run(model)
    for leaf in leaves:
        at = tuple(n // 2 for n in leaf.shape)
        terms = cr.explain(loss, wrt=leaf, at=at).terms
        if terms is None or not terms.over:
            continue
        total = sum(t.value for t in terms.terms) + terms.rest
        np.testing.assert_allclose(total, terms.value, rtol=1e-4, atol=1e-6)
        # Each term is the product of the factors shown, times the one number that stands before the whole sum.
        factors = [term.value / np.prod([v for _, v in term.factors]) for term in terms.terms if term.value]
        np.testing.assert_allclose(factors, factors[:1] * len(factors), rtol=1e-6)


@pytest.mark.parametrize("style", ["chainrule", "torch", "numpy"])
@pytest.mark.parametrize("model", CASES)
def test_the_backward_written_out_runs(model, style):
    loss, leaves = run(model)
    if (model, style) in WITHOUT_FORM:
        with pytest.raises(cr.errors.ArgumentError, match="form"):
            cr.backward_source(loss, style=style)
        return
    source = cr.backward_source(loss, style=style)
    namespace = {"Cube": models.Cube}
    exec(source, namespace)
    function = namespace["backward"]
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    derivation = cr.explain(loss, wrt=leaves[0]).derivation
    leaves_ = [x for x in ancestors(loss) if x.op is None and x.constant is None]
    by_name = {python_name(derivation.name(x)): x for leaf in leaves_ for x in (leaf, *behind(leaf))}
    arguments = [as_style(by_name[n], style) for n in names]
    found = function(*arguments)
    found = found if isinstance(found, tuple) else (found,)
    loss.backward()
    for leaf, g in zip(leaves, found, strict=True):
        array = np.asarray(g.detach() if hasattr(g, "detach") else g)
        np.testing.assert_allclose(array, leaf.grad.numpy(), rtol=2e-4, atol=1e-5)


def behind(leaf):
    """What a constant is a view of."""
    while leaf.origin is not None:
        leaf = leaf.origin[1]
        yield leaf


def python_name(name):
    plain = "".join(c if c.isalnum() or c == "_" else "_" for c in name)
    return f"p{plain}" if plain[:1].isdigit() else plain


def as_style(tensor, style):
    if style == "chainrule":
        return tensor.detach()
    array = tensor.detach().numpy()
    if style == "numpy":
        return array
    import torch

    return torch.from_numpy(np.array(array))
