"The digits: their numbers, their split, and their bytes."
import numpy as np
import pytest
from sklearn.datasets import load_digits

from pe_nb.data.images import digits, hash_order
from pe_nb.records import Records


def test_sizes_and_names():
    for split, n in (('train', 1400), ('test', 397)):
        r = digits(split)
        assert r.kind == 'image' and r.data.shape == (n, 8, 8, 1) and r.data.dtype == np.uint8
        assert r.label_names == tuple('0123456789') and r.label_counts.sum() == n and r.label_counts.min() > 20
    assert digits() == digits('train')


def test_parts_are_disjoint_and_complete():
    train, test = digits('train'), digits('test')
    a, b = ({x.tobytes() for x in r.data} for r in (train, test))
    assert len(a) == 1400 and len(b) == 397 and not a & b
    d = load_digits()
    ink = (16 * Records.concat([train, test]).data.astype(int)[..., 0] + 127) // 255    # the scaling can be undone
    rows = {(x.tobytes(), int(y)) for x, y in zip(d.images.astype(int), d.target)}
    assert {(x.tobytes(), int(y)) for x, y in zip(ink, np.concatenate([train.labels, test.labels]))} == rows and len(rows) == 1797


def test_scaling_is_exact():
    d = load_digits()
    assert sorted(set(digits().data.reshape(-1).tolist())) == [(255 * v + 8) // 16 for v in range(17)]
    assert (digits('test').data[0, ..., 0] == np.floor(d.images[hash_order(1797, 'pe_nb digits 1')[1400]] * 255 / 16 + .5)).all()


def test_fingerprints_never_change():
    "Results are compared across versions, so the split and the pixels stay."
    assert digits('train').fingerprint == '7c3112ced957ba8f39f2335f64041fe81e5a760d7f5f7b1375402bc51a4fc093'
    assert digits('test').fingerprint == 'a00d5d6b8b7205e5ac81a3b99eb5db61a061f42f4bae7828a49b724d2da7e415'


@pytest.mark.parametrize('n', [0, 1, 10, 1797])
def test_hash_order_is_a_permutation(n):
    assert sorted(hash_order(n, 'a').tolist()) == list(range(n))
    if n > 9: assert hash_order(n, 'a').tolist() != hash_order(n, 'b').tolist() != list(range(n))


def test_unknown_split():
    with pytest.raises(ValueError, match=r"split \('all'\) must be 'train' or 'test'"): digits('all')
