"""The benchmarks start: what they import is where they look for it, and what they time computes what it should."""

import dataclasses
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
BENCHMARKS = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_benchmarks_find_what_they_import(path, load):
    assert callable(load(path).main)


@pytest.mark.parametrize("form", ["AB", "AᵀB", "ABᵀ"])
def test_a_product_is_that_of_numpy_before_it_is_timed(form, load):
    products = load(FOLDER / "products.py")
    case = products.product(60, 50, 40, form)
    for contender in case.contenders.values():
        contender(2)


def test_a_batch_and_a_convolution_are_those_of_pytorch(load):
    products = load(FOLDER / "products.py")
    products.batch("q kᵀ", "bik,bjk->bij", 3, 20, 10, 8)
    for what in ("forward", "weights"):
        for layout in ("NCHW", "CHWN"):
            products.convolution("2→3", 2, 3, 9, what, layout)


@pytest.mark.parametrize("name", ["g", "h"])
def test_a_net_of_the_contenders_is_one(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from workloads import problems, with_chainrule, with_torch

    problem = problems.ALL[name]
    if problem.net == "recurrent":
        problem = dataclasses.replace(problem, shape=(5, 4, 16))
    losses = []
    for module, variant in ((with_torch, "eager"), (with_chainrule, "eager"), (with_chainrule, "compiled")):
        job = problems.Job(problem, problems.weights(problem), problems.batches(problem, 2), variant, 1)
        running = module.training(job)
        losses.append([float(running.finish(running.call(*given))) for given in running.inputs * 2])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)


def test_an_unrolled_lstm_is_pytorchs(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from workloads import nets, problems, with_torch

    problem = dataclasses.replace(problems.ALL["g"], shape=(5, 4, 16))
    weights = list(map(torch.tensor, problems.weights(problem)))
    x = torch.randn(problem.shape)
    assert torch.allclose(with_torch.unrolled(weights, x), nets.lstm(problem, torch.nn, weights)(x)[0], atol=1e-6)


def test_the_operations_of_the_lstm_are_those_of_its_products(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from workloads import problems

    problem = dataclasses.replace(problems.ALL["g"], shape=(5, 4, 16))
    rows = 5 * 4 + 4 * 4  # of the input and, without the first step, of the state
    assert problems.operations(problem) == 2 * 16 * 64 * (3 * 2 * rows - 5 * 4)


def test_the_operations_of_the_tabular_net_are_those_of_its_products(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from workloads import problems

    problem = problems.ALL["h"]
    products = [w for w in problems.weights(problem)[len(problems.CATEGORIES) :] if w.ndim == 2]
    assert problems.operations(problem) == sum(3 * 2 * problem.shape[0] * w.size for w in products)
