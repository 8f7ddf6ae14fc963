"""What a strict type checker says of a user's program: it is run here, and checked by mypy with the library.

An error that must be found is marked as one to be ignored, so that mypy complains when it is not found.
"""

from typing import assert_type

import pytest

import chainrule as cr


def test_names_that_load_late_have_their_types() -> None:
    model = cr.nn.Linear(2, 1)
    rows = cr.data.TensorDataset(cr.ones(3, 2), cr.ones(3, 1))
    assert_type(cr.data.DataLoader(rows, batch_size=1), cr.data.DataLoader)
    assert_type(cr.train.History(), cr.train.History)
    assert cr.Learner is cr.train.Learner

    seen = cr.explain(model(cr.ones(3, 2)).sum(), wrt=model.weight)
    assert_type(seen, cr.Explanation)
    assert isinstance(seen, cr.Explanation)

    assert_type(cr.get_num_threads(), int)
    assert cr.get_num_threads() > 0


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError):
        cr.no_such_name  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError):
        cr.train.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_an_argument_of_another_type_is_an_error() -> None:
    with pytest.raises(cr.errors.ArgumentError):
        cr.set_num_threads("two")  # type: ignore[arg-type]
