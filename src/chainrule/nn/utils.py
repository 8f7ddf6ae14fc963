"""`cr.nn.utils`, as in PyTorch, which gave it the name: what to do to gradients before a step."""

from __future__ import annotations

from chainrule.nn.clip import clip_grad_norm_, clip_grad_value_

__all__ = ["clip_grad_norm_", "clip_grad_value_"]
