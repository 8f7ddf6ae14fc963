"""Runs compiled programs under Valgrind's memcheck: does their code read what nobody wrote, or beside its memory?

    python tools/memcheck.py [CASE ...] [--threads 2] [--target avx2] [--origins] [--seeded] [--all]

Prints a table: the case, its errors, and what Valgrind says of each. Exits with the number of cases that have any. All
cases take a minute. --origins also says where a value that nobody wrote was made, and takes longer. --seeded forbids
the last byte of the first input, to see that every case but `empty` is found out. Needs `valgrind` and `as`.

Programs are compiled first, outside; what runs under Valgrind is tracing, the loader and the code. Before each run all
temporaries, scratch memory and outputs are marked as not written; memory beside and between them as not to be touched:
for that, temporaries do not share places as they do elsewhere. After it every output and update must have been written.
An error counts if it came up in code that belongs to no file, which is what was compiled, or in those checks; Python's
and NumPy's own are left out, so that no list of suppressions is needed. Valgrind knows no AVX-512: hence the target.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import chainrule as cr
from chainrule.compile import native, writing
from chainrule.compile.executable import Binding
from chainrule.compile.jit import Compiled
from chainrule.compile.kernels import arena
from chainrule.compile.kernels.arena import Arena, Stay
from chainrule.compile.kernels.schedule import Schedule
from chainrule.compile.llvm import pool
from chainrule.compile.pipeline import optimised
from chainrule.compile.program import Program
from chainrule.compile.recipe import Recipe
from chainrule.core.alignment import ALIGNMENT

F = cr.nn.functional
GAP = 512  # bytes that must not be touched, on each side: so many that NumPy frees what it has used, and keeps none
RUNS = 3  # of each case, so that the state of one run is the input of the next
XML = "CHAINRULE_MEMCHECK_XML"

VALGRIND = [
    "valgrind", "--tool=memcheck", "--leak-check=no", "--xml=yes", "--partial-loads-ok=no", "--fair-sched=yes",
    f"--redzone-size={GAP}", "--num-callers=4", "--error-limit=no",
]  # fmt: skip


# --- what is run


def drawn(*shape: int, dtype: Any = cr.float32) -> cr.Tensor:
    """Normal numbers."""
    return cr.randn(*shape).to(dtype)


Case = tuple[Callable[..., Any], Sequence[cr.Tensor]]


def training(optimizer_class: Any, **options: Any) -> Case:
    """A net of two layers, and its parameters changed in place."""
    model = cr.nn.Sequential(cr.nn.Linear(13, 19), cr.nn.ReLU(), cr.nn.Linear(19, 3))
    optimizer = optimizer_class(model.parameters(), lr=0.01, **options)

    def step(x: cr.Tensor, y: cr.Tensor) -> cr.Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, [drawn(37, 13), drawn(37, 3)]


def gradients(loss: Callable[..., cr.Tensor], *args: cr.Tensor) -> Case:
    """A loss and its gradients with respect to all arguments."""
    return cr.value_and_grad(loss, argnums=tuple(range(len(args)))), args


def attention() -> Case:
    """Normalised rows through a layer of a transformer."""
    layer = cr.nn.TransformerEncoderLayer(24, 3, 17, dropout=0.1, batch_first=True)
    model = cr.nn.Sequential(cr.nn.LayerNorm(24), layer)

    def step(x: cr.Tensor) -> Any:
        loss = model(x).square().mean()
        loss.backward()
        found = [p.grad for p in model.parameters()]
        model.zero_grad()
        return [loss, *found]

    return step, [drawn(2, 11, 24)]


def in_place() -> Case:
    """Updates of the whole, of a row, and of a column of what a function closes over."""
    kept = drawn(11, 7)

    def step(x: cr.Tensor) -> cr.Tensor:
        kept.mul_(0.5).add_(x)
        kept[3] = x[0] + 1
        kept[:, 2] += 1.0
        return kept.sum()

    return step, [drawn(11, 7)]


ROWS = np.arange(29) * 5 % 17

CASES: dict[str, Callable[[], Case]] = {
    "elementwise": lambda: gradients(lambda x, y: (x.exp() * y.tanh() + (x * y).sin()).sum(), drawn(13, 7), drawn(7)),
    "elementary": lambda: (lambda x: [x.erf(), x.abs().log1p(), x.expm1(), x.tan(), x.abs() ** 1.7], [drawn(53)]),
    "float64": lambda: gradients(lambda x: (x.cos() / x.exp()).mean(), drawn(5, 9, dtype=cr.float64)),
    "halves": lambda: (
        lambda x, y: [x @ x.mT, y.tanh().sum(0)],
        [drawn(9, 7, dtype=cr.float16), drawn(5, 21, dtype=cr.bfloat16)],
    ),
    "matmul": lambda: gradients(lambda x, y: (x @ y).square().mean(), drawn(33, 29), drawn(29, 31)),
    "matmul, large": lambda: gradients(lambda x, y: (x @ y).square().mean(), drawn(201, 131), drawn(131, 77)),
    "matmul, thin": lambda: gradients(lambda x, y: (x @ y).tanh().sum(), drawn(1, 67), drawn(67, 3)),
    "matmul, turned": lambda: gradients(lambda x, y: (x.mT @ y.mT).sum(), drawn(23, 9), drawn(15, 23)),
    "matmul, batch": lambda: gradients(lambda x, y: (x @ y).tanh().mean(), drawn(5, 7, 9), drawn(5, 9, 11)),
    "matmul, float64": lambda: gradients(lambda x: (x @ x.mT).tanh().sum(), drawn(17, 5, dtype=cr.float64)),
    "convolution": lambda: gradients(
        lambda x, w, b: F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=1)), 2).square().mean(),
        drawn(3, 3, 11, 10), drawn(5, 3, 3, 3), drawn(5),
    ),
    "convolution, stride": lambda: gradients(
        lambda x, w: F.conv2d(x, w, stride=2, dilation=2).sum(), drawn(2, 3, 13, 13), drawn(4, 3, 3, 2)
    ),
    "convolution, 1d": lambda: gradients(lambda x, w: F.conv1d(x, w).tanh().sum(), drawn(3, 2, 19), drawn(3, 2, 4)),
    "pooling": lambda: gradients(lambda x: F.avg_pool2d(x, 3, 2).square().sum(), drawn(2, 3, 9, 11)),
    "reductions": lambda: gradients(
        lambda x: x.sum(0).square().mean() + x.amax(1).sum() + x.std() + x.prod(1).sum(), drawn(19, 5)
    ),
    "reductions, long": lambda: (lambda x: [x.sum(), x.argmax(), x.amin(), (x > 0).all()], [drawn(10_007)]),
    "softmax": lambda: gradients(lambda x: (x.softmax(1) * x.log_softmax(0)).sum(), drawn(13, 9)),
    "cross-entropy": lambda: gradients(lambda x: F.cross_entropy(x, cr.tensor(ROWS)), drawn(29, 17)),
    "layer norm": lambda: gradients(lambda x, w: F.layer_norm(x, (13,), w).square().sum(), drawn(7, 13), drawn(13)),
    "batch norm": lambda: gradients(
        lambda x, w: F.batch_norm(x, None, None, w, training=True).sin().sum(), drawn(13, 7), drawn(7)
    ),
    "attention": attention,
    "gather, scatter": lambda: gradients(
        lambda x: x.index_select(0, cr.tensor(ROWS)).square().sum() + x[cr.tensor(ROWS % 5)].sum(), drawn(17, 5)
    ),
    "index_add": lambda: (lambda x: cr.zeros(17, 3).index_add(0, cr.tensor(ROWS), x), [drawn(29, 3)]),
    "embedding": lambda: gradients(lambda w: F.embedding(cr.tensor(ROWS), w).tanh().sum(), drawn(17, 6)),
    "sort": lambda: (lambda x: [*x.sort(1), *x.topk(3), x.argsort(0), x.median()], [drawn(7, 33)]),
    "scan": lambda: gradients(lambda x: (x.cumsum(0) * x.cumsum(1)).sum(), drawn(13, 9)),
    "random": lambda: (lambda x: [F.dropout(x, 0.3), cr.rand(33), cr.randn(7, 5), cr.randint(0, 9, (11,))], [drawn(9)]),
    "moved": lambda: (
        lambda x: [x.mT.flip(0), cr.cat([x, x * 2], 1), x[1:-1:2, ::3], x.roll(2, 0), x.tril()], [drawn(9, 11)]
    ),
    "in place": in_place,
    "SGD": lambda: training(cr.optim.SGD, momentum=0.9),
    "AdamW": lambda: training(cr.optim.AdamW, weight_decay=0.1),
    "empty": lambda: (lambda x: [x.sum(0), x + 1, x.softmax(1)], [drawn(0, 5)]),
}  # fmt: skip


# --- compiled outside


def planned_apart(schedule: Schedule, threads: int = 1) -> Arena:
    """As `planned`, but no two temporaries share a place, and gaps lie between them."""
    stays, start = [], GAP
    for stay in arena.planned(schedule, threads).stays:
        stays.append(Stay(buffer=stay.buffer, start=start, first=stay.first, last=stay.last))
        start = -(-(start + stay.buffer.bytes + GAP) // ALIGNMENT) * ALIGNMENT
    return Arena(stays=tuple(stays), size=start, between=GAP)


class Taken(Exception):
    """Ends a call of a function that is only to be compiled."""


def write_recipe(case: str, folder: Path, threads: int) -> None:
    """Compile a case; leaves its recipe in the folder, and where its temporaries lie."""

    def build(program: Program) -> Any:
        done = writing.write(optimised(program), threads=threads)
        path(folder, case, "recipe").write_bytes(done.recipe._replace(code=code_of(done)).packed())
        path(folder, case, "program").write_text(str(program))
        inside = [(s.start, s.buffer.bytes) for s in done.arena.stays]
        path(folder, case, "arena").write_text(json.dumps(inside))
        raise Taken

    with contextlib.suppress(Taken):
        start(case, build)


def code_of(done: writing.Written) -> bytes:
    """The object code, without what Valgrind 3.19 does not know: vmovq from xmm8… to xmm0… in its shortest form."""
    text, count = re.subn(
        r"^\tvmovq\t(?=%xmm(8|9|1\d), %xmm[0-7]$)", "\t{vex3} vmovq\t", done.assembly(), flags=re.MULTILINE
    )
    if not count:
        return done.recipe.code
    with tempfile.NamedTemporaryFile(suffix=".o") as file:
        subprocess.run(["as", "-o", file.name], input=text.encode(), check=True)
        return Path(file.name).read_bytes()


def start(case: str, build: Callable[[Program], Any]) -> None:
    """Trace a case, and run what is built of it."""
    cr.manual_seed(1)
    function, args = CASES[case]()
    compiled = Compiled(function, build=build)
    for _ in range(RUNS):
        compiled(*args)


def path(folder: Path, case: str, kind: str) -> Path:
    """A file of a case."""
    return folder / f"{re.sub(r'[^a-z0-9]+', '_', case.lower())}.{kind}"


# --- run inside


class Requests:
    """What a program asks of Valgrind, by instructions that do nothing elsewhere. Source: valgrind.h, memcheck.h."""

    NO_ACCESS, UNDEFINED, DEFINED, CHECK = (0x4D43_0000 + n for n in (0, 1, 2, 5))
    ON_VALGRIND = 0x1001
    CODE = bytes.fromhex(
        "4889f8 4889f2"  # rax: the request's words; rdx: the answer outside Valgrind
        "48c1c703 48c1c70d 48c1c73d 48c1c733 4887db"  # rdi turned round, once in all; rbx to itself
        "4889d0 c3"
    )

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(self.CODE)
        at = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)(at)

    def __call__(self, request: int, address: int = 0, size: int = 0) -> int:
        words = (ctypes.c_uint64 * 6)(request, address, size)
        return int(self._call(ctypes.addressof(words), 0))

    def array(self, request: int, array: np.ndarray) -> None:
        """The request for an array's bytes."""
        if array.nbytes:
            self(request, array.ctypes.data, array.nbytes)


class Watched:
    """An executable whose memory is marked before each run, and whose results are looked at after it."""

    addresses = None  # all that is replaced is to be seen here

    def __init__(self, case: str, folder: Path, options: argparse.Namespace, ask: Requests, program: Program) -> None:
        if str(program) != path(folder, case, "program").read_text():
            raise ValueError(f"{case}: traced again at its second call; write it so that it is traced once")
        recipe = Recipe.unpacked(path(folder, case, "recipe").read_bytes())
        self.native = native.Native(program, recipe, options.threads)
        self.inside = json.loads(path(folder, case, "arena").read_text())
        self.seeded, self.ask = options.seeded, ask
        updated = {id(x) for x, _ in program.updates}
        self.updates = [i for i, x in enumerate(program.inputs) if id(x) in updated]

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self.bind(list(arrays)).run()

    def bind(self, arrays: list[np.ndarray]) -> Binding:
        self.arrays = list(arrays)
        self.binding = native.NativeBinding(self.native, arrays)
        return self

    def replace(self, position: int, array: np.ndarray) -> None:
        self.arrays[position] = array
        self.binding.replace(position, array)

    def run(self) -> list[np.ndarray]:
        """The outputs."""
        ask, memory_, first = self.ask, self.native.memory, self.arrays[0]
        ask.array(ask.NO_ACCESS, memory_)
        for at, size in self.inside:
            ask.array(ask.UNDEFINED, memory_[at : at + size])
        ask.array(ask.UNDEFINED, self.native.scratch)
        for kept in self.binding._results:  # small outputs: they are copied from here
            if kept is not None:
                ask.array(ask.UNDEFINED, kept)
        if self.seeded and first.nbytes:
            ask(ask.NO_ACCESS, first.ctypes.data + first.nbytes - 1, 1)
        outputs = self.binding.run()
        if self.seeded:
            ask.array(ask.DEFINED, first)
        for array in (*outputs, *(self.arrays[i] for i in self.updates)):
            ask.array(ask.CHECK, array)
        return outputs


def run_inside(cases: Sequence[str], folder: Path, options: argparse.Namespace) -> None:
    """Run cases that were compiled; leaves in the folder which part of Valgrind's report is whose."""
    ask, report = Requests(), Path(os.environ[XML])
    if not ask(ask.ON_VALGRIND):
        sys.exit("not under Valgrind")

    def aligned_bytes(size: int) -> np.ndarray:
        room = np.zeros(size + 2 * GAP + ALIGNMENT, np.uint8)
        at = GAP + -(room.ctypes.data + GAP) % ALIGNMENT
        ask.array(ask.NO_ACCESS, room[:at])
        ask.array(ask.NO_ACCESS, room[at + size :])
        return room[at : at + size]

    native.aligned_bytes = aligned_bytes
    pool.pool().adapts = False  # always by as many threads as there are
    spans: dict[str, tuple[int, int]] = {}
    (folder / "spans").write_text("{}")
    for case in cases:
        before = report.stat().st_size
        start(case, partial(Watched, case, folder, options, ask))
        spans[case] = (before, report.stat().st_size)
        (folder / "spans").write_text(json.dumps(spans))


# --- both


class Error(NamedTuple):
    """One of Valgrind's errors. In code of ours: its first frame belongs to no file."""

    kind: str
    says: str
    ours: bool


def errors_in(text: str) -> Iterator[Error]:
    """The errors in a part of Valgrind's report."""
    for found in re.findall(r"<error>.*?</error>", text, re.DOTALL):
        says = re.findall(r"<(?:what|text|auxwhat)>(.*?)</", found)
        frame = re.search(r"<frame>.*?</frame>", found, re.DOTALL)
        yield Error(
            kind=re.findall(r"<kind>(.*?)</kind>", found)[0],
            says="; ".join(says),
            ours=frame is not None and "<obj>" not in frame[0],
        )


def main() -> int:
    """Both halves: compile here, then run this file under Valgrind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of: {'; '.join(CASES)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--target", default="avx2", choices=["avx2", "baseline"])
    parser.add_argument("--origins", action="store_true")
    parser.add_argument("--seeded", action="store_true")
    parser.add_argument("--all", action="store_true", help="tell of errors elsewhere too")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    cases = options.cases or list(CASES)
    if unknown := set(cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if options.inside:
        run_inside(cases, options.inside, options)
        return 0
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed; apt-get install valgrind")
    with tempfile.TemporaryDirectory() as folder:
        return judged(cases, Path(folder), options)


def judged(cases: Sequence[str], folder: Path, options: argparse.Namespace) -> int:
    """Print what there is about each case; returns how many have errors."""
    report = folder / "report.xml"
    settings = {
        "CHAINRULE_TARGET": options.target, "CHAINRULE_NUM_THREADS": str(options.threads),
        "CHAINRULE_CACHE_DIR": str(folder / "cache"), "PYTHONMALLOC": "malloc", XML: str(report),
    }  # fmt: skip
    os.environ.update(settings)
    writing.planned = planned_apart  # type: ignore[attr-defined]
    pool.pool()  # compiled and kept, for the process inside
    for case in cases:
        write_recipe(case, folder, options.threads)
    more = ["--track-origins=yes"] * options.origins + [f"--xml-file={report}"]
    told = ["--threads", str(options.threads), "--target", options.target, *["--seeded"] * options.seeded]
    done = subprocess.run(
        [*VALGRIND, *more, sys.executable, __file__, *cases, *told, "--inside", str(folder)], check=False
    )
    text, spans = report.read_bytes(), json.loads((folder / "spans").read_text())
    wrong, ended = 0, max((stop for _, stop in spans.values()), default=0)
    for case in cases:
        if case not in spans:
            print(f"{case:24}did not come to its end")
            spans[case], ended = (ended, len(text)), len(text)
        found = list(errors_in(text[slice(*spans[case])].decode()))
        ours = [error for error in found if error.ours]
        wrong += bool(ours)
        print(f"{case:24}{len(ours):4} errors, {len(found) - len(ours)} elsewhere")
        for error in found[:5] if options.all else ours[:5]:
            print(f"    {error.kind}: {error.says}")
    if done.returncode:
        print(f"Valgrind left with {done.returncode}")
    return wrong + bool(done.returncode)


if __name__ == "__main__":
    sys.exit(main())
