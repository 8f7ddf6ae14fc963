"""Checkpoints: a model's and an optimiser's state in one .npz file, written whole or not at all.

Arrays lie under `model/…` and `optimizer/…`, everything else as JSON under `meta`. No pickle is written or read:
loading a file of unknown origin runs no code of it.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.array.align import value_of
from chainrule.core.node import at_user_line
from chainrule.errors import ArgumentError, DataError
from chainrule.nn.module import Module
from chainrule.optim.base import Optimizer

_FORMAT = 1


def save_checkpoint(
    path: str | Path, model: Module, optimizer: Optimizer | None = None, extra: Mapping[str, Any] | None = None
) -> Path:
    """Write the state of a model, and of an optimiser, to `path`.

    The file is written beside its place and moved there when it is complete: a crash leaves the old one.

    Args:
        path: where to; conventionally ending in .npz.
        model: its `state_dict`.
        optimizer: its `state_dict`.
        extra: anything that JSON can say: an epoch, a metric.
    Returns: the path.
    Raises: ArgumentError: `extra` is not JSON. OSError: the place cannot be written to.
    """
    target = Path(path)
    arrays: dict[str, np.ndarray] = {}
    meta: dict[str, Any] = {"format": _FORMAT, "extra": dict(extra or {}), "bfloat16": [], "optimizer": None}
    for name, tensor in model.state_dict().items():
        _put(arrays, meta, f"model/{name}", value_of(tensor, "save"))
    if optimizer is not None:
        state = optimizer.state_dict()
        plain: dict[str, dict[str, Any]] = {}
        for number, entries in state["state"].items():
            plain[str(number)] = {}
            for key, value in entries.items():
                if isinstance(value, np.ndarray):
                    _put(arrays, meta, f"optimizer/{number}/{key}", value)
                else:
                    plain[str(number)][key] = value
        meta["optimizer"] = {"kind": type(optimizer).__name__, "param_groups": state["param_groups"], "state": plain}
    try:
        text = json.dumps(meta)
    except (TypeError, ValueError) as error:
        raise at_user_line(ArgumentError(f"save_checkpoint: extra must be what JSON can say: {error}")) from None
    arrays["meta"] = np.frombuffer(text.encode(), np.uint8)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    return target


def load_checkpoint(path: str | Path, model: Module, optimizer: Optimizer | None = None) -> dict[str, Any]:
    """Read back what `save_checkpoint` wrote, into a model (and an optimiser) of the same build.

    Args:
        path: the file.
        model: takes over the values.
        optimizer: takes over the state; the file must hold one of the same kind.
    Returns: the `extra` that was saved.
    Raises: DataError: the file is missing, damaged, or no checkpoint. ArgumentError, ShapeError: it is of another model
        or optimiser. Then nothing is changed.
    """
    source = Path(path)
    try:
        with source.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        meta = json.loads(arrays.pop("meta").tobytes())
    except FileNotFoundError:
        raise at_user_line(DataError(f"load_checkpoint: there is no file {source}")) from None
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise at_user_line(DataError(
            f"load_checkpoint: {source} is damaged or no checkpoint of this library ({type(error).__name__}: {error})"
        )) from None  # fmt: skip
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        raise at_user_line(DataError(f"load_checkpoint: {source} is no checkpoint of format {_FORMAT}"))
    for name in meta["bfloat16"]:
        arrays[name] = arrays[name].view(dtypes.bfloat16)
    before = {name: np.array(value_of(tensor, "load")) for name, tensor in model.state_dict().items()}
    model.load_state_dict({n.removeprefix("model/"): a for n, a in arrays.items() if n.startswith("model/")})
    if optimizer is not None:
        try:
            optimizer.load_state_dict(_optimizer_state(source, meta["optimizer"], arrays, type(optimizer).__name__))
        except BaseException:
            model.load_state_dict(before)
            raise
    extra: dict[str, Any] = meta["extra"]
    return extra


def _put(arrays: dict[str, np.ndarray], meta: dict[str, Any], name: str, array: np.ndarray) -> None:
    if array.dtype == dtypes.bfloat16:  # NumPy's file format has no name for it
        meta["bfloat16"].append(name)
        array = array.view(np.uint16)
    arrays[name] = array


def _optimizer_state(source: Path, saved: Any, arrays: Mapping[str, np.ndarray], kind: str) -> dict[str, Any]:
    if saved is None:
        raise at_user_line(
            ArgumentError(f"load_checkpoint: {source} was saved without an optimiser; load the model alone")
        )
    if saved["kind"] != kind:
        raise at_user_line(
            ArgumentError(f"load_checkpoint: {source} holds the state of {saved['kind']}, not of {kind}")
        )
    state: dict[int, dict[str, Any]] = {int(n): dict(entries) for n, entries in saved["state"].items()}
    for name, array in arrays.items():
        if name.startswith("optimizer/"):
            _, number, key = name.split("/", 2)
            state[int(number)][key] = array
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in saved["param_groups"]]
    return {"state": state, "param_groups": groups}
