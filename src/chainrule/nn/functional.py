"""`cr.nn.functional`, as in PyTorch: the composites of `chainrule.functional` under the name that users know."""

# ruff: noqa: I001 - one name a line would make two pages of it

from __future__ import annotations

from chainrule.array.asked import offer
from chainrule.functional.activations import (
    elu, gelu, hardsigmoid, hardswish, hardtanh, leaky_relu, log_softmax, logsigmoid, mish, prelu, relu, relu6, selu,
    sigmoid, silu, softmax, softmin, softplus, softsign, tanh, tanhshrink,
)  # fmt: skip
from chainrule.functional.attention import scaled_dot_product_attention
from chainrule.functional.convolution import conv1d, conv2d, overlap_add, windows
from chainrule.functional.distance import cosine_similarity, normalize
from chainrule.functional.linear import dropout, embed, embedding, linear, one_hot, pad
from chainrule.functional.losses import (
    binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy, huber_loss, kl_div, l1_loss, mse_loss,
    nll_loss, smooth_l1_loss,
)  # fmt: skip
from chainrule.functional.normalisation import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from chainrule.functional.pooling import adaptive_avg_pool2d, avg_pool1d, avg_pool2d, max_pool1d, max_pool2d

__all__ = [
    "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_softmax", "logsigmoid", "mish", "prelu",
    "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softmin", "softplus", "softsign", "tanh", "tanhshrink",
    "scaled_dot_product_attention",
    "conv1d", "conv2d", "overlap_add", "windows",
    "cosine_similarity", "normalize",
    "dropout", "embed", "embedding", "linear", "one_hot", "pad",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "huber_loss", "kl_div", "l1_loss",
    "mse_loss", "nll_loss", "smooth_l1_loss",
    "batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm",
    "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d",
]  # fmt: skip

offer(globals(), __name__)
