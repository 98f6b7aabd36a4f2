"Reference statistics in clean-fid's format: what is read, what is refused, whose they are, and the distance to them."
import io, pickle, zipfile
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.metrics import frechet as way
from pe_nb.metrics.frechet import Metric, factor_of_cov, frechet, frechet_moments, sum_of_covs, sum_of_roots
from pe_nb.metrics.statistics import (ADDRESS, Statistics, StatisticsMissing, drawn, fid_records_to_statistics, fid_to_statistics, find_statistics, read_arrays, read_features,
                                      read_statistics, save_statistics, statistics_name, statistics_of, statistics_of_records)
from pe_nb.records import Records

rng = lambda s=0: np.random.default_rng(s)
features = lambda n=60, d=6, seed=0: rng(seed).normal(size=(n, d)).astype(np.float32)

def clean_fid_file(path, x):
    "As clean-fid's `make_custom_stats` writes it: float32 features, so a float32 mean and a float64 covariance."
    np.savez_compressed(path, mu=np.mean(x, axis=0), sigma=np.cov(x, rowvar=False))
    return path

# ---- names and places

def test_names_are_clean_fids():
    assert statistics_name('cifar10') == 'cifar10_clean_train_32.npz' and statistics_name('cifar10', 32, 'test') == 'cifar10_clean_test_32.npz'
    assert statistics_name('FFHQ', 1024, 'trainfull70k', mode='legacy_tensorflow') == 'ffhq_legacy_tensorflow_trainfull70k_1024.npz'
    assert statistics_name('x', 'na', 'custom', model='clip_vit_b_32', features=True) == 'x_clean_clip_vit_b_32_custom_na_kid.npz'
    for bad in (dict(dataset='../x'), dict(dataset=''), dict(dataset='a b'), dict(dataset='x', res=True), dict(dataset='x', split='a/b'), dict(dataset=None, mode='')):
        with pytest.raises(ValueError, match='must be letters'): statistics_name(**bad)

def test_places(tmp_path, monkeypatch):
    name = statistics_name('mine')
    for k in ('PE_NB_CACHE', 'XDG_CACHE_HOME'): monkeypatch.setenv(k, str(tmp_path/k))
    with pytest.raises(StatisticsMissing) as e: find_statistics(name)
    assert isinstance(e.value, FileNotFoundError) and ADDRESS + name in str(e.value) and str(tmp_path/'PE_NB_CACHE') in str(e.value) and 'fetch' in str(e.value)
    (tmp_path/'PE_NB_CACHE').mkdir(); (tmp_path/'XDG_CACHE_HOME'/'pe_nb').mkdir(parents=True)
    kept = clean_fid_file(tmp_path/'PE_NB_CACHE'/f'{"0a"*8}-{name}', features())        # as `fetch` names it
    clean_fid_file(tmp_path/'PE_NB_CACHE'/f'other-{name}', features())
    assert find_statistics(name) == kept
    second = clean_fid_file(tmp_path/'PE_NB_CACHE'/f'{"0b"*8}-{name}', features())
    with pytest.raises(ValueError, match='must hold one file'): find_statistics(name)
    second.unlink()
    monkeypatch.delenv('PE_NB_CACHE')
    plain = clean_fid_file(tmp_path/'XDG_CACHE_HOME'/'pe_nb'/name, features())
    assert find_statistics(name) == plain and find_statistics(plain) == plain and find_statistics(name, tmp_path/'PE_NB_CACHE') == kept
    with pytest.raises(StatisticsMissing, match='must be a file that exists'): find_statistics(tmp_path/'elsewhere'/name)   # not the one of the cache
    with pytest.raises(StatisticsMissing): find_statistics(name, tmp_path/'nowhere')

def test_fetch_and_this_agree(tmp_path, monkeypatch):
    "The place that `fetch` uses, and the name it gives."
    from pe_nb.data.files import cache_folder, fetch
    monkeypatch.setenv('PE_NB_CACHE', str(tmp_path))
    file = clean_fid_file(tmp_path/'a.npz', features())
    h = sha256(file.read_bytes()).hexdigest()
    file.rename(cache_folder()/f'{h[:16]}-cifar10_clean_train_32.npz')
    got = fetch(ADDRESS + 'cifar10_clean_train_32.npz', h)                               # it is there already: nothing is asked
    assert find_statistics('cifar10_clean_train_32.npz') == got and read_statistics('cifar10_clean_train_32.npz', sha256=h.upper()).mean.shape == (6,)

# ---- reading

def test_clean_fids_file(tmp_path):
    x, y = features(80), features(70, seed=1) + np.float32(.3)
    s = read_statistics(clean_fid_file(tmp_path/'a_clean_custom_na.npz', x), private=False)
    assert s.name == 'a_clean_custom_na' and not s.private and s.count == 0 and s.embedding == '' and s.mean.dtype == s.cov.dtype == np.float64
    assert read_statistics('a_clean_custom_na.npz', tmp_path).private                    # unless one says so
    m = fid_to_statistics(y, s)
    assert np.isclose(m.value, frechet(y, x), rtol=1e-6) and not m.private and m.name == 'frechet'
    assert np.isclose(m.value, frechet_moments(y.mean(0, dtype=float), np.cov(y.T.astype(float)), s.mean, s.cov), rtol=1e-9)
    assert fid_to_statistics(y, s, private=True).private

def test_kid_file(tmp_path):
    x = features()
    np.savez_compressed(tmp_path/statistics_name('a', features=True), feats=x)
    assert np.array_equal(read_features('a_clean_train_32_kid.npz', tmp_path), x.astype(float))
    with pytest.raises(ValueError, match='must hold the array mu'): read_statistics('a_clean_train_32_kid.npz', tmp_path)
    with pytest.raises(ValueError, match='must hold the array feats'): read_features(clean_fid_file(tmp_path/'b.npz', x))

def test_hash(tmp_path):
    file = clean_fid_file(tmp_path/'a.npz', features())
    h = sha256(file.read_bytes()).hexdigest()
    assert read_statistics(file, sha256=h).mean.shape == (6,)
    with pytest.raises(ValueError, match='damaged, or another one'): read_statistics(file, sha256='0'*64)
    for bad in ('', 'abc', 'g'*64, 5):
        with pytest.raises(ValueError, match='64 hexadecimal'): read_statistics(file, sha256=bad)

eye = np.eye(3)
BAD = [
    (dict(mu=np.zeros(3)), 'must hold the array sigma; it holds mu'), (dict(sigma=eye), 'must hold the array mu'), (dict(mu=np.zeros(3), sigma=np.eye(4)), 'square, as wide as the mean'),
    (dict(mu=np.zeros((3, 1)), sigma=eye), 'square'), (dict(mu=np.zeros(0), sigma=np.zeros((0, 0))), 'square'), (dict(mu=np.zeros(3), sigma=eye[0]), 'square'),
    (dict(mu=np.array([0, np.nan, 0]), sigma=eye), 'finite'), (dict(mu=np.zeros(3), sigma=np.full((3, 3), np.inf)), 'finite'), (dict(mu=np.zeros(3), sigma=eye + np.triu(eye[::-1])), 'symmetric'),
    (dict(mu=np.zeros(3), sigma=np.diag([1, 1, -1e-3])), 'no negative eigenvalue'), (dict(mu=np.zeros(3), sigma=eye*1j), r'sigma \(of type complex128\)'), (dict(mu=np.array(['a', 'b', 'c']), sigma=eye), 'must be real numbers'),
    (dict(mu=np.array([1, 2, None], object), sigma=eye), 'plain arrays'), (dict(mu=np.zeros(3), sigma=eye, count=np.array([1, 2])), 'count .* must be one value'),
    (dict(mu=np.zeros(3), sigma=eye, private=np.array('no')), 'private .* must be one value'), (dict(mu=np.zeros(3), sigma=eye, embedding=np.array(4.)), 'embedding .* must be one value'),
]
@pytest.mark.parametrize('arrays, message', BAD)
def test_files_that_cannot_be_right(tmp_path, arrays, message):
    np.savez(tmp_path/'bad.npz', **arrays)
    with pytest.raises(ValueError, match=message) as e: read_statistics(tmp_path/'bad.npz')
    assert 'bad' in str(e.value)

def test_rounding_is_no_fault(tmp_path):
    "A singular covariance whose smallest eigenvalues are rounding, and one not quite symmetric."
    x = features(5, 40).astype(float)
    for noise in (0, 1e-9):
        np.savez(tmp_path/f'{noise}.npz', mu=x.mean(0), sigma=np.cov(x.T) + noise*np.triu(np.ones((40, 40)), 1))
        s = read_statistics(tmp_path/f'{noise}.npz')
        assert np.isclose(fid_to_statistics(features(6, 40, 1), s).value, frechet(features(6, 40, 1), x), rtol=1e-3)

def test_what_is_no_npz(tmp_path):
    f, x = tmp_path/'a.npz', features()
    for content in (b'', b'PK', b'<html>404</html>', pickle.dumps([1, 2]), b'\x93NUMPY' + b'\0'*40):
        f.write_bytes(content)
        with pytest.raises(ValueError, match='must be an npz archive'): read_statistics(f)
    buffer = io.BytesIO(); np.save(buffer, x); f.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match='must be an npz archive'): read_statistics(f)
    with zipfile.ZipFile(f, 'w') as z: z.writestr('mu.npy', pickle.dumps({'mu': 1}))
    with pytest.raises(ValueError, match='mu is none'): read_statistics(f)
    clean_fid_file(f, x)
    with pytest.raises(ValueError, match='max_bytes'): read_arrays(f, max_bytes=100)

@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damaged_files_never_pass_unseen(tmp_path_factory, data):
    "Any byte changed or the end cut off: a ValueError, or the very same numbers."
    f = tmp_path_factory.mktemp('damage')/'a.npz'
    s = read_statistics(clean_fid_file(f, features(20, 3)))
    raw = bytearray(f.read_bytes())
    if data.draw(st.booleans()): raw = raw[:data.draw(st.integers(0, len(raw) - 1))]
    else: raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    f.write_bytes(bytes(raw))
    try: got = read_statistics(f)
    except ValueError: return
    assert np.array_equal(got.mean, s.mean) and np.array_equal(got.cov, s.cov)

# ---- writing, and whose they are

def test_round_trip_and_marks(tmp_path):
    x = features(50)
    with pytest.raises(PermissionError, match='public=True'): save_statistics(x, tmp_path/'a.npz')
    with pytest.raises(PermissionError): save_statistics(statistics_of(x), tmp_path/'a.npz')
    assert not [*tmp_path.iterdir()]
    mine = statistics_of(x, embedding='E 1', name='mine')
    save_statistics(mine, tmp_path/'private.npz', keep_private=True)
    save_statistics(mine, tmp_path/'public.npz', public=True)
    save_statistics(x, tmp_path/'features.npz', public=True)
    save_statistics(statistics_of(x, private=False), tmp_path/'said.npz')
    got = {p.stem: read_statistics(p, private=False) for p in tmp_path.iterdir()}
    assert {k: s.private for k, s in got.items()} == dict(private=True, public=False, features=False, said=False)
    assert read_statistics(tmp_path/'public.npz').private is False and all(s.count == 50 and np.array_equal(s.cov, mine.cov) and np.array_equal(s.mean, mine.mean) for s in got.values())
    assert got['private'].embedding == 'E 1' and got['features'].embedding == '' and mine.private
    assert fid_to_statistics(x, got['private']).private and fid_to_statistics(x, got['private'], private=False).private and not fid_to_statistics(x, got['public']).private
    with np.load(tmp_path/'private.npz', allow_pickle=False) as z: assert np.array_equal(z['mu'], mine.mean) and np.array_equal(z['sigma'], mine.cov)   # all that clean-fid reads
    assert 'not for release' in repr(mine) and 'not for release' not in repr(got['public']) and '50 records' in repr(mine)

def test_no_file_is_overwritten_or_left_in_part(tmp_path, monkeypatch):
    file = save_statistics(features(), tmp_path/'a.npz', public=True)
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match='new file'): save_statistics(features(seed=1), file, public=True)
    with pytest.raises(ValueError, match='end in .npz'): save_statistics(features(), tmp_path/'a.txt', public=True)
    def broken(f, **arrays):
        f.write(b'PK'); raise OSError('disk full')
    monkeypatch.setattr(np, 'savez_compressed', broken)
    with pytest.raises(OSError, match='disk full'): save_statistics(features(), tmp_path/'b.npz', public=True)
    assert [p.name for p in tmp_path.iterdir()] == ['a.npz'] and file.read_bytes() == before

# ---- the distance

@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 30), st.integers(2, 30), st.integers(1, 12))
def test_is_the_distance_between_samples(seed, n, m, d):
    "Fewer records than dimensions too."
    x, y = features(n, d, seed), features(m, d, seed + 1)*2
    s = statistics_of(y)
    assert np.isclose(fid_to_statistics(x, s).value, frechet(x, y), rtol=1e-4, atol=1e-5)
    assert fid_to_statistics(y, s).value < 1e-5

def test_dimensions():
    with pytest.raises(ValueError, match=r'of 5 dimensions\) must have as many as clip \(6\)'): fid_to_statistics(features(9, 5), statistics_of(features(), name='clip'))
    for bad in (np.zeros(6), np.zeros((1, 6)), np.full((4, 6), np.nan)):
        with pytest.raises(ValueError, match='features'): fid_to_statistics(bad, statistics_of(features()))
        with pytest.raises(ValueError, match='features'): statistics_of(bad)

def test_number_of_samples():
    x, s = features(40), statistics_of(features(500, seed=1))
    assert (drawn(40, 40, rng()) == np.arange(40)).all() and fid_to_statistics(x, s, samples=40).value == fid_to_statistics(x, s).value
    few, many = drawn(40, 25, rng()), drawn(40, 90, rng())
    assert len(set(few.tolist())) == 25 and len(many) == 90 and set(many.tolist()) <= set(range(40))
    assert np.isclose(fid_to_statistics(x, s, samples=25, seed=3).value, frechet(x[drawn(40, 25, rng(3))], features(500, seed=1)), rtol=1e-6)
    values = [fid_to_statistics(x, s, samples=25, seed=i).value for i in (3, 3, 4)]
    assert values[0] == values[1] != values[2]
    for bad in (1, 0, True, 2., '3'):
        with pytest.raises(ValueError, match='samples'): fid_to_statistics(x, s, samples=bad)

def test_records_and_the_embedding_behind():
    from pe_nb.embeddings.images import Edges, Pixels
    a, b = (Records.images(rng(s).integers(0, 256, (30, 4, 4, 1)).astype(np.uint8)) for s in (0, 1))
    s = statistics_of_records(b, Pixels(), name='b')
    assert s.private and s.embedding == Pixels().fingerprint and s.count == 30 and not statistics_of_records(b, Pixels(), private=False).private
    m = fid_records_to_statistics(a, s, Pixels())
    assert m.private and np.isclose(m.value, frechet(Pixels()(a), Pixels()(b)), rtol=1e-4)
    assert fid_records_to_statistics(a, s, Pixels(), samples=10).value > 0
    for other in (Pixels(scale=2.), Edges()):
        with pytest.raises(ValueError, match='must be that of b'): fid_records_to_statistics(a, s, other)

def test_bad_statistics():
    with pytest.raises(ValueError, match='mine: the covariance must have no negative'): Statistics(mean=np.zeros(2), cov=-np.eye(2), name='mine')
    with pytest.raises(ValueError, match='square'): Statistics(mean=np.zeros(2), cov=np.eye(3))
    with pytest.raises(TypeError): Statistics(np.zeros(2), np.eye(2))
    with pytest.raises(AttributeError): statistics_of(features()).private = False

# ---- the quick way of the Fréchet distance, above 256 dimensions

def known(d, low, close):
    "Two covariances with the same eigenvectors, over `low` orders of magnitude, and their true distance."
    g = rng(d)
    q = np.linalg.qr(g.normal(size=(d, d)))[0]
    a = np.logspace(0, -low, d); b = a*(1 + close*g.random(d))
    covs = [(lambda c: (c + c.T)/2)((q*w) @ q.T) for w in (a, b)]
    return *covs, ((np.sqrt(a) - np.sqrt(b))**2).sum()

@pytest.mark.parametrize('low, close', [(1, .2), (6, .2), (6, 1e-4), (9, .2), (12, .2)])
def test_true_distance_at_300_dimensions(low, close, monkeypatch):
    "To 1e-6 of the distance, even where it is a hundred-millionth of the traces; the quick way gives up where it could not promise that."
    s, t, want = known(300, low, close)
    slow = []
    monkeypatch.setattr(way, 'factor_of_cov', lambda c: slow.append(1) or factor_of_cov(c))
    got = frechet_moments(np.zeros(300), s, np.zeros(300), t)
    rounding = 300**.5*np.finfo(float).eps*np.trace(s + t)                  # of the covariances themselves
    assert abs(got - want) < 1e-6*want + 10*rounding**.5*(low > 9) + 1e3*rounding and bool(slow) == ((low, close) not in [(1, .2), (6, .2)])

def test_singular_or_negative_at_300_dimensions():
    x, y, many = features(80, 300), features(120, 300, 1), features(900, 300, 2)
    m = lambda v: (v.mean(0, dtype=float), np.cov(v.T.astype(float)))
    for a, b in ((x, y), (x, many), (many, x), (many, many*2)):
        assert np.isclose(frechet_moments(*m(a), *m(b)), frechet(a, b), rtol=1e-6), (len(a), len(b))
    assert factor_of_cov(m(x)[1]).shape == (79, 300)
    bad = m(many)[1].copy(); bad -= 2*np.linalg.eigvalsh(bad)[0]*np.eye(300)                  # least eigenvalue below zero
    for a, b in ((bad, m(many)[1]), (m(many)[1], bad)):
        with pytest.raises(ValueError, match='negative eigenvalue'): frechet_moments(np.zeros(300), a, np.zeros(300), b)
    z = np.zeros((300, 300))
    assert frechet_moments(np.zeros(300), z, np.zeros(300), z) == 0 and np.isclose(frechet_moments(np.zeros(300), z, np.ones(300), m(many)[1]), 300 + np.trace(m(many)[1]))

def test_when_roots_are_good_enough():
    assert sum_of_roots(np.array([1., 4.]), 0.) == 3 and sum_of_roots(np.array([1e-15, 1.]), 0.) is None and sum_of_roots(np.array([-1e-3, 1.]), 9.) is None and sum_of_roots(np.zeros(2), 0.) is None
    assert sum_of_roots(np.array([1., 4.]), 6 + 1e-12) is None               # a distance that rounding could have made
    s, t, _ = known(300, 2, .5)
    assert np.isclose(sum_of_covs(s, t), np.linalg.svd(factor_of_cov(s) @ factor_of_cov(t).T, compute_uv=False).sum(), rtol=1e-12)

def test_metric_with_an_error():
    m = Metric(name='kernel', value=.5, private=False, error=.01)
    assert 'standard error 0.01' in str(m) and 'over' not in str(m) and 'error' not in str(Metric(name='kernel', value=.5, private=False))
    assert '± 0.1 over 7 subsets' in str(Metric(name='kernel', value=.5, private=False, spread=.1, seeds=7, over='subsets'))
