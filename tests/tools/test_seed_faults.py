"""Every fault of the fault table still finds its place: a declaration that moved would leave the table unrunnable."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
spec = importlib.util.spec_from_file_location("seed_faults", ROOT / "tools" / "seed_faults.py")
seed_faults = importlib.util.module_from_spec(spec)
sys.modules["seed_faults"] = seed_faults
spec.loader.exec_module(seed_faults)


@pytest.mark.parametrize("fault", seed_faults.FAULTS, ids=lambda fault: fault.name)
def test_a_fault_changes_one_place(fault, tmp_path):
    source = ROOT / seed_faults.OPS / fault.file
    copied = tmp_path / seed_faults.OPS / fault.file
    copied.parent.mkdir(parents=True)
    copied.write_text(source.read_text())
    fault.seed(tmp_path)
    assert copied.read_text() != source.read_text()


def test_there_are_ten_rules():
    assert len(seed_faults.RULES) == 10
