"""What is kept on disk is read back whole or not at all."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from chainrule.compile import cache
from chainrule.compile.llvm import engine
from chainrule.compile.llvm.target import describe, host
from chainrule.errors import ArgumentError

IR = "define i64 @seven() { ret i64 7 }"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    host()  # what is found out about the machine is kept too, once in a process
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.delenv("CHAINRULE_CACHE_SIZE", raising=False)
    monkeypatch.setattr(cache, "_counts", cache._Counts())
    return tmp_path / "kept"


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_a_payload_is_found_by_its_key(folder):
    assert cache.lookup("a") is None
    cache.store("a", b"first")
    cache.store("b", b"")
    assert cache.lookup("a") == b"first"
    assert cache.lookup("b") == b""
    cache.store("a", b"second")
    assert cache.lookup("a") == b"second"
    info = cache.cache_info()
    assert (info.entries, info.hits, info.misses, info.stored, info.limit) == (2, 3, 1, 3, 512 << 20)
    assert info.directory == folder
    assert str(info).startswith(f"{folder}: 2 entries, 0.0 of 512 MB; this process found 3, missed 1, stored 3")


def test_clearing_removes_every_entry_and_nothing_else(folder):
    cache.store("a", b"first")
    (folder / "mine.txt").write_text("kept", encoding="utf-8")
    cache.clear_cache()
    assert cache.lookup("a") is None
    assert only_file(folder).name == "mine.txt"
    cache.clear_cache()


def test_object_code_is_compiled_once(monkeypatch):
    first = cache.object_code(IR, host())
    monkeypatch.setattr(engine, "compile_text", lambda *_: pytest.fail("compiled again"))
    assert cache.object_code(IR, host()) == first


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:10],
        lambda data: b"",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data + b"\0",
        lambda data: b"x" + data[1:],
        lambda data: data[:20] + b"\xff" + data[21:],
        lambda data: b"\x7fELF" + bytes(1000),
    ],
)
def test_a_damaged_entry_is_not_used_and_replaced(folder, damage):
    code = cache.object_code(IR, host())
    path = only_file(folder)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.lookup(cache.code_key(IR, host())) is None
    assert cache.object_code(IR, host()) == code
    assert cache.lookup(cache.code_key(IR, host())) == code


def test_an_entry_under_the_name_of_another_is_not_used(folder):
    cache.store("a", b"first")
    stranger = only_file(folder).read_bytes()
    cache._path("b").write_bytes(stranger)
    assert cache.lookup("b") is None


def test_object_code_of_another_cpu_is_not_found():
    cache.object_code(IR, host())
    other = describe(triple=host().triple, cpu="x86-64", features="")
    assert cache.lookup(cache.code_key(IR, other)) is None
    assert cache.code_key(IR, host(), 1) != cache.code_key(IR, host(), 2)


def test_what_was_not_used_for_longest_goes_first(folder, monkeypatch):
    monkeypatch.setenv("CHAINRULE_CACHE_SIZE", "1")
    for number in range(8):
        cache.store(f"{number}", bytes(120_000))
        os.utime(cache._path(f"{number}"), (number, number))
    assert cache.lookup("0") is not None  # used now
    cache.store("8", bytes(120_000))
    cache.store("9", bytes(120_000))
    assert cache.lookup("0") is not None
    assert cache.lookup("9") is not None
    assert cache.lookup("1") is None
    assert cache.cache_info().size <= 1 << 20


def test_nothing_is_kept_beyond_the_limit(folder, monkeypatch):
    monkeypatch.setenv("CHAINRULE_CACHE_SIZE", "0")
    cache.store("a", b"first")
    assert not folder.exists()
    for wrong in ("-1", "much", "nan", "inf"):
        monkeypatch.setenv("CHAINRULE_CACHE_SIZE", wrong)
        with pytest.raises(ArgumentError, match="CHAINRULE_CACHE_SIZE: expected a number of megabytes, got"):
            cache.cache_info()


def test_without_a_directory_it_works_and_warns_once(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("no directory", encoding="utf-8")  # permissions do not stop an administrator
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(blocked / "kept"))
    with pytest.warns(RuntimeWarning, match="compile: expected to keep compiled code in .*CHAINRULE_CACHE_DIR"):
        assert cache.object_code(IR, host())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.object_code(IR, host())
    assert cache.lookup("a") is None
    assert cache.cache_info().entries == 0
    cache.clear_cache()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not stop an administrator")
def test_a_directory_that_may_only_be_read(folder):
    cache.store("a", b"first")
    folder.chmod(0o500)
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        cache.store("b", b"second")
    assert cache.lookup("a") == b"first"
    folder.chmod(0o700)


def test_a_write_that_fails_leaves_nothing(folder, monkeypatch):
    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        cache.store("a", b"first")
    assert list(folder.iterdir()) == []


def test_two_processes_write_at_once(folder):
    script = """
import sys
from chainrule.compile import cache
mine = int(sys.argv[1])
for round in range(300):
    payload = bytes([mine]) * (1000 + round)
    cache.store("shared", payload)
    found = cache.lookup("shared")
    assert found is not None and len(set(found)) == 1 and found[0] in (1, 2), found
"""
    writers = [subprocess.Popen([sys.executable, "-c", script, str(n)]) for n in (1, 2)]
    assert [w.wait() for w in writers] == [0, 0]
    assert len(list(folder.iterdir())) == 1


def test_the_platforms_directory(monkeypatch):
    monkeypatch.delenv("CHAINRULE_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.directory() == Path("/somewhere/chainrule")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.directory() == Path.home() / "Library" / "Caches" / "chainrule"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert cache.directory() == Path("/local/chainrule/cache")
