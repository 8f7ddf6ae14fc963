"""Algebra over ops: x · 1 = x, reshapes that cancel, constants that collect. Read by explain and by compile.

Each identity is a function with its equation for a docstring: a node in, an equal node out, or None. Those in ALWAYS
hold for every value of the right dtype, up to rounding. Those in FOR_READING hold for finite values only (0 · ∞ is not
0) or put an expression into the form a person would write; they shape formulas, never computations. Those in
FOR_RUNNING hold for every value, and save work that a person would rather see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chainrule.ops.algebra import (
    coefficient,
    coefficient_first,
    coefficient_out_of_linear,
    coefficients_collect,
    constant_arithmetic,
    constant_of,
    known_choice,
    known_condition,
    known_leaf,
    minus_first,
    plus_zero,
    powers,
    scalar_operand,
    signs,
    sum_of_constant,
    times_one,
    times_zero,
    whole_number,
)
from chainrule.ops.like_terms import common_factor, like_terms, quotients_cancel
from chainrule.ops.rearrangements import (
    coefficient_out_of_gate,
    expand_of_scalar,
    expand_out_of_elementwise,
    gate,
    gate_of_number,
    gate_of_relu,
    movements_cancel,
    one_hot,
    one_hot_sums_to_one,
    product_with_constant,
    reshape_of_expand,
    reshape_through_elementwise,
    softmax_from_log,
    sum_of_expand,
    sum_of_sum,
    transpose_of_product,
    where_of_same,
)
from chainrule.ops.shortcuts import (
    casts,
    cats,
    embeds,
    expand_last,
    expand_of_reshape,
    extreme_at_its_place,
    fill,
    gates,
    negations,
    neighbours_join,
    not_not,
    permute_is_reshape,
    quotient_by_number,
    reduction_of_copies,
    reduction_of_one,
    scalar_choice,
    slices,
    sum_of_scattered,
    whole_power,
)

__all__ = ["ALL", "ALWAYS", "FOR_READING", "FOR_RUNNING", "coefficient", "constant_of"]

Identities = tuple[Callable[[Any], Any], ...]

ALWAYS: Identities = (
    known_leaf,
    known_condition,
    known_choice,
    constant_arithmetic,
    whole_number,
    sum_of_constant,
    scalar_operand,
    times_one,
    plus_zero,
    movements_cancel,
    where_of_same,
    softmax_from_log,
)
FOR_READING: Identities = (
    times_zero,
    gate,
    gate_of_number,
    gate_of_relu,
    coefficient_out_of_gate,
    coefficient_first,
    coefficients_collect,
    coefficient_out_of_linear,
    product_with_constant,
    signs,
    powers,
    quotients_cancel,
    like_terms,
    transpose_of_product,
    reshape_through_elementwise,
    reshape_of_expand,
    expand_of_scalar,
    expand_out_of_elementwise,
    sum_of_expand,
    sum_of_sum,
    one_hot,
    one_hot_sums_to_one,
    common_factor,
    minus_first,
)
FOR_RUNNING: Identities = (
    fill,
    negations,
    whole_power,
    quotient_by_number,
    scalar_choice,
    gates,
    not_not,
    casts,
    permute_is_reshape,
    expand_of_reshape,
    expand_last,
    slices,
    embeds,
    neighbours_join,
    cats,
    reduction_of_one,
    reduction_of_copies,
    sum_of_scattered,
    extreme_at_its_place,
)
# What explanations use.
ALL: Identities = (*ALWAYS, *FOR_READING)
