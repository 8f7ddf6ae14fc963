"""chainrule: a neural-network library whose backward pass is an open book."""

from chainrule import data, nn, optim, train
from chainrule.array.arrangement import (
    broadcast_to, diag, diagonal, diff, dstack, hstack, masked_select, meshgrid, movedim, nonzero, ravel, roll, select,
    take_along_dim, tile, trace, unbind, unflatten, vstack,
)  # fmt: skip
from chainrule.array.elementwise import (
    abs, acos, acosh, add, asin, asinh, atan, atan2, atanh, bitwise_and, bitwise_not, bitwise_or, bitwise_xor, ceil, clamp,
    clamp_max, clamp_min, cos, cosh, div, eq, erf, exp, exp2, expm1, floor, floor_divide, ge, gt, isfinite, isinf, isnan, le,
    log, log1p, log2, log10, logical_and, logical_not, logical_or, logical_xor, lt, masked_fill, maximum, minimum, mul, ne,
    neg, pow, reciprocal, relu, remainder, round, rsqrt, sigmoid, sign, sin, sinh, sqrt, square, sub, tan, tanh, trunc, where,
)  # fmt: skip
from chainrule.array.formulas import (
    addcdiv, addcmul, addmm, addmv, allclose, baddbmm, count_nonzero, deg2rad, einsum, float_power, frac, isclose, lerp, logaddexp,
    logit, nansum, positive, rad2deg, rsub, std_mean, tensordot, true_divide, var_mean,
)  # fmt: skip
from chainrule.array.indexing import gather, index_add, index_select, scatter_add
from chainrule.array.linear_algebra import bmm, dot, matmul, mm, mv, outer
from chainrule.array.manipulation import (
    broadcast_tensors, cat, chunk, cumsum, flatten, flip, narrow, permute, reshape, split, squeeze, stack, t, transpose, tril,
    triu, unsqueeze,
)  # fmt: skip
from chainrule.array.statistical import (
    all, amax, amin, any, argmax, argmin, argsort, log_softmax, logsumexp, max, mean, min, norm, prod, softmax, sort, std,
    sum, topk, var,
)  # fmt: skip
from chainrule.autodiff.transforms import grad, hessian, jacobian, jvp, value_and_grad, vjp
from chainrule.creation import (
    Generator, arange, asarray, bernoulli, eye, from_numpy, full, full_like, linspace, manual_seed, ones, ones_like, rand,
    rand_like, randint, randn, randn_like, randperm, tensor, zeros, zeros_like,
)  # fmt: skip
from chainrule.dtypes import (
    bfloat16, bool_, float16, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64,
)  # fmt: skip
from chainrule.explain.explanation import Explanation, check, explain
from chainrule.explain.source import backward_source
from chainrule.function import Function
from chainrule.tensor import Tensor, enable_grad, is_grad_enabled, no_grad
from chainrule.train.learner import Learner

__version__ = "0.1.0"

__all__ = [
    "data", "nn", "optim", "train",
    "broadcast_to", "diag", "diagonal", "diff", "dstack", "hstack", "masked_select", "meshgrid", "movedim",
    "nonzero", "ravel", "roll", "select", "take_along_dim", "tile", "trace", "unbind", "unflatten", "vstack",
    "abs", "acos", "acosh", "add", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and", "bitwise_not",
    "bitwise_or", "bitwise_xor", "ceil", "clamp", "clamp_max", "clamp_min", "cos", "cosh", "div", "eq", "erf",
    "exp", "exp2", "expm1", "floor", "floor_divide", "ge", "gt", "isfinite", "isinf", "isnan", "le", "log", "log1p",
    "log2", "log10", "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "masked_fill", "maximum",
    "minimum", "mul", "ne", "neg", "pow", "reciprocal", "relu", "remainder", "round", "rsqrt", "sigmoid", "sign",
    "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh", "trunc", "where",
    "addcdiv", "addcmul", "addmm", "addmv", "allclose", "baddbmm", "count_nonzero", "deg2rad", "einsum",
    "float_power", "frac", "isclose", "lerp", "logaddexp", "logit", "nansum", "positive", "rad2deg", "rsub",
    "std_mean", "tensordot", "true_divide", "var_mean",
    "gather", "index_add", "index_select", "scatter_add",
    "bmm", "dot", "matmul", "mm", "mv", "outer",
    "broadcast_tensors", "cat", "chunk", "cumsum", "flatten", "flip", "narrow", "permute", "reshape", "split",
    "squeeze", "stack", "t", "transpose", "tril", "triu", "unsqueeze",
    "all", "amax", "amin", "any", "argmax", "argmin", "argsort", "log_softmax", "logsumexp", "max", "mean", "min",
    "norm", "prod", "softmax", "sort", "std", "sum", "topk", "var",
    "grad", "hessian", "jacobian", "jvp", "value_and_grad", "vjp",
    "Generator", "arange", "asarray", "bernoulli", "eye", "from_numpy", "full", "full_like", "linspace",
    "manual_seed", "ones", "ones_like", "rand", "rand_like", "randint", "randn", "randn_like", "randperm", "tensor",
    "zeros", "zeros_like",
    "bfloat16", "bool_", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint32", "uint64",
    "Explanation", "check", "explain",
    "backward_source",
    "Function",
    "Tensor", "enable_grad", "is_grad_enabled", "no_grad",
    "Learner",
]  # fmt: skip
