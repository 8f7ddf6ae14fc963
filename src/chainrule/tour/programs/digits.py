"""A classifier of handwritten digits, from layers and a Learner.

python digits.py [--epochs N] [--seed N]
"""

import argparse

import chainrule as cr

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

cr.manual_seed(options.seed)
data = cr.data.load_digits(seed=options.seed).standardized()

model = cr.nn.Sequential(
    cr.nn.Linear(64, 64),
    cr.nn.ReLU(),
    cr.nn.Linear(64, 10),
)
learner = cr.Learner(
    model,
    data.loaders(batch_size=64, seed=options.seed),
    cr.nn.CrossEntropyLoss(),
    cr.optim.Adam,
    lr=0.003,
    metrics=[cr.train.accuracy],
)
learner.fit(options.epochs)
