"""Random bits: Philox against the known answers of its authors, and the properties of what is drawn from it."""

import numpy as np
import pytest

import chainrule as cr
from chainrule.ops.source import blocks_for, key_of, philox

# Random123, tests/kat_vectors, philox4x32 with 10 rounds: counter, key, output; low word first.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_known_answers(counter, key, expected):
    words = philox(np.array([counter], np.uint64), key[0] | key[1] << 32)
    assert words.dtype == np.uint32
    assert tuple(words[0].tolist()) == expected


def test_a_stream_is_the_same_from_any_place_in_it():
    whole = cr.rand(64, generator=cr.Generator(3)).numpy()
    from_inside = cr.ops.source.rand.reference(key_of(3, 6), shape=(32,), dtype=cr.float32, offset=2)
    np.testing.assert_array_equal(whole[32:], from_inside)


def test_calls_do_not_overlap():
    drawn = cr.Generator(5)
    first, second = cr.rand(1000, generator=drawn).numpy(), cr.rand(1000, generator=drawn).numpy()
    assert not set(first.tolist()) & set(second.tolist())
    assert blocks_for(7, 1) == 2


@pytest.mark.parametrize("dtype", [cr.float32, cr.float64, cr.float16, cr.bfloat16], ids=str)
def test_uniform_and_normal_have_their_moments(dtype):
    drawn = cr.Generator(1)
    u = cr.rand(40_000, dtype=dtype, generator=drawn).numpy().astype(np.float64)
    n = cr.randn(40_001, dtype=dtype, generator=drawn).numpy().astype(np.float64)
    assert u.min() >= 0
    assert u.max() <= 1
    assert u.mean() == pytest.approx(0.5, abs=0.01)
    assert u.var() == pytest.approx(1 / 12, abs=0.005)
    assert n.mean() == pytest.approx(0, abs=0.03)
    assert n.var() == pytest.approx(1, abs=0.03)
    assert (n**4).mean() == pytest.approx(3, abs=0.2)
    assert np.isfinite(n).all()


def test_uniform_stays_below_one_where_its_dtype_can_say_so():
    for dtype in (cr.float32, cr.float64):
        assert cr.rand(100_000, dtype=dtype, generator=cr.Generator(2)).numpy().max() < 1


def test_integers_reach_both_ends_and_no_further():
    drawn = cr.randint(-2, 3, (5_000,), generator=cr.Generator(4)).numpy()
    counts = np.bincount(drawn + 2)
    assert len(counts) == 5
    assert counts.min() > 850


def test_the_same_seed_gives_the_same_numbers():
    cr.manual_seed(11)
    first = [cr.rand(3).tolist(), cr.randn(2, 2).tolist(), cr.randperm(5).tolist()]
    cr.manual_seed(11)
    assert first == [cr.rand(3).tolist(), cr.randn(2, 2).tolist(), cr.randperm(5).tolist()]
    assert sorted(first[2]) == [0, 1, 2, 3, 4]


def test_bernoulli_hits_its_probability():
    drawn = cr.bernoulli(cr.full((20_000,), 0.3), generator=cr.Generator(6))
    assert drawn.mean().item() == pytest.approx(0.3, abs=0.015)
    assert set(drawn.unique().tolist() if hasattr(drawn, "unique") else np.unique(drawn.numpy()).tolist()) == {0.0, 1.0}
