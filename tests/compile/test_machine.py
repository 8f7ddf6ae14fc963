"""The limits of the machine: that they are measured, kept, and printed; not what they are."""

import pytest

from chainrule.compile import cache, machine
from chainrule.compile.llvm import pool
from chainrule.compile.llvm.target import Target
from chainrule.errors import ArgumentError


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(machine, "_known", {})
    monkeypatch.setattr(machine, "_MOST_MEMORY", 4 << 20)
    monkeypatch.setattr(machine, "_STREAMED", 1 << 20)
    monkeypatch.setattr(machine, "_ROUNDS", 1 << 10)


def test_every_limit_is_a_number():
    found = machine.machine()
    assert [limit.name for limit in found.limits] == [
        "float32", "float64", "read L1", "copy L1", "read L2", "copy L2", "read memory", "write memory", "copy memory",
    ]  # fmt: skip
    assert all(limit.one > 0 and limit.all > 0 for limit in found.limits)
    assert found.threads == pool.get_num_threads()
    assert found["float32"].unit == "GFLOP/s"
    assert found["read memory"].unit == "GB/s"
    with pytest.raises(KeyError, match="float16: expected one of float32"):
        found["float16"]


def test_it_is_measured_once_and_kept_for_later_processes(monkeypatch):
    first = machine.machine()
    assert machine.machine() is first
    monkeypatch.setattr(machine, "_known", {})
    monkeypatch.setattr(machine, "_measured", lambda *_: pytest.fail("measured again"))
    assert machine.machine() == first


def test_a_refresh_measures_anew(monkeypatch):
    first = machine.machine()
    again = machine.machine(refresh=True)
    assert again is not first
    monkeypatch.setattr(machine, "_known", {})
    assert machine.machine() == again
    assert cache.cache_info().entries >= 1


def test_it_prints_as_a_table():
    limits = (
        machine.Limit(name="float32", unit="GFLOP/s", one=115.24, all=230.0),
        machine.Limit(name="read memory", unit="GB/s", one=21.0, all=33.3),
    )
    found = machine.Machine(cpu="A CPU", target="AVX2 (haswell)", threads=4, memory=1, limits=limits)
    assert repr(found) == (
        "A CPU, AVX2 (haswell)\n"
        "               1 thread   4 threads\n"
        "float32           115.2       230.0  GFLOP/s\n"
        "read memory        21.0        33.3  GB/s"
    )


@pytest.mark.parametrize("kind", ["avx512", "avx2", "baseline"])
def test_restricted_targets_are_measured_too(kind, monkeypatch):
    try:
        target = Target.restricted(kind)
    except ArgumentError:
        pytest.skip("this machine lacks it")
    monkeypatch.setenv("CHAINRULE_TARGET", kind)
    found = machine.machine()
    assert found.target == str(target)
    assert found["float64"].one > 0


def test_a_bar_appears_when_it_takes_long(monkeypatch):
    shown = []

    class Bar:
        task_ids = (0,)

        def update(self, task, completed):
            shown.append(completed)

        def stop(self):
            shown.append("stopped")

    monkeypatch.setattr(machine, "_bar", lambda total: Bar())
    assert list(machine._with_progress(iter("abc"), 3)) == ["a", "b", "c"]
    assert shown == []
    monkeypatch.setattr(machine, "_PATIENCE", -1.0)
    assert list(machine._with_progress(iter("abc"), 3)) == ["a", "b", "c"]
    assert shown == [1, 2, 3, "stopped"]
