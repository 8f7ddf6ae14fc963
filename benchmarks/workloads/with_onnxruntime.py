"""ONNX Runtime: the net as an ONNX graph, written node by node from the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper

from workloads.problems import CLASSES, Job, Problem, Running


def inference(job: Job) -> Running:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(graph(job.problem, job.weights), options, providers=["CPUExecutionProvider"])
    return Running(lambda x: session.run(None, {"x": x}), [(x,) for x, _ in job.batches], lambda results: results[0])


def graph(problem: Problem, weights: list[np.ndarray]) -> bytes:
    """The model, serialised."""
    values = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    nodes: list[Any] = []

    def node(kind: str, *weights: str, **attributes: object) -> None:
        before, after = f"h{len(nodes)}" if nodes else "x", f"h{len(nodes) + 1}"
        nodes.append(helper.make_node(kind, [before, *weights], [after], **attributes))

    dense_from = 0
    if problem.net == "lenet":
        dense_from = 4
        for first, padding in ((0, 2), (2, 0)):
            node("Conv", f"w{first}", f"w{first + 1}", pads=[padding] * 4)
            node("Relu")
            node("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        node("Flatten")
    for i in range(dense_from, len(weights), 2):
        node("Gemm", f"w{i}", f"w{i + 1}")
        if i < len(weights) - 2:
            node("Relu")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, problem.shape)
    out = helper.make_tensor_value_info(f"h{len(nodes)}", TensorProto.FLOAT, (problem.shape[0], CLASSES))
    # Of 2021 and 2022: every version that is in use reads these.
    model = helper.make_model(
        helper.make_graph(nodes, problem.net, [x], [out], values),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    checker.check_model(model)
    return model.SerializeToString()
