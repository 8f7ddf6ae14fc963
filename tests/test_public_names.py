"""What `import chainrule as cr` offers is said once, so that a strict type checker of a user's finds it too."""

import types

import chainrule as cr

# Python's own names: `from chainrule import *` leaves them alone.
NOT_BY_A_STAR = {"float", "int", "bool"}


def test_all_names_what_is_imported():
    offered = {name for name, value in vars(cr).items() if not name.startswith("_")}
    offered -= {name for name in offered if isinstance(getattr(cr, name), types.ModuleType) and name not in cr.__all__}
    assert offered - NOT_BY_A_STAR == set(cr.__all__)
    assert offered >= NOT_BY_A_STAR
    assert len(cr.__all__) == len(set(cr.__all__))
