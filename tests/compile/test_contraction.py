"""Contractions as machine code against NumPy in float64: any layout, any role of the variables, nothing read astray."""

import ctypes
import itertools
import mmap
from collections.abc import Callable, Sequence
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import KINDS, runnable

from chainrule import dtypes
from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.expression import Accumulated, Cast, Compute, Expr, Load, Number, Within, walk
from chainrule.compile.kernels.kernel import Contract, Store
from chainrule.compile.llvm import contraction, engine
from chainrule.compile.llvm.builder import Builder, Value
from chainrule.compile.llvm.contraction.axes import Axes
from chainrule.compile.llvm.contraction.layout import RUN
from chainrule.compile.llvm.expressions import Emitter
from chainrule.compile.llvm.shares import Rows, Share
from chainrule.compile.llvm.target import Target, host
from chainrule.core.affine import Affine
from chainrule.ops import elementwise

AVX512, AVX2 = (  # to plan for, on any machine
    Target(name=n, triple="x86_64", cpu="", features="", vector_bytes=bytes_, registers=registers, has_fma=True)
    for n, bytes_, registers in (("AVX-512", 64, 32), ("AVX2", 32, 16))
)
FLOAT32, FLOAT64, BFLOAT16 = dtypes.float32, dtypes.float64, dtypes.bfloat16
PAGE = mmap.PAGESIZE
_LIBC = ctypes.CDLL(None)
_LIBC.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


class Guarded:
    """Memory with pages before and behind it that must not be touched; an array begins or ends right beside one."""

    def __init__(self, size: int, at_end: bool) -> None:
        inside = -(-max(size, 1) // PAGE) * PAGE
        self._map = mmap.mmap(-1, inside + 2 * PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        for page in (base, base + PAGE + inside):
            assert _LIBC.mprotect(page, PAGE, 0) == 0  # PROT_NONE
        self.address = base + PAGE + (inside - size if at_end else 0)
        self.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.address)) if size else b""


def compiled(kernel: Contract, target: Target) -> Callable[..., contraction.ContractPlan]:
    """Runs a kernel on arrays by buffer name, its units in so many parts; every array behind a guard."""
    plan = contraction.plan(kernel, target)
    b = Builder(target.vector_bytes, target.has_fma)
    exprs = [kernel.left, kernel.right, *(s.value for s in kernel.epilogue)]
    found = [e.buffer for e in walk(*exprs) if isinstance(e, Load)] + [s.buffer for s in kernel.epilogue]
    found += kernel.claims
    buffers = list({id(x): x for x in found}.values())
    names = {id(x): f"%p{i}" for i, x in enumerate(buffers)}
    emitter = Emitter(b, lambda x: names[id(x)], lambda *_: None)

    def body() -> None:
        lo, hi = Value("%lo", dtypes.int64), Value("%hi", dtypes.int64)
        plan.emit(emitter, Share(lo=lo, hi=hi, scratch="%scratch", continues=Value("%continues", dtypes.bool_)))
        b.ret()

    arguments = [*(f"ptr {n}" for n in names.values()), "ptr %scratch", "i64 %lo", "i64 %hi", "i1 %continues"]
    b.function("contract", ", ".join(arguments), body)
    code = engine.load(engine.compile_text(b.text(), target))
    kinds = [*[ctypes.c_void_p] * (len(buffers) + 1), ctypes.c_int64, ctypes.c_int64, ctypes.c_bool]
    function = ctypes.CFUNCTYPE(None, *kinds)(code.address("contract"))

    def run(
        arrays: dict[str, np.ndarray], parts: int = 1, at_end: bool = True, share: tuple[int, int] | None = None
    ) -> dict[str, np.ndarray]:
        guarded = {}
        for name, a in arrays.items():
            guarded[name] = Guarded(a.nbytes, at_end)
            guarded[name].bytes[:] = a.reshape(-1).view(np.uint8)
        scratch = Guarded(-(-plan.scratch // 64) * 64, at_end)
        cuts = share or [plan.units * i // parts for i in range(parts + 1)]
        for lo, hi in itertools.pairwise(cuts):
            continues = lo > cuts[0] and at_end  # it may, and it need not: the memory is the same
            function(*(guarded[x.name].address for x in buffers), scratch.address, lo, hi, continues)
        assert code
        return {n: np.array(guarded[n].bytes).view(a.dtype).reshape(a.shape) for n, a in arrays.items()}

    run.plan = plan
    return run


def laid_out(name: str, letters: str, extents: dict[str, int], order: Sequence[int], pad: int, dtype) -> Buffer:
    """A buffer with its axes in some order in memory, the rows of the innermost one a little apart."""
    strides, step = {}, 1
    for n, i in enumerate(reversed(order)):
        strides[letters[i]] = step
        step *= extents[letters[i]] + (pad if n == 0 else 0)
    shape = tuple(extents[x] for x in letters)
    return Buffer(name=name, shape=shape, dtype=dtype, strides=tuple(strides[x] for x in letters), place="input")


def position(buffer: Buffer, letters: str, variable: dict[str, int]) -> Affine:
    return Affine.total((Affine.variable(variable[x]), s) for x, s in zip(letters, buffer.strides, strict=True))


def as_array(memory: np.ndarray, buffer: Buffer) -> np.ndarray:
    strides = [s * buffer.dtype.itemsize for s in buffer.strides]
    return np.lib.stride_tricks.as_strided(memory, buffer.shape, strides)


def draw(rng: np.random.Generator, buffer: Buffer) -> np.ndarray:
    numbers = rng.standard_normal(max(buffer.span, 1)) * 4
    return numbers.astype(buffer.dtype)


def roles(left: str, right: str, out: str) -> dict[str, tuple[str, ...]]:
    everything = dict.fromkeys(left + right)
    return {
        "batch": tuple(x for x in everything if x in left and x in right and x in out),
        "rows": tuple(x for x in everything if x in left and x not in right and x in out),
        "columns": tuple(x for x in everything if x not in left and x in right and x in out),
        "summed": tuple(x for x in everything if x not in out),
    }


def einsum_kernel(
    spec: str,
    extents: dict[str, int],
    orders: Sequence[Sequence[int]],
    pads: Sequence[int] = (0, 0, 0),
    dtype=FLOAT32,
    wrap: Callable[[Expr], Expr] = lambda e: e,
    epilogue: Callable[[Expr, Buffer, Affine], tuple[Store, ...]] | None = None,
    accumulate=None,
    out_dtype=None,
) -> tuple[Contract, list[Buffer]]:
    """The kernel of an einsum."""
    left, right, out = spec.replace("->", ",").split(",")
    variable = {x: i for i, x in enumerate(dict.fromkeys(left + right))}
    given = (("left", left, dtype), ("right", right, dtype), ("out", out, out_dtype or dtype))
    buffers = [laid_out(n, x, extents, o, p, d) for (n, x, d), o, p in zip(given, orders, pads, strict=True)]
    at = [position(x, letters, variable) for x, letters in zip(buffers, (left, right, out), strict=True)]
    accumulate = accumulate or dtypes.work_dtype(dtype)
    total = Accumulated(accumulate)
    stores = epilogue or (lambda value, buffer, where: (Store(buffer=buffer, offset=where, value=value),))
    kernel = Contract(
        name="einsum",
        extents={variable[x]: extents[x] for x in variable},
        **{role: tuple(variable[x] for x in names) for role, names in roles(left, right, out).items()},
        left=wrap(Load(buffers[0], at[0])),
        right=wrap(Load(buffers[1], at[1])),
        accumulate=accumulate,
        epilogue=stores(total, buffers[2], at[2]),
    )
    return kernel, buffers


def check(spec, extents, orders, pads=(0, 0, 0), dtype=FLOAT32, parts=(1,), target=None) -> contraction.ContractPlan:
    """An einsum against NumPy's in float64."""
    kernel, buffers = einsum_kernel(spec, extents, orders, pads, dtype)
    run = compiled(kernel, target or host())
    rng = np.random.default_rng(0)
    memory = {x.name: draw(rng, x) for x in buffers}
    wide = np.int64 if dtypes.is_integer(dtype) else np.float64
    operands = [as_array(memory[x.name], x).astype(wide) for x in buffers[:2]]
    expected = np.einsum(spec, *operands)
    terms = max(int(np.prod([extents[x] for x in roles(*spec.replace("->", ",").split(","))["summed"]])), 1)
    results = []
    for n, count in enumerate(parts):
        after = run(memory, count, at_end=n % 2 == 0)
        found = as_array(after["out"], buffers[2])
        results.append(found.tobytes())
        if dtypes.is_integer(dtype):
            np.testing.assert_array_equal(found, expected.astype(dtype))
        else:
            magnitude = np.einsum(spec, *map(np.abs, operands)) + 1e-30
            eps = float(ml_dtypes.finfo(dtype).eps)
            assert np.all(np.abs(found.astype(np.float64) - expected) <= eps * (terms**0.5 + 4) * magnitude)
            # What lies between the rows of the output is not written.
            untouched = np.ones(memory["out"].size, bool)
            as_array(untouched, replace(buffers[2], dtype=np.dtype(bool)))[...] = False
            np.testing.assert_array_equal(after["out"][untouched], memory["out"][untouched])
    assert all(r == results[0] for r in results)
    return run.plan


NATURAL, SWAPPED = (0, 1), (1, 0)
SHAPES = [
    (1, 1, 1), (7, 3, 0), (6, 64, 5), (13, 70, 9), (40, 1, 50), (1, 200, 50), (50, 1, 33), (5, 5, 333), (64, 10, 50),
    (33, 17, 19), (3, 0, 4), (0, 3, 4), (2, 130, 31),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_all_four_products(shape, target):
    extents = dict(zip("ijk", shape, strict=True))
    for left in (NATURAL, SWAPPED):
        for right in (NATURAL, SWAPPED):
            check("ik,kj->ij", extents, (left, right, NATURAL), parts=(1, 2), target=target)


@pytest.mark.parametrize("dtype", [FLOAT64, *dtypes.INTEGERS], ids=str)
def test_other_types(dtype, target):
    for shape in ((13, 37, 9), (5, 4, 100)):
        extents = dict(zip("ijk", shape, strict=True))
        check("ik,kj->ij", extents, (NATURAL, NATURAL, NATURAL), dtype=dtype, parts=(1, 3), target=target)
        check("ik,kj->ij", extents, (SWAPPED, SWAPPED, NATURAL), dtype=dtype, target=target)


def test_bools_are_joined_by_or_and_and():
    kernel, _ = einsum_kernel("ik,kj->ij", {"i": 5, "j": 21, "k": 7}, (NATURAL,) * 3, dtype=dtypes.bool_)
    rng = np.random.default_rng(0)
    x, y = rng.random((5, 7)) < 0.4, rng.random((7, 21)) < 0.4
    found = compiled(kernel, host())({"left": x, "right": y, "out": np.zeros((5, 21), bool)})
    np.testing.assert_array_equal(found["out"], x @ y)


@pytest.mark.parametrize(
    ("spec", "extents"),
    [
        ("bik,bkj->bij", {"b": 3, "i": 20, "k": 17, "j": 33}),
        ("bhik,bhjk->bhij", {"b": 2, "h": 3, "i": 18, "k": 16, "j": 35}),
        ("bhij,bhjk->bihk", {"b": 2, "h": 2, "i": 18, "k": 16, "j": 35}),
        ("bsk,kj->bsj", {"b": 3, "s": 7, "k": 20, "j": 66}),
        ("k,kj->j", {"k": 70, "j": 40}),
        ("ik,k->i", {"i": 40, "k": 70}),
        ("k,k->", {"k": 100}),
        ("i,j->ij", {"i": 9, "j": 40}),
        ("abk,kcd->acbd", {"a": 4, "b": 5, "k": 6, "c": 3, "d": 20}),
        ("iabc,abcj->ij", {"i": 9, "a": 3, "b": 5, "c": 5, "j": 20}),
    ],
    ids=str,
)
def test_several_variables_in_a_role(spec, extents, target):
    left, right, out = spec.replace("->", ",").split(",")
    orders = [tuple(range(len(x))) for x in (left, right, out)]
    check(spec, extents, orders, parts=(1, 2, 3), target=target)


@pytest.mark.parametrize("columns", [9, 17, 18, 20, 33, 36, 50, 66])
def test_a_few_columns_apart(columns, target):
    """Where the last vector of a row would hold a few columns only, these are done in another way."""
    extents = {"i": 43, "j": columns, "k": 150}
    for left in (NATURAL, SWAPPED):
        for right in (NATURAL, SWAPPED):
            check("ik,kj->ij", extents, (left, right, NATURAL), parts=(1, 2, 5), target=target)
            check("jk,ki->ji", extents, (left, right, SWAPPED), parts=(1, 3), target=target)
    check("ik,kj->ij", extents, (NATURAL, NATURAL, NATURAL), dtype=FLOAT64, parts=(1, 2), target=target)


@pytest.mark.parametrize("kind", [AVX512, AVX2], ids=str)
def test_which_columns_stand_apart(kind):
    def layouts(columns, left):
        kernel, _ = einsum_kernel("ik,kj->ij", {"i": 200, "j": columns, "k": 100}, (left, NATURAL, NATURAL))
        return contraction.plan(kernel, kind).layouts

    width = kind.vector_bytes // 4
    whole = 48 // width  # vectors: 50 is the width of the page's hidden layer
    assert [x.form.dot for x in layouts(whole * width + 2, NATURAL)] == [False, True]
    assert [x.form.swapped for x in layouts(whole * width + 2, SWAPPED)] == [False, True]
    for columns in (2, whole * width, (whole + 1) * width - 2):  # no whole vector, nothing left, nearly a vector left
        assert len(layouts(columns, NATURAL)) == 1


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("orders", [(NATURAL, NATURAL), (NATURAL, SWAPPED), (SWAPPED, SWAPPED)], ids=str)
@pytest.mark.parametrize("summed", [2500, 100_000])
def test_long_sums(summed, orders, dtype, target):
    """So long that a packed panel holds a part of them, and the sums wait meanwhile."""
    extents = {"i": 27 if summed < 10_000 else 7, "j": 71 if summed < 10_000 else 9, "k": summed}
    check("ik,kj->ij", extents, (*orders, NATURAL), dtype=dtype, parts=(1, 2), target=target)


def test_long_sums_of_several_variables():
    check("iab,jab->ji", {"i": 70, "j": 30, "a": 1100, "b": 3}, ((2, 0, 1), (1, 0, 2), NATURAL), parts=(1, 3))


def test_sums_that_wait_beside_each_other(target):
    """The last columns of a panel are several short vectors, each with its place among the sums that wait."""
    plan = check("ik,jk->ij", {"i": 90, "j": 63, "k": 9000}, (SWAPPED, NATURAL, NATURAL), target=target)
    assert plan.layouts[0].block is not None


def test_more_tiles_than_wait_at_a_time():
    plan = check("ik,jk->ij", {"i": 1500, "j": 64, "k": 2100}, (NATURAL, NATURAL, NATURAL), parts=(1, 2))
    assert plan.layouts[0].block is not None
    assert plan.layouts[0].chunk < plan.layouts[0].tiles.count


@st.composite
def einsums(draw):
    """Up to two variables a role, any order in memory, rows apart or not."""
    letters = {r: "".join(draw(st.lists(st.sampled_from(x), max_size=2, unique=True))) for r, x in
               (("batch", "ab"), ("rows", "ij"), ("columns", "mn"), ("summed", "kl"))}  # fmt: skip
    largest = {"a": 3, "b": 2, "i": 19, "j": 5, "m": 40, "n": 6, "k": 40, "l": 6}
    extents = {x: draw(st.integers(1, largest[x])) for x in "".join(letters.values())}
    left = letters["batch"] + letters["rows"] + letters["summed"]
    right = letters["batch"] + letters["columns"] + letters["summed"]
    out = letters["batch"] + letters["rows"] + letters["columns"]
    orders = [draw(st.permutations(range(len(x)))) for x in (left, right, out)]
    pads = [draw(st.sampled_from((0, 0, 1, 5))) for _ in orders]
    return f"{left},{right}->{out}", extents, orders, pads


@settings(max_examples=120)
@given(einsums(), st.sampled_from(KINDS), st.sampled_from((FLOAT32, FLOAT64, dtypes.int32)))
def test_any_einsum(einsum, kind, dtype):
    spec, extents, orders, pads = einsum
    check(spec, extents, orders, pads, dtype=dtype, parts=(1, 2, 3), target=runnable(kind))


# --- convolutions: products of windows


@pytest.mark.parametrize("innermost", ["batch", "row of the image"])
@pytest.mark.parametrize("what", ["forward", "weights"])
@pytest.mark.parametrize("sizes", [(16, 3, 6, 9, 11, 5), (5, 2, 3, 8, 20, 3), (33, 1, 4, 6, 7, 2)], ids=str)
def test_convolutions(sizes, what, innermost, target):
    n, channels, outs, height, width, k = sizes
    rng = np.random.default_rng(0)
    tall, wide = height - k + 1, width - k + 1
    names = "cijn" if innermost == "batch" else "ncij"
    extents = {"n": n, "c": channels, "i": height, "j": width}
    x = rng.standard_normal([extents[a] for a in names]).astype(np.float32)
    y = rng.standard_normal([{**extents, "c": outs, "i": tall, "j": wide}[a] for a in names]).astype(np.float32)
    w = rng.standard_normal((outs, channels, k, k)).astype(np.float32)
    images, results, weights = (
        Buffer(name=m, shape=a.shape, dtype=FLOAT32, strides=tuple(s // 4 for s in a.strides), place="input")
        for m, a in (("x", x), ("y", y), ("w", w))
    )
    o, at_n, i, j, c, u, v = range(7)
    step = dict(zip(names, images.strides, strict=True))
    from_x = {at_n: step["n"], c: step["c"], i: step["i"], j: step["j"], u: step["i"], v: step["j"]}
    step = dict(zip(names, results.strides, strict=True))
    from_y = {at_n: step["n"], o: step["c"], i: step["i"], j: step["j"]}
    from_w = dict(zip((o, c, u, v), weights.strides, strict=True))
    at = [Affine.total((Affine.variable(a), s) for a, s in f.items()) for f in (from_x, from_y, from_w)]
    total = Accumulated(FLOAT32)
    forward = what == "forward"
    kernel = Contract(
        name="convolution",
        extents={o: outs, at_n: n, i: tall, j: wide, c: channels, u: k, v: k},
        batch=(),
        rows=(o,),
        columns=(at_n, i, j) if forward else (c, u, v),
        summed=(c, u, v) if forward else (at_n, i, j),
        left=Load(weights, at[2]) if forward else Load(results, at[1]),
        right=Load(images, at[0]),
        accumulate=FLOAT32,
        epilogue=(Store(buffer=results if forward else weights, offset=at[1] if forward else at[2], value=total),),
    )
    windows = np.lib.stride_tricks.sliding_window_view(
        np.transpose(x, [names.index(a) for a in "ncij"]).astype(np.float64), (k, k), axis=(2, 3)
    )
    run = compiled(kernel, target)
    one, three = (run({"x": x, "y": y, "w": w}, parts, at_end=parts == 1) for parts in (1, 3))
    if forward:
        expected = np.transpose(np.einsum("ncijuv,ocuv->noij", windows, w), ["ncij".index(a) for a in names])
        found, again = one["y"], three["y"]
    else:
        expected = np.einsum("ncijuv,noij->ocuv", windows, np.transpose(y, [names.index(a) for a in "ncij"]))
        found, again = one["w"], three["w"]
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=1e-4)
    assert found.tobytes() == again.tobytes()


@pytest.mark.parametrize("right", [False, True], ids=["left", "right"])
@pytest.mark.parametrize("pad", [1, 2, 4, 6])
@pytest.mark.parametrize(("channels", "k"), [(1, 3), (3, 5), (2, 2)])
def test_zeros_around_an_image_are_not_multiplied(channels, k, pad, right, target):
    """Sums are as long as there is something to read; six around are more than windows reach, so some are empty."""
    edges(channels, k, pad, right, target, batch=33, outs=6, last="n", size=(5, 7))


@pytest.mark.parametrize("right", [False, True], ids=["left", "right"])
def test_nothing_beyond_an_edge_is_copied(right, target):
    """With many filters, whose results lie beside each other, it would pay to copy what a tile reads of the images."""
    edges(16, 3, 2, right, target, batch=64, outs=64, last="o", size=(6, 6))


def edges(channels, k, pad, right, target, *, batch, outs, last, size):
    tall, wide = size
    image, weights = vector("image", channels * tall * wide * batch), vector("weights", outs * channels * k * k)
    rows, columns = tall + 2 * pad - k + 1, wide + 2 * pad - k + 1
    out = vector("out", outs * rows * columns * batch)
    o, n, i, j, c, u, v = range(7)
    at = {x: Affine.variable(x) for x in range(7)}
    down, along = at[i] + at[u] + -pad, at[j] + at[v] + -pad
    read = Load(image, ((at[c] * tall + down) * wide + along) * batch + at[n])
    padded = Within(((down, 0, tall), (along, 0, wide)), read, Number(0.0, FLOAT32))
    offset = ((at[o] * rows + at[i]) * columns + at[j]) * batch + at[n]
    if last == "o":
        offset = ((at[i] * columns + at[j]) * batch + at[n]) * outs + at[o]
    filters = Load(weights, ((at[o] * channels + at[c]) * k + at[u]) * k + at[v])
    kernel = Contract(
        name="edges",
        extents={o: outs, n: batch, i: rows, j: columns, c: channels, u: k, v: k},
        batch=(),
        rows=(o,) if right else (n, i, j),
        columns=(n, i, j) if right else (o,),
        summed=(c, u, v),
        left=filters if right else padded,
        right=padded if right else filters,
        accumulate=FLOAT32,
        epilogue=(
            Store(
                buffer=out,
                offset=offset,
                value=Accumulated(FLOAT32),
            ),
        ),
    )
    rng = np.random.default_rng(0)
    memory = {x.name: draw(rng, x) for x in (image, weights, out)}
    run = compiled(kernel, target)
    one, three = (run(memory, parts, at_end=parts == 1)["out"] for parts in (1, 3))
    assert one.tobytes() == three.tobytes()
    if last == "o":
        one = np.moveaxis(one.reshape(rows, columns, batch, outs), 3, 0)
    images = np.pad(memory["image"].reshape(channels, tall, wide, batch), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(images.astype(np.float64), (k, k), axis=(1, 2))
    wanted = np.einsum("cijnuv,ocuv->oijn", windows, memory["weights"].reshape(outs, channels, k, k))
    np.testing.assert_allclose(one.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-4)

    plan = contraction.plan(kernel, target)
    inside = np.lib.stride_tricks.sliding_window_view(np.pad(np.ones((tall, wide)), pad), (k, k)).sum()
    assert all(layout.limits for layout in plan.layouts)
    assert plan.flops == 2 * batch * outs * channels * inside


# --- epilogues


def compute(op, *inputs: Expr) -> Expr:
    return Compute(op, inputs, {}, inputs[0].dtype)


def vector(name: str, size: int) -> Buffer:
    return Buffer(name=name, shape=(size,), dtype=FLOAT32, strides=(1,), place="input")


@pytest.mark.parametrize("shape", [(30, 70, 20), (64, 10, 50), (9, 9, 200)], ids=str)
@pytest.mark.parametrize("orders", [(NATURAL, NATURAL), (SWAPPED, NATURAL), (NATURAL, SWAPPED)], ids=str)
def test_bias_and_activation_and_two_results(shape, orders, target):
    rows, columns, terms = shape
    bias, gain, scale = vector("bias", columns), vector("gain", rows), vector("scale", 1)
    i, j = 0, 2
    mask = Buffer(name="mask", shape=(rows, columns), dtype=dtypes.bool_, strides=(columns, 1), place="output")

    def epilogue(total: Expr, out: Buffer, at: Affine) -> tuple[Store, ...]:
        by_row = compute(elementwise.mul, total, Load(gain, Affine.variable(i)))
        scaled = compute(elementwise.mul, by_row, Load(scale, Affine.of(0)))
        biased = compute(elementwise.add, scaled, Load(bias, Affine.variable(j)))
        positive = compute(elementwise.maximum, biased, Number(0.0, FLOAT32))
        return Store(buffer=out, offset=at, value=positive), Store(
            buffer=mask, offset=at, value=Cast(positive, dtypes.bool_)
        )

    kernel, buffers = einsum_kernel(
        "ik,kj->ij", {"i": rows, "j": columns, "k": terms}, (*orders, NATURAL), epilogue=epilogue
    )
    rng = np.random.default_rng(0)
    memory = {x.name: draw(rng, x) for x in (*buffers, bias, gain, scale)} | {"mask": np.zeros((rows, columns), bool)}
    run = compiled(kernel, target)
    after, again = run(memory, 1), run(memory, 3, at_end=False)
    left, right = (as_array(memory[x.name], x).astype(np.float64) for x in buffers[:2])
    expected = left @ right * memory["gain"][:, None] * memory["scale"] + memory["bias"]
    found = as_array(after["out"], buffers[2])
    np.testing.assert_allclose(found, np.maximum(expected, 0), atol=1e-2, rtol=1e-4)
    np.testing.assert_array_equal(after["mask"], found > 0)
    assert all(after[n].tobytes() == again[n].tobytes() for n in memory)


@pytest.mark.parametrize("shape", [(100, 50, 70), (50, 10, 64), (12, 30, 9)], ids=str)
@pytest.mark.parametrize("order", [NATURAL, SWAPPED], ids=str)
def test_a_weight_is_updated_where_it_stands(shape, order, target):
    """W += m - rate · (m / 2 + xᵀ g), with m kept beside: each value is computed from what was there before."""
    rows, columns, terms = shape
    momentum = Buffer(
        name="momentum",
        shape=(rows, columns),
        dtype=FLOAT32,
        strides=(columns, 1) if order == NATURAL else (1, rows),
        place="input",
    )

    def epilogue(total: Expr, out: Buffer, at: Affine) -> tuple[Store, ...]:
        kept = compute(elementwise.mul, Load(momentum, at), Number(0.5, FLOAT32))
        moved = compute(elementwise.add, kept, total)
        step = compute(elementwise.mul, moved, Number(0.125, FLOAT32))
        new = compute(elementwise.sub, compute(elementwise.add, Load(out, at), Load(momentum, at)), step)
        return Store(buffer=momentum, offset=at, value=moved), Store(buffer=out, offset=at, value=new)

    kernel, buffers = einsum_kernel(
        "ki,kj->ij", {"i": rows, "j": columns, "k": terms}, (NATURAL, NATURAL, order), epilogue=epilogue
    )
    rng = np.random.default_rng(0)
    memory = {x.name: draw(rng, x) for x in (*buffers, momentum)}
    run = compiled(kernel, target)
    after, again = run(memory, 1), run(memory, 2, at_end=False)
    left, right = (as_array(memory[x.name], x).astype(np.float64) for x in buffers[:2])
    moved = as_array(memory["momentum"], momentum) * 0.5 + left.T @ right
    np.testing.assert_allclose(as_array(after["momentum"], momentum), moved, atol=1e-2, rtol=1e-4)
    new = as_array(memory["out"], buffers[2]) + as_array(memory["momentum"], momentum) - 0.125 * moved
    np.testing.assert_allclose(as_array(after["out"], buffers[2]), new, atol=1e-2, rtol=1e-4)
    assert all(after[n].tobytes() == again[n].tobytes() for n in memory)


# --- operands that are more than a load


@pytest.mark.parametrize("dtype", [BFLOAT16, dtypes.float16], ids=str)
@pytest.mark.parametrize("shape", [(20, 40, 33), (5, 4, 100), (30, 70, 2300), (3, 1, 8)], ids=str)
@pytest.mark.parametrize("orders", [(NATURAL, NATURAL), (SWAPPED, NATURAL), (NATURAL, SWAPPED)], ids=str)
def test_16_bit_floats_are_summed_in_32(dtype, shape, orders):
    kernel, buffers = einsum_kernel(
        "ik,kj->ij", dict(zip("ijk", shape, strict=True)), (*orders, NATURAL), dtype=dtype, out_dtype=FLOAT32
    )
    rng = np.random.default_rng(0)
    memory = {x.name: draw(rng, x) for x in buffers}
    run = compiled(kernel, host())
    after, again = run(memory, 1), run(memory, 2, at_end=False)
    left, right = (as_array(memory[x.name], x).astype(np.float64) for x in buffers[:2])
    found = as_array(after["out"], buffers[2])
    np.testing.assert_allclose(found, left @ right, atol=1e-5 * shape[2], rtol=1e-5)
    assert after["out"].tobytes() == again["out"].tobytes()


@pytest.mark.parametrize("dtype", [BFLOAT16, dtypes.float16], ids=str)
@pytest.mark.parametrize("shape", [(20, 40, 33), (9, 5, 100), (50, 10, 64)], ids=str)
def test_sums_are_rounded_once_to_16_bits(dtype, shape, target):
    kernel, buffers = einsum_kernel("ki,kj->ij", dict(zip("ijk", shape, strict=True)), (NATURAL,) * 3, dtype=dtype)
    rng = np.random.default_rng(0)
    memory = {x.name: draw(rng, x) for x in buffers}
    found = as_array(compiled(kernel, target)(memory, 2)["out"], buffers[2]).astype(np.float64)
    left, right = (as_array(memory[x.name], x).astype(np.float64) for x in buffers[:2])
    eps = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(found, left.T @ right, atol=1e-3, rtol=eps)


@pytest.mark.parametrize("orders", [(NATURAL, NATURAL), (SWAPPED, NATURAL), (NATURAL, SWAPPED)], ids=str)
@pytest.mark.parametrize("shape", [(20, 40, 33), (5, 4, 100), (70, 70, 2100)], ids=str)
def test_operands_are_worked_out_on_the_way(shape, orders, target):
    def doubled(e: Expr) -> Expr:
        return compute(elementwise.mul, e, compute(elementwise.add, e, Number(1.0, FLOAT32)))

    extents = dict(zip("ijk", shape, strict=True))
    kernel, buffers = einsum_kernel("ik,kj->ij", extents, (*orders, NATURAL), wrap=doubled)
    rng = np.random.default_rng(0)
    memory = {x.name: draw(rng, x) / 4 for x in buffers}
    after = compiled(kernel, target)(memory, 2)
    left, right = (as_array(memory[x.name], x).astype(np.float64) for x in buffers[:2])
    expected = (left * (left + 1)) @ (right * (right + 1))
    np.testing.assert_allclose(as_array(after["out"], buffers[2]), expected, atol=1e-5 * shape[2], rtol=1e-5)


def test_a_window_over_the_edge_reads_zeros(target):
    """A one-dimensional convolution whose padding is a bound, not memory."""
    image, weights, out = vector("image", 40), vector("weights", 15), vector("out", 120)
    o, i, u = range(3)
    place = Affine.variable(i) + Affine.variable(u) + -2
    padded = Within(((place, 0, 40),), Load(image, place), Number(0.0, FLOAT32))
    kernel = Contract(
        name="edge",
        extents={o: 3, i: 40, u: 5},
        batch=(),
        rows=(o,),
        columns=(i,),
        summed=(u,),
        left=Load(weights, Affine.variable(o) * 5 + Affine.variable(u)),
        right=padded,
        accumulate=FLOAT32,
        epilogue=(Store(buffer=out, offset=Affine.variable(o) * 40 + Affine.variable(i), value=Accumulated(FLOAT32)),),
    )
    rng = np.random.default_rng(0)
    memory = {x.name: draw(rng, x) for x in (image, weights, out)}
    after = compiled(kernel, target)(memory, 2)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(memory["image"].astype(np.float64), 2), 5)
    np.testing.assert_allclose(
        after["out"].reshape(3, 40), memory["weights"].reshape(3, 5) @ windows.T, rtol=1e-4, atol=1e-4
    )


# --- the plan


@pytest.mark.parametrize("columns", [50, 200])
def test_of_what_a_product_claims_it_writes_where_its_results_lie(target, columns):
    """A line of memory at a time, and nothing beside the sums that are made; what is claimed holds nothing yet."""
    extents = {"i": 43, "j": columns, "k": 70}
    kernel, (left, right, out) = einsum_kernel("ik,kj->ij", extents, (NATURAL,) * 3)
    claim = Buffer(name="claim", shape=(43, columns), dtype=FLOAT32, strides=(columns, 1), place="arena")
    run = compiled(replace(kernel, claims=(claim,)), target)
    rng = np.random.default_rng(0)
    memory = {x.name: draw(rng, x) for x in (left, right)} | {x.name: np.ones(43 * columns, "f4") for x in (out, claim)}
    plain = compiled(kernel, target)({n: memory[n] for n in ("left", "right", "out")})["out"]
    for lo, hi in ((0, run.plan.units), (1, 3)):
        after = run(memory, share=(lo, hi))
        made, zeros = after["out"].reshape(43, columns) != 1, after["claim"].reshape(43, columns) == 0
        np.testing.assert_array_equal(after["out"][made.reshape(-1)], plain[made.reshape(-1)])
        assert not (zeros & ~made).any()
        for row in np.flatnonzero(made.any(axis=1)):
            places = np.flatnonzero(zeros[row])
            assert places[0] == np.flatnonzero(made[row])[0]
            assert np.diff(places, append=np.flatnonzero(made[row])[-1] + 1).max() <= 16  # elements: a line of memory


def test_work_is_cut_finely_enough_for_threads():
    for shape, least in (((200, 50, 100), 16), ((64, 50, 784), 8), ((256, 512, 512), 16)):
        kernel, _ = einsum_kernel("ik,kj->ij", dict(zip("ijk", shape, strict=True)), (NATURAL,) * 3)
        plan = contraction.plan(kernel, host())
        assert plan.units >= least
        assert plan.flops == 2 * shape[0] * shape[1] * shape[2]


@pytest.mark.parametrize("right", [NATURAL, SWAPPED])
def test_many_rows_and_few_columns_are_shared_row_by_row(right, target):
    """Each unit is a row of tiles through all panels, of which those that are packed are kept for the next bit."""
    extents = {"i": 301, "j": 210, "k": 70}
    plan = check("ik,kj->ij", extents, (NATURAL, right, NATURAL), parts=(1, 2, 9), target=target)
    for layout in plan.layouts:
        assert layout.by_rows == (layout.panels.count > 1)
        assert layout.units == layout.tiles.count
        assert layout.rows == Rows(301, layout.tiles.size)
        assert layout.panels_kept == layout.panels.count
    assert any(layout.by_rows for layout in plan.layouts)
    assert (plan.scratch > 0) == (right == SWAPPED or target.registers < 32)


def test_what_has_more_columns_or_is_large_is_shared_panel_by_panel():
    for shape in ((200, 210, 70), (3000, 2000, 70)):
        kernel, _ = einsum_kernel("ik,kj->ij", dict(zip("ijk", shape, strict=True)), (NATURAL,) * 3)
        (layout, *_) = contraction.plan(kernel, host()).layouts
        assert not layout.by_rows
        assert layout.units == layout.panels.count * layout.tiles.count > layout.tiles.count


def test_axes_that_walk_memory_as_one_are_joined():
    extents = {"b": 3, "s": 7, "k": 20, "j": 66, "c": 4}
    for spec, joined in (("bsk,kj->bsj", True), ("bsck,ckj->bsj", True), ("sbk,kj->bsj", False)):
        orders = [tuple(range(len(x))) for x in spec.replace("->", ",").split(",")]
        kernel, _ = einsum_kernel(spec, extents, orders)
        axes = Axes.of(kernel)
        assert (len(axes.rows) == 1) == joined
        assert len(axes.summed) == 1


def test_what_is_copied_before_use():
    """Nothing where memory lies right; in narrow tiles what lies in too many lines for a cache."""

    def copied(kind, left, **extents):
        kernel, _ = einsum_kernel("ik,kj->ij", extents, (left, NATURAL, NATURAL))
        layout = contraction.plan(kernel, kind).layouts[0]
        return layout.packed, layout.points_along is not None

    small, large = {"i": 20, "j": 48, "k": 100}, {"i": 512, "j": 512, "k": 256}
    for left in (NATURAL, SWAPPED):
        assert copied(AVX512, left, **large) == copied(AVX512, left, **small) == (False, False)
        assert copied(AVX2, left, **small) == (False, False)
    assert copied(AVX2, NATURAL, **large) == (True, False)
    assert copied(AVX2, SWAPPED, **large) == (True, True)
    assert copied(AVX2, SWAPPED, i=200, j=48, k=256) == (True, False)  # each tile's points are read three times only


@pytest.mark.parametrize("i", [7, 50, 512, 515], ids="{} rows".format)
@pytest.mark.parametrize("k", [257, 2500], ids="{} terms".format)
def test_points_are_copied_for_some_tiles_at_a_time(i, k, target):
    """Shares begin and end anywhere, also within such a run; sums wait in memory where there are many terms."""
    extents = {"i": i, "j": 140, "k": k}
    plan = check("ik,kj->ij", extents, (SWAPPED, NATURAL, NATURAL), parts=(1, 2, 7), target=target)
    if target.registers < 32:
        runs = [layout.run for layout in plan.layouts]
        assert runs[0] == min(i // plan.layouts[0].tiles.size, RUN)
