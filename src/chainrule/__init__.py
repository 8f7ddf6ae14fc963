"""chainrule: a neural-network library whose backward pass is an open book."""

import builtins as _builtins
import importlib as _importlib
import typing as _typing
from math import inf, nan, pi

from numpy import iinfo

from chainrule import nn, optim
from chainrule.array.arrangement import (
    broadcast_to,
    diag,
    diagonal,
    diff,
    dstack,
    hstack,
    masked_select,
    meshgrid,
    movedim,
    nonzero,
    ravel,
    repeat_interleave,
    roll,
    select,
    take_along_dim,
    tile,
    trace,
    unbind,
    unflatten,
    vstack,
)  # fmt: skip
from chainrule.array.asked import offer as _offer
from chainrule.array.elementwise import (
    abs,
    acos,
    acosh,
    add,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    ceil,
    clamp,
    clamp_max,
    clamp_min,
    clip,
    cos,
    cosh,
    div,
    eq,
    erf,
    exp,
    exp2,
    expm1,
    floor,
    floor_divide,
    ge,
    gt,
    isfinite,
    isinf,
    isnan,
    le,
    log,
    log1p,
    log2,
    log10,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    masked_fill,
    maximum,
    minimum,
    mul,
    ne,
    neg,
    pow,
    reciprocal,
    relu,
    remainder,
    round,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sinh,
    sqrt,
    square,
    sub,
    tan,
    tanh,
    trunc,
    where,
)  # fmt: skip
from chainrule.array.formulas import (
    addcdiv,
    addcmul,
    addmm,
    addmv,
    allclose,
    baddbmm,
    count_nonzero,
    deg2rad,
    einsum,
    equal,
    float_power,
    frac,
    isclose,
    lerp,
    logaddexp,
    logit,
    nan_to_num,
    nansum,
    positive,
    rad2deg,
    rsub,
    std_mean,
    tensordot,
    true_divide,
    var_mean,
)  # fmt: skip
from chainrule.array.indexing import gather, index_add, index_select, scatter_add
from chainrule.array.linear_algebra import bmm, dot, matmul, mm, mv, outer
from chainrule.array.manipulation import (
    broadcast_tensors,
    cat,
    chunk,
    concat,
    cumsum,
    flatten,
    flip,
    narrow,
    permute,
    reshape,
    split,
    squeeze,
    stack,
    swapaxes,
    t,
    transpose,
    tril,
    triu,
    unsqueeze,
)  # fmt: skip
from chainrule.array.statistical import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    argsort,
    log_softmax,
    logsumexp,
    max,
    mean,
    median,
    min,
    norm,
    prod,
    softmax,
    sort,
    std,
    sum,
    topk,
    var,
)  # fmt: skip
from chainrule.autodiff import autograd
from chainrule.autodiff.mode import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from chainrule.autodiff.transforms import grad, hessian, jacobian, jvp, value_and_grad, vjp
from chainrule.creation import (
    Generator,
    arange,
    as_tensor,
    asarray,
    bernoulli,
    empty,
    empty_like,
    eye,
    from_numpy,
    full,
    full_like,
    linspace,
    manual_seed,
    multinomial,
    normal,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
    tensor,
    zeros,
    zeros_like,
)  # fmt: skip
from chainrule.dtypes import (
    bfloat16,
    bool_,
    finfo,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)  # fmt: skip
from chainrule.function import Function
from chainrule.tensor import Tensor

if _typing.TYPE_CHECKING:  # what _AT_FIRST_USE says, for type checkers and editors
    from chainrule import data, train
    from chainrule.compile.cache import clear_cache
    from chainrule.compile.jit import compile
    from chainrule.compile.llvm.pool import get_num_threads, set_num_threads
    from chainrule.compile.machine import machine
    from chainrule.explain.explanation import Explanation, check, explain
    from chainrule.explain.source import backward_source
    from chainrule.train.learner import Learner

__version__ = "0.1.0"

# Names that a program may never ask for: where each is found when one does. They took more than half of the time of
# `import chainrule`. This table is the one place in the library that loads late; a module itself has no colon.
_AT_FIRST_USE = {
    "data": "chainrule.data",
    "train": "chainrule.train",
    "clear_cache": "chainrule.compile.cache:clear_cache",
    "compile": "chainrule.compile.jit:compile",
    "get_num_threads": "chainrule.compile.llvm.pool:get_num_threads",
    "set_num_threads": "chainrule.compile.llvm.pool:set_num_threads",
    "machine": "chainrule.compile.machine:machine",
    "Explanation": "chainrule.explain.explanation:Explanation",
    "check": "chainrule.explain.explanation:check",
    "explain": "chainrule.explain.explanation:explain",
    "backward_source": "chainrule.explain.source:backward_source",
    "Learner": "chainrule.train.learner:Learner",
}

# `compile` and `explain` are functions here and packages on the disk. The import system binds a package to its name
# when it loads it, then never again: so these two, which are empty, are loaded now, and their names freed.
for _name in ("compile", "explain"):
    _importlib.import_module(f"{__name__}.{_name}")
    del globals()[_name]


def _first_use(name: str) -> object:
    """A name at its first use (PEP 562): its module is loaded, and what was found is kept."""
    if name not in _AT_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place, _, attribute = _AT_FIRST_USE[name].partition(":")
    module = _importlib.import_module(place)
    globals()[name] = value = getattr(module, attribute) if attribute else module
    return value


if not _typing.TYPE_CHECKING:  # a checker that saw it would take any name for given
    __getattr__ = _first_use


def __dir__() -> list[str]:
    return sorted({*globals(), *_AT_FIRST_USE})


_offer(globals(), __name__)


def is_tensor(value: object) -> _builtins.bool:
    """Is this a tensor?"""
    return isinstance(value, Tensor)


# PyTorch's other names for dtypes. Those that are Python's too are left out of `__all__`, so that `float(…)` is what it
# was after `from chainrule import *`.
double, half, long = float64, float16, int64
float, int, bool = float32, int32, bool_

__all__ = [
    "data", "nn", "optim", "train",
    "broadcast_to", "diag", "diagonal", "diff", "dstack", "hstack", "masked_select", "meshgrid", "movedim",
    "nonzero", "ravel", "repeat_interleave", "roll", "select", "take_along_dim", "tile", "trace", "unbind", "unflatten",
    "vstack",
    "abs", "acos", "acosh", "add", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and", "bitwise_not",
    "bitwise_or", "bitwise_xor", "ceil", "clamp", "clamp_max", "clamp_min", "clip", "cos", "cosh", "div", "eq", "erf",
    "exp", "exp2", "expm1", "floor", "floor_divide", "ge", "gt", "isfinite", "isinf", "isnan", "le", "log", "log1p",
    "log2", "log10", "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "masked_fill", "maximum",
    "minimum", "mul", "ne", "neg", "pow", "reciprocal", "relu", "remainder", "round", "rsqrt", "sigmoid", "sign",
    "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh", "trunc", "where",
    "addcdiv", "addcmul", "addmm", "addmv", "allclose", "baddbmm", "count_nonzero", "deg2rad", "einsum", "equal",
    "float_power", "frac", "isclose", "lerp", "logaddexp", "logit", "nan_to_num", "nansum", "positive", "rad2deg",
    "rsub", "std_mean", "tensordot", "true_divide", "var_mean",
    "gather", "index_add", "index_select", "scatter_add",
    "bmm", "dot", "matmul", "mm", "mv", "outer",
    "broadcast_tensors", "cat", "chunk", "concat", "cumsum", "flatten", "flip", "narrow", "permute", "reshape", "split",
    "squeeze", "stack", "swapaxes", "t", "transpose", "tril", "triu", "unsqueeze",
    "all", "amax", "amin", "any", "argmax", "argmin", "argsort", "log_softmax", "logsumexp", "max", "mean", "median",
    "min", "norm", "prod", "softmax", "sort", "std", "sum", "topk", "var",
    "grad", "hessian", "jacobian", "jvp", "value_and_grad", "vjp",
    "Generator", "arange", "as_tensor", "asarray", "bernoulli", "empty", "empty_like", "eye", "from_numpy", "full",
    "full_like", "linspace", "manual_seed", "multinomial", "normal", "ones", "ones_like", "rand", "rand_like",
    "randint", "randn", "randn_like", "randperm", "tensor", "zeros", "zeros_like",
    "double", "finfo", "half", "iinfo", "inf", "is_tensor", "long", "nan", "pi",
    "bfloat16", "bool_", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint32", "uint64",
    "Explanation", "check", "explain",
    "backward_source",
    "compile", "clear_cache", "get_num_threads", "machine", "set_num_threads",
    "Function",
    "Tensor", "enable_grad", "is_grad_enabled", "no_grad", "set_grad_enabled", "autograd",
    "Learner",
]  # fmt: skip
