"""The passes that a program goes through before kernels are made of it, in their order."""

from __future__ import annotations

from collections.abc import Callable

from chainrule.compile.passes.common_subexpressions import common_subexpressions
from chainrule.compile.passes.decompose import decompose
from chainrule.compile.passes.disjoint_windows import disjoint_windows
from chainrule.compile.passes.fold_constants import fold_constants
from chainrule.compile.passes.joins_last import joins_last
from chainrule.compile.passes.known_places import known_places
from chainrule.compile.passes.known_signs import known_signs
from chainrule.compile.passes.masks import masks
from chainrule.compile.passes.overlap_of_product import overlap_of_product
from chainrule.compile.passes.rewriting import Pass
from chainrule.compile.passes.rows_first import rows_first
from chainrule.compile.passes.simplify import simplify
from chainrule.compile.passes.slopes import slopes
from chainrule.compile.passes.splits_first import splits_first
from chainrule.compile.passes.sums_in_parts import sums_in_parts
from chainrule.compile.passes.thin_products import thin_products
from chainrule.compile.passes.turned_products import turned_products
from chainrule.compile.program import Program
from chainrule.compile.verify import Checked, verify
from chainrule.core.node import ENGINE_OFF, recording

# Told of a pass that changed something: its name, the program before, the program after.
Watch = Callable[[str, Program, Program], None]

PASSES: tuple[Pass, ...] = (
    # As written, less what cancels or repeats; then what is known of values that are positions and signs.
    simplify,
    common_subexpressions,
    fold_constants,
    known_places,
    known_signs,
    # Gradients of poolings and convolutions, known by the windows that their rules add up; then composites open.
    disjoint_windows,
    overlap_of_product,
    decompose,
    # Products and sums as they are done, which needs their final operands; it reshapes, and turns constants.
    thin_products,
    fold_constants,
    turned_products,
    rows_first,
    sums_in_parts,
    # Activations and their gradients, which needs the products beside them as they are done.
    masks,
    slopes,
    simplify,
    common_subexpressions,
    # Reshapes, of all that is left: towards the inputs, towards the results, and what that brought together.
    splits_first,
    joins_last,
    splits_first,
    simplify,
    common_subexpressions,
)


def optimised(program: Program, watch: Watch | None = None) -> Program:
    """The program after all passes, verified after each.

    A program is what its roots depend on, so what nothing asks for any more is gone by itself: there is no pass for it.

    Args:
        program: as it was traced.
        watch: told of each pass that changed something.
    Raises: ProgramError: a pass left a program that is none, or was given one.
    """
    checked: Checked = {}
    verify(program, "tracing", checked)
    for change in PASSES:
        before, program = program, recording(ENGINE_OFF, change, program)
        if program is not before:
            verify(program, change.__name__, checked)
            if watch is not None:
                watch(change.__name__, before, program)
    return program
