"""Phases: what threads do between one barrier and the next is theirs alone, and no task comes before one it needs."""

import ctypes
import itertools

import numpy as np
import pytest
from drawn import programs
from hypothesis import given
from hypothesis import strategies as st
from steps import F, page_step, two_layers, written
from targets import KINDS

import chainrule as cr
from chainrule.compile.kernels.expression import Load, Pick, walk
from chainrule.compile.kernels.kernel import Contract
from chainrule.compile.kernels.tasks import stores, values
from chainrule.compile.llvm import engine, pool
from chainrule.compile.llvm.builder import Builder
from chainrule.compile.llvm.shares import Split
from chainrule.compile.llvm.target import Target, host
from chainrule.compile.pipeline import optimised
from chainrule.compile.writing import write

# What threads share out depends on how many instructions the work takes: the tests hold for each kind of machine.
on_all = pytest.mark.parametrize("kind", KINDS)


def classifier(inputs=784):
    return two_layers(64, (inputs, 50, 10), F.cross_entropy, cr.tensor(np.arange(64) % 10))


def names(phase):
    return [p.task.kernel.name for p in phase if p.split is not None]


@on_all
def test_the_rows_of_a_batch_wait_for_nobody(kind):
    """From the input to the gradient of the hidden layer each thread has its own rows."""
    found = written(*classifier(inputs=120), threads=2, target=Target.of_kind(kind))
    first, second, _ = found.module.phases
    assert names(first) == ["matmul_relu", "matmul_add"]
    assert names(second)[-1] == "matmul_gate"
    assert len({p.split.blocks for phase in (first, second) for p in phase if p.split is not None}) == 1


@pytest.mark.parametrize("kind", ["avx512", "avx2"])  # of whose tiles the 784 rows are a multiple
def test_a_thread_reads_the_rows_of_a_long_weight_that_it_has_updated(kind):
    """The first layer sums up in two parts; what follows is of rows of the batch again, and waits for nobody."""
    found = written(*classifier(), threads=2, target=Target.of_kind(kind))
    first, between, last = found.module.phases
    parts, (update,) = first[0], (p for p in last if p.task.kernel.extents[0] == 784)
    assert (parts.task.kernel.name, parts.task.kernel.batch) == ("matmul", (0,))
    for placed in (parts, update):  # half of the terms, half of the rows
        assert placed.split is None
        assert 2 * Split.of_units(placed.plan.units).first(1, 2) == placed.plan.units
    assert names(between) == ["sum_relu", "matmul_add", "amax_sum_gate_sub", "matmul_gate"]


def test_alone_or_together_a_step_computes_the_same():
    results = []
    for threads in (1, 2, 3):
        pool.set_num_threads(threads)
        try:
            step, x, labels = classifier()
            step = cr.compile(step)
            results.append([step(x, labels).item() for _ in range(20)])
        finally:
            pool.set_num_threads(pool.usable_cores())
    assert results[1] == results[0]
    assert results[2] == results[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_product_claims_what_the_kernel_behind_it_fills(threads):
    """The gradient of a hidden layer, which in training the other thread read a step before: sums are not in parts."""
    tasks = written(*page_step(batch=100), threads=threads).schedule.tasks
    claims = {t.kernel.name: t.kernel.claims for t in tasks if isinstance(t.kernel, Contract) and t.kernel.claims}
    if threads == 1:  # there is nobody else
        assert not claims
        return
    (gradient,) = claims["matmul_relu"]
    assert tasks[1].kernel.name == "sum_square_mul_gate"
    assert gradient in tasks[1].writes
    assert all(gradient not in t.writes for t in tasks[2:])


def test_a_product_claims_for_a_shallow_product_soon_after_it():
    """Ten classes are few multiply-adds for each entry of the hidden layer's gradient: the layer itself has more."""
    tasks = written(*classifier(inputs=120), threads=2).schedule.tasks
    (filling,) = (t for t in tasks if t.kernel.name == "matmul_gate")
    layer = tasks[0].kernel
    assert layer.name == "matmul_relu"
    assert set(layer.claims) == set(filling.writes)
    between = tasks[1 : tasks.index(filling)]
    assert len(between) > 1
    assert not any(b in t.reads | t.writes for t in between for b in layer.claims)


def test_nothing_is_claimed_that_is_too_large_for_a_cache_or_gone_from_it():
    """Of 1201 rows the gradient has 240 KB, of 3001 rows 600; two caches hold 512. Odd ones are not in two parts."""
    for rows, some in ((1201, True), (3001, False)):
        step = two_layers(rows, (784, 50, 10), F.cross_entropy, cr.tensor(np.arange(rows) % 10))
        tasks = written(*step, threads=2).schedule.tasks
        assert any(isinstance(t.kernel, Contract) and t.kernel.claims for t in tasks[:1]) == some


@given(st.integers(1, 500), st.integers(1, 60), st.integers(1, 9))
def test_shares_cover_all_rows_evenly(rows, height, threads):
    split = Split(rows=rows, height=height, each=1)
    firsts = [split.first(thread, threads) for thread in range(threads + 1)]
    assert firsts[0] == 0
    assert firsts[-1] == split.blocks
    assert firsts == sorted(firsts)
    for thread, first in enumerate(firsts[:-1]):
        assert abs(first * height - thread * rows / threads) <= height / 2


def test_the_code_of_a_share_says_the_same():
    split = Split(rows=203, height=8, each=1)
    b = Builder(host().vector_bytes, fma=host().has_fma)
    b.function("first", "i64 %t, i64 %n", lambda: b.ret(f"i64 {split.write_first(b, '%t', '%n')}"), "i64")
    code = engine.load(engine.compile_text(b.text(), host()))
    first = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(code.address("first"))
    for threads in range(1, 12):
        for thread in range(threads):
            assert first(thread, threads) == split.first(thread, threads)


# --- against a plain reading of what each unit touches


def span(offset, extents, fixed):
    """The first and the last element that an access may touch where some variables are fixed to ranges."""
    low = high = offset.constant
    for v, c in offset.terms:
        start, stop = fixed.get(v, (0, extents[v]))
        ends = (c * start, c * (stop - 1))
        low, high = low + min(ends), high + max(ends)
    return low, high


def accesses(task):
    kernel = task.kernel
    for e in walk(*values(kernel)):
        if isinstance(e, Load) and e.buffer.place != "private":
            yield e.buffer, e.offset, 0, False
        elif isinstance(e, Pick):
            yield e.buffer, e.offset, sum((n - 1) * s for _, n, s in e.indices), False
    for store in stores(kernel):
        if store.buffer.place != "private":
            yield store.buffer, store.offset, 0, True


def touched(placed, thread, threads, offsets):
    """(memory, first byte, last byte, is it written) of all that a thread touches in a task shared by rows."""
    rows = placed.plan.rows
    split = placed.split
    lo, hi = (min(split.first(t, threads) * split.each, placed.plan.units) for t in (thread, thread + 1))
    fixed = {0: (lo * rows.height, min(hi * rows.height, rows.number))}
    if lo == hi:
        return
    for buffer, offset, beyond, writes in accesses(placed.task):
        low, high = span(offset, placed.task.kernel.extents, fixed)
        size, base = buffer.dtype.itemsize, offsets.get(id(buffer), 0)
        memory = "arena" if buffer.place == "arena" else id(buffer)
        yield memory, base + low * size, base + (high + beyond + 1) * size - 1, writes


def conflicts(found, threads):
    """Pairs of tasks of one phase, shared by rows, of which different threads touch the same memory."""
    offsets = found.arena.offsets()
    for phase in found.module.phases:
        shared = [p for p in phase if p.split is not None]
        for one, other in itertools.combinations(shared, 2):
            for mine, yours in itertools.permutations(range(threads), 2):
                here, there = touched(one, mine, threads, offsets), touched(other, yours, threads, offsets)
                for a, b in itertools.product(here, there):
                    if a[0] == b[0] and (a[3] or b[3]) and a[1] <= b[2] and b[1] <= a[2]:
                        yield one.task.kernel.name, other.task.kernel.name, a, b


def in_order(found):
    """Does every task come after all earlier ones that it has something to do with, or beside them by right?"""
    where = {p.number: (i, n) for i, phase in enumerate(found.module.phases) for n, p in enumerate(phase)}
    tasks = found.schedule.tasks
    for first, second in itertools.combinations(range(len(tasks)), 2):
        a, b = tasks[first], tasks[second]
        if a.writes & (b.reads | b.writes) or a.reads & b.writes:
            assert where[first] < where[second], (a.kernel.name, b.kernel.name)
    assert sorted(where) == list(range(len(tasks)))


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("make", [page_step, classifier])
@on_all
def test_threads_touch_their_own_rows_only(make, threads, kind):
    found = written(*make(), threads=threads, target=Target.of_kind(kind))
    assert any(p.split is not None for phase in found.module.phases for p in phase)
    assert not list(conflicts(found, threads))
    in_order(found)


@given(programs(14))
def test_tasks_of_random_programs_come_in_order(program):
    seen = []

    def build(made):
        seen.append(write(optimised(made), threads=3))
        return seen[-1].native()

    inputs = program.tensors()
    cr.compile(program.value_and_gradients, build=build)(*inputs)
    for found in seen:
        in_order(found)
        assert not list(conflicts(found, 3))
