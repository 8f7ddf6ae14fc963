"""Products of matrices and convolutions, one thread: ours against NumPy and PyTorch: `python benchmarks/products.py`.

GFLOP/s of processor time, which other programs on the machine disturb little; medians. Contenders alternate in blocks,
and each block begins warm. `limit` is what a loop of independent multiply-adds, without loads, reaches at the same time
on the same core: no product can be faster. Ours is the code that `cr.compile` makes for the product alone; NumPy and
PyTorch are called with their output given. Transposed operands are views (AᵀB: the left one, ABᵀ: the right one).
Convolutions: batch 64, 5×5, LeNet's; CHWN has the batch innermost, where PyTorch is given its own NCHW. Needs the
`test` extra. An argument restricts the shapes: those with it in their name.
"""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from chainrule import dtypes
from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.expression import Accumulated, Load
from chainrule.compile.kernels.kernel import Contract, Store
from chainrule.compile.llvm import contraction, engine
from chainrule.compile.llvm.builder import Builder, Value
from chainrule.compile.llvm.expressions import Emitter
from chainrule.compile.llvm.shares import Share
from chainrule.compile.llvm.target import host
from chainrule.core.affine import Affine
from chainrule.core.alignment import aligned_copy, aligned_empty

BLOCKS, SECONDS = 15, 4e-3  # of each contender, and how long a block takes
FLOAT32 = dtypes.float32

PRODUCTS = [
    (200, 50, 100, "AB"), (100, 50, 200, "AᵀB"), (64, 50, 784, "AB"), (784, 50, 64, "AᵀB"), (64, 10, 50, "AB"),
    (50, 10, 64, "AᵀB"), (64, 50, 10, "ABᵀ"), (256, 512, 784, "AB"), (256, 512, 512, "AB"), (784, 512, 256, "AᵀB"),
    (512, 512, 256, "AᵀB"), (256, 512, 512, "ABᵀ"), (256, 10, 512, "AB"), (512, 10, 256, "AᵀB"), (256, 512, 10, "ABᵀ"),
    (1024, 384, 128, "AB"), (1024, 512, 128, "AB"), (1024, 128, 512, "AB"), (128, 384, 1024, "AᵀB"),
    (128, 512, 1024, "AᵀB"), (512, 128, 1024, "AᵀB"), (1024, 128, 384, "ABᵀ"), (1024, 128, 512, "ABᵀ"),
    (1024, 512, 128, "ABᵀ"), (1024, 1024, 1024, "AB"),
]  # fmt: skip
BATCHES = [("q kᵀ", "bik,bjk->bij", 32, 128, 128, 32), ("a v", "bik,bkj->bij", 32, 128, 32, 128)]
CONVOLUTIONS = [("1→6", 1, 6, 32), ("6→16", 6, 16, 14)]  # channels in, out, height and width with the padding

Contender = Callable[[int], None]  # runs so many times


class Case(NamedTuple):
    """What is timed: floating-point operations, and who does them."""

    name: str
    flops: int
    contenders: dict[str, Contender]


# --- ours


def buffer(name: str, a: np.ndarray) -> Buffer:
    strides = tuple(s // a.itemsize for s in a.strides)
    return Buffer(name=name, shape=a.shape, dtype=a.dtype, strides=strides, place="input")


def ours(kernel: Contract, arrays: dict[str, np.ndarray]) -> Contender:
    """The kernel's code in a loop, on arrays by the names of its buffers."""
    target = host()
    plan = contraction.plan(kernel, target)
    b = Builder(target.vector_bytes, target.has_fma)
    names = {n: f"%{n}" for n in arrays}
    emitter = Emitter(b, lambda x: names[x.name], lambda *_: None)

    def rounds() -> None:
        def one(_: object, __: object) -> None:
            b.emit(f"call void @product({', '.join([*(f'ptr {n}' for n in names.values()), 'ptr %scratch'])})")

        b.loop(0, Value("%n", dtypes.int64), 1, one)
        b.ret()

    def product() -> None:
        fresh = b.constant(False, dtypes.bool_)
        plan.emit(emitter, Share(lo=0, hi=plan.units, scratch="%scratch", continues=fresh))
        b.ret()

    arguments = ", ".join([*(f"ptr {n}" for n in names.values()), "ptr %scratch"])
    b.function("product", arguments, product)
    b.function("rounds", arguments + ", i64 %n", rounds)
    code = engine.load(engine.compile_text(b.text(), target))
    scratch = np.zeros(plan.scratch + 64, np.uint8)
    pointers = [*(a.ctypes.data for a in arrays.values()), scratch.ctypes.data + -scratch.ctypes.data % 64]
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(pointers), ctypes.c_int64)
    function = signature(code.address("rounds"))

    def run(n: int) -> None:
        function(*pointers, n)

    return keeping(run, code, scratch, *arrays.values())


def keeping(run: Contender, *alive: object) -> Contender:
    """The same, with the code and the memory that it uses by address."""
    return lambda n: run(n) if alive else None


def limit() -> Contender:
    """Multiply-adds on registers, as many as hide their latency; one round is a million operations."""
    target = host()
    b = Builder(target.vector_bytes, target.has_fma)
    lanes, chains = b.lanes(FLOAT32), 12

    def body() -> None:
        factor = b.load("%p", 0, FLOAT32, lanes)
        zeros = [b.constant(0.0, FLOAT32, lanes)] * chains
        step = lambda _, sums: [b.fma(factor, factor, s) for s in sums]  # noqa: E731
        rounds = b.index_mul(Value("%n", dtypes.int64), 1_000_000 // (2 * chains * lanes))
        for total in b.loop(0, rounds, 1, step, zeros):
            b.store(total, "%p", 0, FLOAT32)
        b.ret()

    b.function("limit", "ptr %p, i64 %n", body)
    code = engine.load(engine.compile_text(b.text(), target))
    memory = np.zeros(64, np.float32)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code.address("limit"))

    return keeping(lambda n: function(memory.ctypes.data, n), code, memory)


def einsum(spec: str, left: np.ndarray, right: np.ndarray, out: np.ndarray) -> Contract:
    """The kernel of an einsum of two arrays."""
    first, second, third = spec.replace("->", ",").split(",")
    variable = {x: i for i, x in enumerate(dict.fromkeys(first + second))}
    buffers = [buffer(n, a) for n, a in (("left", left), ("right", right), ("out", out))]
    at = [
        Affine.total((Affine.variable(variable[x]), s) for x, s in zip(letters, b.strides, strict=True))
        for letters, b in zip((first, second, third), buffers, strict=True)
    ]
    role = lambda *inside: tuple(  # noqa: E731
        v for x, v in variable.items() if (x in first, x in second, x in third) == inside
    )
    extents = dict(zip(first, left.shape, strict=True)) | dict(zip(second, right.shape, strict=True))
    return Contract(
        name="product",
        extents={variable[x]: n for x, n in extents.items()},
        batch=role(True, True, True),
        rows=role(True, False, True),
        columns=role(False, True, True),
        summed=role(True, True, False),
        left=Load(buffers[0], at[0]),
        right=Load(buffers[1], at[1]),
        accumulate=FLOAT32,
        epilogue=(Store(buffer=buffers[2], offset=at[2], value=Accumulated(FLOAT32)),),
    )


# --- the cases


def repeat(call: Callable[[], object]) -> Contender:
    def run(n: int) -> None:
        for _ in range(n):
            call()

    return run


def draw(*shape: int) -> np.ndarray:
    return aligned_copy(np.random.default_rng(0).standard_normal(shape), FLOAT32)


def agree(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error < 1e-5:
        raise SystemExit(f"{name}: ours is off by {error:.1e}")


def product(m: int, n: int, k: int, form: str) -> Case:
    left = draw(k, m).T if form == "AᵀB" else draw(m, k)
    right = draw(n, k).T if form == "ABᵀ" else draw(k, n)
    out, theirs, torchs = (aligned_empty((m, n), FLOAT32) for _ in range(3))
    run = ours(einsum("ik,kj->ij", left, right, out), {"left": left, "right": right, "out": out})
    run(1)
    name = f"{m}×{n}×{k} {form}"
    agree(name, out, left @ right)
    x, y, z = (torch.from_numpy(a) for a in (left, right, torchs))
    contenders = {
        "ours": run,
        "NumPy": repeat(lambda: np.matmul(left, right, out=theirs)),
        "PyTorch": repeat(lambda: torch.mm(x, y, out=z)),
    }
    return Case(name, 2 * m * n * k, contenders)


def batch(label: str, spec: str, count: int, m: int, n: int, k: int) -> Case:
    """A product of each of a batch, the left rows a wide stride apart as those of attention are."""
    left = draw(count, m, 384)[:, :, :k]
    right = draw(count, n, 384)[:, :, :k] if spec.startswith("bik,bjk") else draw(count, k, 384)[:, :, :n]
    out, theirs, torchs = (aligned_empty((count, m, n), FLOAT32) for _ in range(3))
    run = ours(einsum(spec, left, right, out), {"left": left, "right": right, "out": out})
    run(1)
    other = right.transpose(0, 2, 1) if spec.startswith("bik,bjk") else right
    agree(label, out, left @ other)
    x, y, z = (torch.from_numpy(a) for a in (left, other, torchs))
    contenders = {
        "ours": run,
        "NumPy": repeat(lambda: np.matmul(left, other, out=theirs)),
        "PyTorch": repeat(lambda: torch.bmm(x, y, out=z)),
    }
    return Case(f"{label} {count}×({m}×{n}×{k})", 2 * count * m * n * k, contenders)


def convolution(label: str, channels: int, outs: int, size: int, what: str, layout: str) -> Case:
    count, k = 64, 5
    wide = size - k + 1
    order = [("NCHW").index(x) for x in layout]
    x, y, w = draw(count, channels, size, size), draw(count, outs, wide, wide), draw(outs, channels, k, k)
    x, y = np.ascontiguousarray(x.transpose(order)), np.ascontiguousarray(y.transpose(order))
    # The arrays as windows: (n, c, i, j, u, v), a view.
    back = [layout.index(a) for a in "NCHW"]
    windows = np.lib.stride_tricks.sliding_window_view(x.transpose(back), (k, k), axis=(2, 3))
    images, results, arrays = x.transpose(back), y.transpose(back), {"x": x, "y": y, "w": w}
    theirs = [torch.from_numpy(np.ascontiguousarray(a)) for a in (images, results, w)]
    if what == "forward":
        kernel = einsum("ocuv,ncijuv->noij", w, windows, results)
        names, expected = ("w", "x", "y"), F.conv2d(theirs[0], theirs[2])
        call = lambda: F.conv2d(theirs[0], theirs[2])  # noqa: E731
    else:
        kernel = einsum("noij,ncijuv->ocuv", results, windows, w)
        call = lambda: torch.nn.grad.conv2d_weight(theirs[0], w.shape, theirs[1])  # noqa: E731
        names, expected = ("y", "x", "w"), call()
    run = ours(kernel, dict(zip(("left", "right", "out"), (arrays[n] for n in names), strict=True)))
    run(1)
    name = f"{label} {what}, {layout}"
    agree(name, results if what == "forward" else w, expected.numpy())
    return Case(name, 2 * count * wide * wide * outs * channels * k * k, {"ours": run, "PyTorch": repeat(call)})


def cases(only: str) -> Iterator[Case]:
    for m, n, k, form in PRODUCTS:
        if only in f"{m}×{n}×{k} {form}".replace("×", "x"):
            yield product(m, n, k, form)
    for label, spec, *sizes in BATCHES:
        if only in label:
            yield batch(label, spec, *sizes)
    for layout in ("CHWN", "NCHW"):
        for given in CONVOLUTIONS:
            for what in ("forward", "weights"):
                if only in f"{given[0]} {what}, {layout}":
                    yield convolution(*given, what, layout)


# --- timing


def rates(case: Case, peak: Contender) -> dict[str, float]:
    """GFLOP/s of each contender, and of the limit: medians over alternating blocks."""
    contenders = {**case.contenders, "limit": peak}
    flops = dict.fromkeys(case.contenders, case.flops) | {"limit": 1_000_000}
    rounds = {n: max(round(SECONDS * 80e9 / flops[n]), 1) for n in contenders}
    found: dict[str, list[float]] = {n: [] for n in contenders}
    for block in range(BLOCKS):
        for name in list(contenders)[:: 1 if block % 2 else -1]:
            contenders[name](max(rounds[name] // 8, 1))
            start = time.thread_time()
            contenders[name](rounds[name])
            found[name].append(flops[name] * rounds[name] / (time.thread_time() - start) * 1e-9)
    return {n: statistics.median(v) for n, v in found.items()}


def main(arguments: Sequence[str]) -> None:
    torch.set_num_threads(1)
    columns = ("ours", "NumPy", "PyTorch", "limit")
    table = Table("GFLOP/s, float32, 1 thread", *columns, "of the limit")
    for name in table.columns[1:]:
        name.justify = "right"
    peak = limit()
    with threadpool_limits(1), torch.inference_mode():
        for case in cases(arguments[0] if arguments else ""):
            found = rates(case, peak)
            shown = (f"{found[n]:.1f}" if n in found else "" for n in columns)
            table.add_row(case.name, *shown, f"{found['ours'] / found['limit']:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
