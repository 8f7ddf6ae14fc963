"""Datasets, batches, splits, standardising, and the bundled real data."""

import sys
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import data
from chainrule.errors import ArgumentError, DataError, MissingExtraError, OutOfRangeError, ShapeError

X, Y = cr.tensor(np.arange(20.0).reshape(10, 2)), cr.arange(10)


def test_batches_cover_every_sample_once() -> None:
    loader = data.DataLoader((X, Y), batch_size=4)
    batches = list(loader)
    assert [len(y) for _, y in batches] == [4, 4, 2]
    assert len(loader) == 3
    np.testing.assert_array_equal(np.concatenate([x.numpy() for x, _ in batches]), X.numpy())
    assert len(data.DataLoader((X, Y), batch_size=4, drop_last=True)) == 2
    assert [len(y) for _, y in data.DataLoader((X, Y), batch_size=4, drop_last=True)] == [4, 4]
    assert "10 samples in 3 batches" in repr(loader)


def test_shuffling_is_new_in_each_pass_and_the_same_for_a_seed() -> None:
    def passes(**options: Any) -> list[list[int]]:
        loader = data.DataLoader((X, Y), batch_size=3, shuffle=True, **options)
        return [[int(i) for _, y in loader for i in y.numpy()] for _ in range(3)]

    first = passes(seed=7)
    assert first == passes(seed=7) == passes(generator=cr.Generator(7))
    assert first != passes(seed=8)
    assert first[0] != first[1]
    assert all(sorted(order) == list(range(10)) for order in first)
    cr.manual_seed(3)
    by_default = passes()
    cr.manual_seed(3)
    assert passes() == by_default
    for x, y in data.DataLoader((X, Y), batch_size=3, shuffle=True, seed=1):
        np.testing.assert_array_equal(x.numpy()[:, 0], 2 * y.numpy())  # rows stay together


def test_a_batch_has_memory_of_its_own() -> None:
    for shuffle in (False, True):
        for x, _ in data.DataLoader((X, Y), batch_size=5, shuffle=shuffle, seed=0):
            x.zero_()
    assert X.numpy().sum() == 190


def test_any_dataset_will_do() -> None:
    class Squares:
        def __len__(self) -> int:
            return 5

        def __getitem__(self, i: int) -> tuple[float, int]:
            return float(i), i * i

    x, y = next(iter(data.DataLoader(Squares(), batch_size=3)))
    assert (x.tolist(), y.tolist()) == ([0, 1, 2], [0, 1, 4])
    assert x.dtype == cr.float32
    assert [b[0].tolist() for b in data.DataLoader(Y, batch_size=5)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert next(iter(data.DataLoader([1.0, 2.0], batch_size=2)))[0].tolist() == [1, 2]
    ragged = [(np.zeros(2), 0), (np.zeros(3), 1)]
    with pytest.raises(DataError, match="samples of one batch must have the same parts"):
        next(iter(data.DataLoader(ragged, batch_size=2)))
    with pytest.raises(DataError, match="samples of one batch must have the same parts"):
        next(iter(data.DataLoader([(1, 2), (1,)], batch_size=2)))


def test_data_that_cannot_be_trained_on() -> None:
    with pytest.raises(DataError, match=r"one length; got float64\[10,2\], int64\[4\]"):
        data.TensorDataset(X, Y[:4])
    with pytest.raises(DataError, match="expected samples; got none"):
        data.TensorDataset(X[:0])
    with pytest.raises(DataError, match="expected arrays; got none"):
        data.TensorDataset()
    with pytest.raises(DataError, match="array 0 is one number"):
        data.TensorDataset(3.0)
    bad = X.numpy().copy()
    bad[3, 1] = np.nan
    bad[4, 0] = np.inf
    with pytest.raises(
        DataError, match=r"array 0, float64\[10,2\], holds nan at \[3, 1\], 2 such in all; drop or fill"
    ):
        data.DataLoader((bad, Y))
    assert len(data.TensorDataset(bad, finite=False)) == 10
    with pytest.raises(ArgumentError, match="batch_size must be an int ≥ 1; got 0"):
        data.DataLoader((X, Y), batch_size=0)
    with pytest.raises(DataError, match="drop_last leaves no batch: 10 samples, batch_size 64"):
        data.DataLoader((X, Y), batch_size=64, drop_last=True)
    with pytest.raises(ArgumentError, match="a generator or a seed, not both"):
        data.DataLoader((X, Y), shuffle=True, seed=1, generator=cr.Generator(1))
    with pytest.raises(DataError, match="expected samples; got none"):
        data.DataLoader([])
    with pytest.raises(DataError, match=r"a dataset has len\(\) and indexing; got generator"):
        data.DataLoader(i for i in range(3))
    with pytest.raises(DataError, match="expected positions"):
        data.Subset(Y, [])
    with pytest.raises(DataError, match="positions must lie in 0 … 9"):
        data.Subset(Y, [10])


def test_a_random_split_is_a_partition() -> None:
    whole = data.TensorDataset(X, Y)
    for lengths in ([7, 3], [0.7, 0.3], [0.5, 0.25, 0.25]):
        parts = data.random_split(whole, lengths, seed=1)
        found = [int(y) for part in parts for _, y in (part[i] for i in range(len(part)))]
        assert sorted(found) == list(range(10))
        assert found != list(range(10))
    again = data.random_split(whole, [7, 3], cr.Generator(1))
    np.testing.assert_array_equal(again[0].indices, data.random_split(whole, [7, 3], seed=1)[0].indices)
    batches = list(data.DataLoader(again[1], batch_size=2))
    assert [len(y) for _, y in batches] == [2, 1]
    np.testing.assert_array_equal(batches[0][1].numpy(), again[1].indices[:2])
    with pytest.raises(ArgumentError, match=r"lengths \[7, 4\] add to 11, the dataset has 10"):
        data.random_split(whole, [7, 4])
    with pytest.raises(ArgumentError, match="shares must be ≥ 0 and add to 1"):
        data.random_split(whole, [0.7, 0.4])
    with pytest.raises(DataError, match="expected positions"):
        data.random_split(whole, [10, 0])
    with pytest.raises(OutOfRangeError):
        whole[10]


def test_standardizer() -> None:
    x = np.random.default_rng(0).normal(3.0, 5.0, (100, 4)).astype(np.float32)
    x[:, 2] = 7
    scale = data.Standardizer.fit(x)
    z = scale.transform(x)
    assert z.dtype == cr.float32
    np.testing.assert_allclose(z.numpy().mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(z.numpy().std(0), [1, 1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(scale.inverse(z).numpy(), x, rtol=1e-5)
    assert data.Standardizer.fit(cr.arange(5)).transform(cr.arange(5)).dtype == cr.float32
    with pytest.raises(ShapeError, match=r"fitted on samples of shape \[4\]; got \[3\]"):
        scale.transform(x[:, :3])
    with pytest.raises(DataError, match="expected samples"):
        data.Standardizer.fit(x[:0])


@pytest.mark.parametrize(
    ("load", "samples", "features", "classes"),
    [
        (data.load_diabetes, 442, 10, None),
        (data.load_digits, 1797, 64, 10),
        (data.load_breast_cancer, 569, 30, 2),
        (data.load_wine, 178, 13, 3),
        (data.load_iris, 150, 4, 3),
    ],
)
def test_bundled_data(load: Any, samples: int, features: int, classes: int | None) -> None:
    split = load(seed=1, valid=0.25)
    assert split.x_train.shape[0] + split.x_valid.shape[0] == samples
    assert split.x_train.shape[1] == split.x_valid.shape[1] == len(split.feature_names) == features
    assert len(split.valid) == round(samples * 0.25)
    assert split.x_train.dtype == cr.float32
    assert split.source
    assert split.description
    if classes is None:
        assert split.y_train.dtype == cr.float32
        assert split.y_train.min().item() >= 25
    else:
        assert split.y_train.dtype == cr.int64
        assert set(np.unique(split.y_train.numpy())) == set(range(classes))
        assert len(split.target_names) == classes
    np.testing.assert_array_equal(load(seed=1, valid=0.25).x_valid.numpy(), split.x_valid.numpy())
    assert not np.array_equal(load(seed=2, valid=0.25).x_valid.numpy(), split.x_valid.numpy())
    with pytest.raises(ArgumentError, match="leaves a part of the"):
        load(valid=1.0)


def test_a_split_is_standardised_by_its_training_part() -> None:
    raw = data.load_diabetes()
    split = raw.standardized(target=True)
    np.testing.assert_allclose(split.x_train.numpy().mean(0), 0, atol=1e-5)
    assert abs(split.y_train.numpy().std() - 1) < 1e-5
    assert np.abs(split.x_valid.numpy().mean(0)).max() > 1e-3  # the validation part was not looked at
    assert split.y_scale is not None
    np.testing.assert_allclose(split.y_scale.inverse(split.y_valid).numpy(), raw.y_valid.numpy(), rtol=1e-5)
    train, valid = split.loaders(32, seed=3)
    assert len(train) == 12
    assert next(iter(valid))[0].shape == (88, 10)
    with pytest.raises(ArgumentError, match="the target of iris is a class"):
        data.load_iris().standardized(target=True)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"load_iris: .*pip install 'chainrule\[demo\]'"):
        data.load_iris()
