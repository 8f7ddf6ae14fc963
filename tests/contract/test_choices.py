"""Where a derivative is a choice: the choice that is stated is the one taken, and it is PyTorch's."""

import re

import numpy as np
import pytest
import torch

import chainrule as cr


def at(op, value, sample):
    """Gradients of the op's inputs where all of them are `value`."""
    inputs = [cr.tensor(np.full((2,), value), requires_grad=True) for _ in op.partials]
    op(*inputs, **sample.params).sum().backward()
    return [x.grad.numpy() for x in inputs]


def theirs(op, value, sample):
    """What PyTorch's function of that name gives, or None where it has none."""
    function = getattr(torch, op.name, None) or getattr(torch.nn.functional, op.name, None)
    if function is None or None in op.partials:
        return None
    inputs = [torch.full((2,), value, dtype=torch.float64, requires_grad=True) for _ in op.partials]
    try:
        function(*inputs, *sample.params.values()).sum().backward()
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        return None
    return [np.zeros(2) if x.grad is None else x.grad.numpy() for x in inputs]


def test_the_stated_choice_is_taken_and_is_pytorchs(elementwise):
    op = elementwise
    for place, says in op.kinks:
        sample = next(iter(op.samples), None) or _NoParams
        place = sample.params[place] if isinstance(place, str) else place  # a param's name: at its value
        stated = re.match(r"([\d.]+)\b", says)
        assert stated, f"{op.name}: a choice begins with its value; got {says!r}"
        ours = at(op, place, sample)
        np.testing.assert_array_equal(ours, np.full_like(ours, float(stated[1])))
        expected = theirs(op, place, sample)
        assert expected is not None, f"{op.name} names a choice that PyTorch cannot confirm"
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("value", [-1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
def test_special_points_have_pytorchs_gradient(smooth, value):
    # Kinks that nobody declared show here: ties, zeros, powers of zero, halves.
    op = smooth
    for sample in op.samples or (_NoParams,):
        expected = theirs(op, value, sample)
        if expected is not None:
            np.testing.assert_allclose(at(op, value, sample), expected, rtol=1e-12)


class _NoParams:
    params: dict[str, float] = {}  # noqa: RUF012
