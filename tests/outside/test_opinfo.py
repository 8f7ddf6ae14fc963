"""Every op that PyTorch has under the same name agrees with it on PyTorch's own samples: values, dtypes, gradients.

What is covered and what is not stands in `opinfo_coverage.txt`, which these tests keep true.
"""

import opinfo_coverage as coverage
import opinfo_walk
import pytest

WRITTEN = coverage.TABLE.read_text(encoding="utf-8")
BLOCKS = coverage.blocks(WRITTEN)
STALE = f"opinfo_coverage.txt is out of date; look at the difference, then run `{coverage.RENEW}`"


@pytest.mark.parametrize("name", opinfo_walk.OFFERED)
def test_agrees_with_pytorch(name: str) -> None:
    tally = opinfo_walk.walk(opinfo_walk.ENTRIES[name])
    assert not tally.faults, "\n".join([f"{len(tally.faults)} differences", *tally.faults[:20]])
    assert coverage.block(name, tally) == BLOCKS.get(name), STALE


def test_the_coverage_table_is_complete() -> None:
    assert coverage.table({name: BLOCKS.get(name, "") for name in opinfo_walk.OFFERED}) == WRITTEN, STALE


def test_no_excuse_is_idle() -> None:
    excuses = opinfo_walk.excuses
    reasons = {
        reason for table in (excuses.DIFFERENCES, excuses.ERRORS) for rows in table.values() for *_, reason in rows
    }
    idle = sorted(reason for reason in reasons if reason not in WRITTEN)
    assert not idle, f"no sample needs these excuses any more: {idle}"
