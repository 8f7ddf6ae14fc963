"""The page's program, unchanged but for the import."""

from math import sqrt

import chainrule as cr

cr.manual_seed(42)
x, y = cr.randn(200, 100), cr.randn(200)
w1 = (cr.randn(100, 50) * sqrt(2 / 100)).requires_grad_()
b1 = cr.zeros(50, requires_grad=True)
w2 = (cr.randn(50, 1) * sqrt(2 / 50)).requires_grad_()
b2 = cr.zeros(1, requires_grad=True)


# fmt: off
def lin(x, w, b): return x @ w + b
def relu(x): return x.clamp_min(0.)
def mse(output, targ): return (output.squeeze(-1) - targ).pow(2).mean()
# fmt: on


l1 = lin(x, w1, b1)
l2 = relu(l1)
out = lin(l2, w2, b2)
loss = mse(out, y)
loss.backward()
