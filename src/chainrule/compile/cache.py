"""What was compiled, kept on disk: payloads of bytes by a key, for this and for later processes.

Knows files; knows no program. A key is any text that says all that the payload depends on. An entry is read back only
if it is whole: its file begins with a magic word, the digest of its key and of its payload, so a file that was cut
short, damaged, or put there by something else is passed over, and replaced when the payload has been made again.

The digests guard against accidents. Object code is run: whoever may write into the directory may run code as this user,
which is why it is made readable and writable by the user alone.

CHAINRULE_CACHE_DIR: the directory. CHAINRULE_CACHE_SIZE: its limit in megabytes, 512 if not set; what was not used for
longest goes first; 0 keeps nothing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from chainrule.compile.llvm import engine
from chainrule.errors import ArgumentError

if TYPE_CHECKING:
    from chainrule.compile.llvm.target import Target

_MAGIC = b"chainrule cache 1\n"
_DIGEST = 32
_HEADER = len(_MAGIC) + 8 + 2 * _DIGEST  # magic, length, digest of the key, digest of the payload
_SUFFIX = ".bin"
_MEGABYTE = 1 << 20
_DEFAULT_MEGABYTES = 512
_ROUNDS = 64  # stores between two looks at the size of the directory


class CacheInfo(NamedTuple):
    """The state of the cache: its directory, entries, bytes and limit; what this process found, missed and stored."""

    directory: Path
    entries: int
    size: int
    limit: int
    hits: int
    misses: int
    stored: int

    def __str__(self) -> str:
        used = f"{self.size / _MEGABYTE:.1f} of {self.limit / _MEGABYTE:.0f} MB"
        here = f"this process found {self.hits}, missed {self.misses}, stored {self.stored}"
        return f"{self.directory}: {self.entries} entries, {used}; {here}"


class _Counts:
    """What this process did, and what it found out about the directory."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.hits = self.misses = self.stored = 0
        self.warned = False


_counts = _Counts()


def directory() -> Path:
    """Where the entries are: CHAINRULE_CACHE_DIR, or `chainrule` in the platform's directory for caches of a user."""
    if chosen := os.environ.get("CHAINRULE_CACHE_DIR"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return Path(base or Path.home() / "AppData" / "Local") / "chainrule" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "chainrule"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chainrule"


def limit() -> int:
    """How many bytes the directory may hold.

    Raises: ArgumentError: CHAINRULE_CACHE_SIZE is no number of megabytes.
    """
    text = os.environ.get("CHAINRULE_CACHE_SIZE", "")
    try:
        megabytes = float(text) if text else _DEFAULT_MEGABYTES
    except ValueError:
        megabytes = -1.0
    if not 0 <= megabytes < float("inf"):
        raise ArgumentError(f"CHAINRULE_CACHE_SIZE: expected a number of megabytes, got {text!r}; set 0 or more")
    return int(megabytes * _MEGABYTE)


def lookup(key: str) -> bytes | None:
    """The payload that was stored under a key, if it is there and whole."""
    path = _path(key)
    payload = None
    with contextlib.suppress(OSError):
        payload = _whole(path.read_bytes(), key)
    with _counts.lock:
        _counts.hits += payload is not None
        _counts.misses += payload is None
    if payload is not None:
        with contextlib.suppress(OSError):  # used just now: the last to be removed
            os.utime(path)
    return payload


def store(key: str, payload: bytes) -> None:
    """Keep a payload under a key. Where nothing can be written, a warning says so, once."""
    most = limit()
    if len(payload) + _HEADER > most:
        return
    path = _path(key)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, _MAGIC + len(payload).to_bytes(8, "little") + _digest(key.encode()) + _digest(payload) + payload)
    except OSError as error:
        _warn(path.parent, error)
        return
    with _counts.lock:
        _counts.stored += 1
        look = _counts.stored % _ROUNDS == 1
    if look or most < _ROUNDS * _MEGABYTE:
        _evict(path.parent, most)


def clear_cache() -> None:
    """Remove all that was compiled from the disk; functions in use go on, and are compiled anew in the next process."""
    for path, _, _ in _entries(directory()):
        with contextlib.suppress(OSError):
            path.unlink()


def cache_info() -> CacheInfo:
    """Where the cache is, how full, and how it served this process."""
    place = directory()
    entries = _entries(place)
    return CacheInfo(
        directory=place,
        entries=len(entries),
        size=sum(size for _, size, _ in entries),
        limit=limit(),
        hits=_counts.hits,
        misses=_counts.misses,
        stored=_counts.stored,
    )


@functools.cache
def release() -> str:
    """What becomes of a program depends on the library's files, as they are now: a digest of their sizes and times.

    Of those that decide it: the rooms here, and what all of them import. The text that says the version is for
    installations that give all files one time.
    """
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256((package / "__init__.py").read_bytes())
    digest.update((package / "dtypes.py").read_bytes())
    folders = [str(package / part) for part in ("compile", "core", "ops")]
    for folder in folders:
        with os.scandir(folder) as found:
            for entry in sorted(found, key=lambda entry: entry.name):
                if entry.is_dir() and entry.name != "__pycache__":
                    folders.append(entry.path)
                elif entry.name.endswith(".py"):
                    stat = entry.stat()
                    digest.update(f"{entry.path[len(str(package)) :]} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def code_key(ir: str, target: Target, level: int = engine.LEVEL) -> str:
    """All that object code depends on: the code generator's release, its effort, the target, and the IR."""
    # Not chainrule's release: what it changes, it changes in the IR.
    return f"object code\n{engine.version()}, level {level}\n{target.machine}\n{ir}"


def object_code(ir: str, target: Target, level: int = engine.LEVEL) -> bytes:
    """The object code of a module: from the disk, or compiled and kept there."""
    return found_or_made(code_key(ir, target, level), lambda: engine.compile_text(ir, target, level))


def found_or_made(key: str, make: Callable[[], bytes]) -> bytes:
    """The payload of a key: from the disk, or made and kept there."""
    payload = lookup(key)
    if payload is None:
        payload = make()
        store(key, payload)
    return payload


# --- files


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _path(key: str) -> Path:
    return directory() / f"{hashlib.sha256(key.encode()).hexdigest()}{_SUFFIX}"


def _whole(data: bytes, key: str) -> bytes | None:
    """The payload of a file, if the file is an entry of this key, complete and undamaged."""
    header, payload = data[:_HEADER], data[_HEADER:]
    expected = _MAGIC + len(payload).to_bytes(8, "little") + _digest(key.encode()) + _digest(payload)
    return payload if header == expected else None


def _write(path: Path, data: bytes) -> None:
    """All or nothing, also with several processes at it: written beside, then put in place."""
    beside = path.with_name(f"{path.stem[:16]}-{os.urandom(8).hex()}.part")
    try:
        with beside.open("xb") as file:
            file.write(data)
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _warn(place: Path, error: OSError) -> None:
    with _counts.lock:
        first, _counts.warned = not _counts.warned, True
    if first:
        reason = error.strerror or type(error).__name__
        warnings.warn(
            f"compile: expected to keep compiled code in {place}, which cannot be written ({reason}); each process "
            "compiles anew. Set CHAINRULE_CACHE_DIR to a directory of yours, or CHAINRULE_CACHE_SIZE=0",
            RuntimeWarning,
            stacklevel=2,
        )


def _entries(place: Path) -> list[tuple[Path, int, float]]:
    """(path, size, last use) of what the cache put into its directory, also of what was never finished."""
    found = []
    with contextlib.suppress(OSError), os.scandir(place) as listing:
        for file in listing:
            if file.name.endswith((_SUFFIX, ".part")):
                with contextlib.suppress(OSError):  # removed by another process meanwhile
                    status = file.stat()
                    found.append((Path(file.path), status.st_size, status.st_mtime))
    return found


def _evict(place: Path, most: int) -> None:
    """Remove what was not used for longest until nine tenths of the limit are kept, if there is more than the limit."""
    entries = _entries(place)
    total = sum(size for _, size, _ in entries)
    if total <= most:
        return
    for path, size, _ in sorted(entries, key=lambda entry: entry[2]):
        if total <= most * 9 // 10:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
