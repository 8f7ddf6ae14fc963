"""Every error a user can meet, one tree. A message says what was expected, what arrived, and what to do.

ChainruleError
├── ShapeError (ValueError)             shapes that do not fit
├── DTypeError (TypeError)              dtypes that do not fit
├── ArgumentError (ValueError)          any other argument outside its documented range
│   └── OutOfRangeError (IndexError)    a dimension or an index that does not exist
├── GradientError (RuntimeError)        a gradient that was asked for and cannot be given
│   ├── NotScalarError                  backward() of a non-scalar without a cotangent
│   ├── NoGradientError                 backward() of a constant
│   ├── DisconnectedError               the loss does not depend on that tensor; says where the link broke
│   └── StaleValueError                 a value that the backward pass needs was changed in place
├── InPlaceError (RuntimeError)         an in-place update of something that is not a free leaf
├── SymbolicValueError (RuntimeError)   the number behind a symbol was asked for
├── TraceError (RuntimeError)           a function that cannot be compiled as it is written
├── DerivativeRuleError (RuntimeError)  a derivative rule broke its contract (ours, or a user's cr.Function)
├── ProgramError (RuntimeError)         a program to be compiled is not sound (ours; names the pass that left it so)
├── OutOfMemoryError (MemoryError)      a compiled step needs more memory than there is
├── DataError (ValueError)              data that cannot be trained on
├── TrainingError (RuntimeError)        a training run that cannot go on: its loss is not a finite scalar
├── MissingExtraError (ImportError)     an optional dependency that is not installed
└── ScriptError (RuntimeError)          a script given to the command line that cannot be explained

RetraceWarning (UserWarning)            a compiled function is traced again and again
NotCompiledWarning (UserWarning)        a step that could not be compiled runs eagerly
"""

from __future__ import annotations


class ChainruleError(Exception):
    """Base of every error this library raises on purpose."""


class ShapeError(ChainruleError, ValueError):
    """The shapes of an op's inputs do not fit its shape rule."""


class DTypeError(ChainruleError, TypeError):
    """The dtypes of an op's inputs do not fit its rule."""


class ArgumentError(ChainruleError, ValueError):
    """An argument lies outside its documented range."""


class OutOfRangeError(ArgumentError, IndexError):
    """A dimension or an index that does not exist."""


class GradientError(ChainruleError, RuntimeError):
    """A gradient was asked for and cannot be given."""


class NotScalarError(GradientError):
    """`backward()` on a tensor with more than one element needs a cotangent."""


class NoGradientError(GradientError):
    """`backward()` on a tensor that no differentiable leaf leads to."""


class DisconnectedError(GradientError):
    """The output does not depend on the tensor that was asked about."""


class StaleValueError(GradientError):
    """A value that the backward pass needs was changed in place after the forward pass."""


class InPlaceError(ChainruleError, RuntimeError):
    """An in-place update of a tensor that is not a leaf, or of a leaf that is being recorded."""


class SymbolicValueError(ChainruleError, RuntimeError):
    """The number behind a symbol was asked for: symbols have a shape and a dtype, but no value."""


class TraceError(ChainruleError, RuntimeError):
    """A function cannot be compiled as it is written: `cr.compile` runs it once, and keeps the ops it applied."""


class DerivativeRuleError(ChainruleError, RuntimeError):
    """A derivative rule returned the wrong number of cotangents, or one of the wrong shape or dtype."""


class ProgramError(ChainruleError, RuntimeError):
    """A program to be compiled is not sound: a node is not what its op's rule says, a leaf stands for nothing."""


class OutOfMemoryError(ChainruleError, MemoryError):
    """A compiled step needs more memory than there is."""


class DataError(ChainruleError, ValueError):
    """Data that cannot be trained on: empty, of unequal lengths, or not finite where it must be."""


class TrainingError(ChainruleError, RuntimeError):
    """A training run that cannot go on: the loss is no scalar, or no longer finite."""


class MissingExtraError(ChainruleError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class ScriptError(ChainruleError, RuntimeError):
    """A script given to the command line that is missing, fails, or never calls `backward()`."""


class RetraceWarning(UserWarning):
    """A compiled function was traced many times: something that it takes for granted changes from call to call."""


class NotCompiledWarning(UserWarning):
    """A step that could not be compiled runs eagerly."""
