"""Layers: modules with parameters, and the functions they are made of. PyTorch's names."""

# ruff: noqa: I001 - one name a line would make two pages of it

from chainrule.nn import functional, init, utils
from chainrule.nn.activations import (
    ELU, GELU, SELU, Hardsigmoid, Hardswish, Hardtanh, LeakyReLU, LogSigmoid, LogSoftmax, Mish, PReLU, ReLU, ReLU6,
    Sigmoid, SiLU, Softmax, Softplus, Softsign, Tanh, Tanhshrink,
)  # fmt: skip
from chainrule.nn.attention import MultiheadAttention, TransformerEncoderLayer
from chainrule.nn.batch_normalisation import BatchNorm1d, BatchNorm2d, BatchNorm3d, InstanceNorm1d, InstanceNorm2d
from chainrule.nn.containers import ModuleDict, ModuleList, Sequential
from chainrule.nn.convolution import (
    AdaptiveAvgPool2d, AvgPool1d, AvgPool2d, Conv1d, Conv2d, MaxPool1d, MaxPool2d,
)  # fmt: skip
from chainrule.nn.linear import Dropout, Embedding, Flatten, Identity, Linear, Unflatten
from chainrule.nn.losses import (
    BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, KLDivLoss, L1Loss, MSELoss, NLLLoss, SmoothL1Loss,
)  # fmt: skip
from chainrule.nn.module import Module
from chainrule.nn.normalisation import GroupNorm, LayerNorm, RMSNorm
from chainrule.nn.parameter import Parameter
from chainrule.nn.recurrent import GRU, GRUCell, LSTM, LSTMCell, RNN, RNNCell

__all__ = [
    "Module", "Parameter", "functional", "init", "utils",
    "ModuleDict", "ModuleList", "Sequential",
    "Dropout", "Embedding", "Flatten", "Identity", "Linear", "Unflatten",
    "AdaptiveAvgPool2d", "AvgPool1d", "AvgPool2d", "Conv1d", "Conv2d", "MaxPool1d", "MaxPool2d",
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "LayerNorm",
    "RMSNorm",
    "MultiheadAttention", "TransformerEncoderLayer",
    "GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNCell",
    "ELU", "GELU", "SELU", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid", "LogSoftmax", "Mish",
    "PReLU", "ReLU", "ReLU6", "SiLU", "Sigmoid", "Softmax", "Softplus", "Softsign", "Tanh", "Tanhshrink",
    "BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "HuberLoss", "KLDivLoss", "L1Loss", "MSELoss", "NLLLoss",
    "SmoothL1Loss",
]  # fmt: skip
