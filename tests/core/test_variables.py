"""What the variables of a program call its tensors."""

import numpy as np
import pytest

import chainrule as cr
from chainrule.core.variables import variable_names


class Holder:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def unnamed():
    made = [cr.zeros(1)]  # a line that gives it no name
    return made[0]


@pytest.mark.parametrize(
    ("container", "name"),
    [
        (lambda x: x, "v"),
        (lambda x: [unnamed(), x], "v[1]"),
        (lambda x: (x,), "v[0]"),
        (lambda x: {"w": x}, 'v["w"]'),
        (lambda x: {3: x}, "v[3]"),
        (lambda x: [{"w": x}], 'v[0]["w"]'),
        (lambda x: Holder(w=x), "v.w"),
        (lambda x: Holder(w=[x]), "v.w[0]"),
        (lambda x: Holder(_w=x), None),
        (lambda x: [[[x]]], None),
        (lambda x: [x] * 1001, None),
        (lambda x: {x: 1}, None),
        (lambda x: np, None),
        (lambda x: cr.optim.SGD([x], lr=0.1), None),
    ],
)
def test_a_tensor_goes_by_its_place_in_a_variable(container, name):
    x = unnamed()
    assert variable_names({"v": container(x)}).get(id(x)) == name


def test_a_variable_of_its_own_comes_first():
    x = unnamed()
    assert variable_names({"all": [x], "w": x}) == {id(x): "w"}


class Absent:
    """As a web framework's `request` outside of one."""

    @property
    def __dict__(self):
        raise RuntimeError("nothing is here")


class Slots:
    __slots__ = ("w",)


def test_objects_that_stand_in_for_others_are_passed_over():
    odd = Holder(w=unnamed())
    vars(odd)[3] = unnamed()
    large = Holder(**{f"a{i}": i for i in range(2000)})
    found = variable_names({"absent": Absent(), "slots": Slots(), "odd": odd, "large": large, "cls": Holder, "n": None})
    assert list(found.values()) == ["odd.w"]


def test_the_shortest_way_to_a_tensor_is_its_name():
    weights = [unnamed()]
    assert variable_names({"all": {"weights": weights}, "weights": weights}) == {id(weights[0]): "weights[0]"}


def test_what_the_line_called_it_that_made_it_is_left_to_that_line():
    w1 = cr.zeros(1)
    assert variable_names({"all": [w1]}) == {}


def test_a_name_that_several_were_made_under_says_less_than_the_place():
    layers = []
    for _ in range(2):
        w = cr.zeros(1)
        layers.append(w)
    assert list(variable_names({"layers": layers}).values()) == ["layers[0]", "layers[1]"]


def test_names_of_the_interpreters_own_are_passed_over():
    assert variable_names({"_": unnamed(), "__x__": [unnamed()], ".0": unnamed()}) == {}
