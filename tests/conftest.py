"""What all tests share: the random functions start from one seed."""

import hypothesis
import pytest

import chainrule as cr

# Shared machines stall; a slow example is no failure. The examples drawn are the same in every run.
hypothesis.settings.register_profile("house", deadline=None, derandomize=True, max_examples=150)
hypothesis.settings.load_profile("house")


@pytest.fixture(autouse=True)
def seeded():
    cr.manual_seed(0)
