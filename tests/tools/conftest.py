"""What the tests of scripts beside the library share."""

import importlib.util
import sys

import pytest


@pytest.fixture
def load(monkeypatch):
    """Loads a script as a module, with its own folder among those that are searched."""

    def loaded(path):
        spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        monkeypatch.syspath_prepend(str(path.parent))
        spec.loader.exec_module(module)
        return module

    return loaded
