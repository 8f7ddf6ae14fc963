"""Programs compiled for AArch64: complete in themselves; and where QEMU is installed, run, and right.

To run them: `apt-get install qemu-user binutils-aarch64-linux-gnu`. `.ci/run` does where it may.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from emulated import MISSING, Emulated, read_object
from equality import arrays, assert_equal, quietly

import chainrule as cr
from chainrule.compile.jit import Compiled
from chainrule.compile.llvm import engine, runtime
from chainrule.compile.llvm.target import aarch64
from chainrule.compile.pipeline import optimised
from chainrule.compile.writing import Written, write

F = cr.nn.functional
CLOSE = 2e-5  # of float32, relative to the largest entry: sums of some hundred terms in another order

needs_qemu = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not found; apt-get install qemu-user binutils-aarch64-linux-gnu"
)

Step = tuple[Callable[..., Any], list[cr.Tensor]]


def drawn(*shape: int, dtype: Any = cr.float32) -> cr.Tensor:
    return cr.randn(*shape).to(dtype)


def training() -> Step:
    """A net of two layers and its SGD step; the parameters change in place."""
    model = cr.nn.Sequential(cr.nn.Linear(13, 19), cr.nn.ReLU(), cr.nn.Linear(19, 3))
    optimizer = cr.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return [loss, *model.parameters()]

    return step, [drawn(37, 13), drawn(37, 3)]


def adam() -> Step:
    """A wider net with Adam and a cross-entropy of softmax: enough work to be shared by threads."""
    model = cr.nn.Sequential(cr.nn.Linear(70, 65), cr.nn.GELU(), cr.nn.Linear(65, 10))
    optimizer = cr.optim.Adam(model.parameters(), lr=0.01)
    labels = cr.tensor(np.arange(90) % 10)

    def step(x):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return [loss, *model.parameters()]

    return step, [drawn(90, 70)]


def cross_entropy() -> Step:
    labels = cr.tensor(np.arange(33) % 11)
    return lambda x: cr.value_and_grad(lambda x: F.cross_entropy(x, labels))(x), [drawn(33, 11) * 4]


def attention() -> Step:
    block = cr.nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True)
    norm = cr.nn.LayerNorm(16)

    def gradients(x):
        block.zero_grad()
        loss = block(norm(x)).square().mean()
        loss.backward()
        return loss, [p.grad for p in block.parameters()]

    return gradients, [drawn(2, 9, 16)]


def convolution() -> Step:
    weight, bias = drawn(5, 3, 3, 3), drawn(5)

    def loss(x, weight, bias):
        return F.max_pool2d(F.relu(F.conv2d(x, weight, bias, padding=1)), 2).square().mean()

    return cr.value_and_grad(loss, argnums=(0, 1, 2)), [drawn(3, 3, 11, 10), weight, bias]


def dropout() -> Step:
    return lambda x: (F.dropout(x, 0.3), cr.randn(7, 5), cr.rand(33)), [drawn(31, 17)]


def elementary() -> Step:
    def values(x):
        y = x.abs() + 0.1
        found = [x.exp(), x.sin(), x.cos(), x.tan(), x.tanh(), x.erf(), x.sigmoid(), x.expm1(), x.atan(), x.sinh()]
        return [*found, y.log(), y.log1p(), y.sqrt(), y.rsqrt(), y**x, y**1.7, x.floor(), x.round(), x.trunc()]

    return values, [drawn(53) * 3]


def arranged() -> Step:
    """Orders, sums along the way, places: what is no loop over independent entries."""
    rows = cr.tensor(np.arange(40) * 7 % 23)

    def values(x):
        ordered = x.sort(dim=1)
        taken = x.index_select(0, rows)
        added = cr.zeros(23, 9).index_add(0, rows, taken)
        return [*ordered, x.cumsum(0), x.argmax(1), x.std(0), added, x.flip(0), (x > 0).any(0)]

    return values, [drawn(23, 9)]


def halves() -> Step:
    return lambda x, y: (x @ x.mT, (y * 3 + 1).sum(0), y.tanh()), [
        drawn(9, 7, dtype=cr.float16),
        drawn(5, 21, dtype=cr.bfloat16),
    ]


CASES = [training, adam, cross_entropy, attention, convolution, dropout, elementary, arranged, halves]


def compiled(case: Callable[[], Step], run: Callable[[Written], Any]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What a case gives as `run` runs what was written of it for AArch64, and what it gives eagerly."""
    cr.manual_seed(3)
    function, args = case()
    program = Compiled(function, build=lambda p: run(write(optimised(p), aarch64(), threads=2)))
    found = arrays(program(*args))
    cr.manual_seed(3)
    function, args = case()
    return found, quietly(function, *args)


class Seen(Exception):
    """Ends a call that is not to be run."""


@pytest.mark.parametrize("case", CASES)
def test_the_code_is_for_this_machine_and_calls_nobody(case):
    def look(written: Written) -> Any:
        assert written.recipe.parallel or case is not adam
        assert read_object(written.recipe.code) == (183, [])
        raise Seen

    with pytest.raises(Seen):
        compiled(case, look)


def test_the_code_of_the_pool_calls_nobody():
    target = aarch64()
    assert read_object(engine.compile_text(runtime.runtime_text(target), target)) == (183, [])


def test_a_call_of_the_library_would_be_found():
    text = "declare float @expf(float)\ndefine float @f(float %x) { %y = call float @expf(float %x)\n ret float %y }"
    assert read_object(engine.compile_text(text, aarch64())) == (183, ["expf"])


@needs_qemu
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_run_by_the_emulator_it_is_what_it_is_here(case, threads, tmp_path):
    found, wanted = compiled(case, lambda written: Emulated(written, tmp_path, threads))
    assert len(found) == len(wanted)
    for number, (f, w) in enumerate(zip(found, wanted, strict=True)):
        size = float(np.abs(w.astype(np.float64)).max(initial=1.0))
        assert_equal(f, w, f"result {number}", size, CLOSE if w.dtype == np.float32 else None)
