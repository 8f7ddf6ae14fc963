"""Two linear layers, a ReLU, a mean squared error, in plain functions; trained by hand on 354 patients.

python diabetes.py [--epochs N] [--seed N]
"""

import argparse
import time
from math import sqrt

import chainrule as cr
from chainrule.train.progress import chosen

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

cr.manual_seed(options.seed)
data = cr.data.load_diabetes(seed=options.seed).standardized(target=True)
batches, _ = data.loaders(batch_size=64, seed=options.seed)

w1 = (cr.randn(10, 50) * sqrt(2 / 10)).requires_grad_()
b1 = cr.zeros(50, requires_grad=True)
w2 = (cr.randn(50, 1) * sqrt(2 / 50)).requires_grad_()
b2 = cr.zeros(1, requires_grad=True)


def lin(x, w, b):
    return x @ w + b


def relu(x):
    return x.clamp_min(0.0)


def mse(output, targ):
    return (output.squeeze(-1) - targ).pow(2).mean()


def predict(x):
    with cr.no_grad():
        return lin(relu(lin(x, w1, b1)), w2, b2)


lr, losses = 0.02, []
bar = chosen(None)
bar.begin(("epoch", "train_loss", "valid_loss", "time"), options.epochs, len(batches))
for epoch in range(1, options.epochs + 1):
    started = time.perf_counter()
    for batch, (x, y) in enumerate(batches, 1):
        l1 = lin(x, w1, b1)
        l2 = relu(l1)
        out = lin(l2, w2, b2)
        loss = mse(out, y)
        loss.backward()
        with cr.no_grad():
            for p in (w1, b1, w2, b2):
                p -= lr * p.grad
                p.grad = None
        losses.append(loss.item())
        bar.batch(epoch, batch, losses[-1])
    valid_loss = mse(predict(data.x_valid), data.y_valid).item()
    train_loss = sum(losses[-len(batches) :]) / len(batches)
    bar.row({"epoch": epoch, "train_loss": train_loss, "valid_loss": valid_loss, "time": time.perf_counter() - started})
bar.end()
