"""Child of test_crashes.py: runs the same tiny synthesis many times, each in a forked process that dies at a chosen write boundary.

Usage: crash_driver.py FOLDER MODE. MODE 'seeded': the run under a seed; 'report': only the report of a finished run; 'fresh': noise that differs
in every process. Prints one JSON line per boundary. The parent process never runs faiss or BLAS work itself (it only imports), so forking is safe.
"""
import hashlib, json, os, shutil, sys
from pathlib import Path
import numpy as np
from pe_nb.evolution import Settings
from pe_nb.records import Records
from pe_nb.release import Budget, SeededNoise, discrete_gaussian, load_release
from pe_nb.runs import Covered, plan, synthesize

NAMES = ('a', 'b')

class Points:
    label_names, fingerprint = NAMES, 'Points()'
    def make(self, xy, labels): return Records.images(np.clip(np.rint(xy), 0, 255).astype(np.uint8).reshape(-1, 1, 2, 1), labels, NAMES)
    def random(self, labels, rng): return self.make(rng.uniform(0, 255, (len(labels), 2)), labels)
    def vary(self, parents, degree, rng): return self.make(parents.data.reshape(-1, 2) + rng.normal(0, degree, (len(parents), 2)), parents.labels)

class Flat:
    fingerprint = 'Flat()'
    def __call__(self, r): return r.data.reshape(len(r), 2).astype(np.float32)

class Fresh:
    "Noise that is different in every process, like the secure source, but quick to import."
    name, secure = 'fresh', False
    def __call__(self, counts, scale, index): return counts + discrete_gaussian(len(counts), scale, np.random.default_rng())

def watch(g): return {'mean': Covered(g.records.data.mean()), **({'real': float(g.t)} if g.t == 2 else {})}
RNG = np.random.default_rng(0)
PRIVATE = Points().make(RNG.normal(90, 20, (40, 2)), RNG.integers(0, 2, 40))

SETTINGS, BUDGET = Settings(generations=2, samples=6, degree=5., proportions='private', seed=3), Budget(epsilon=4., delta=1e-3)

def go(folder, mode):
    return synthesize(PRIVATE, Points(), Flat(), SETTINGS, BUDGET, folder, watchers=[] if mode in ('report', 'plain') else [watch], noise=Fresh() if mode == 'fresh' else SeededNoise(9), report=mode == 'report')

def child(work):
    "Run `work` in a forked process; its exit code."
    pid = os.fork()
    if pid == 0:
        try: work()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def dying(folder, mode, boundary, after):
    "Run until write boundary number `boundary` (an fsync or a rename), and die there, before or after it."
    count = 0
    def wrap(f):
        def at(*args):
            nonlocal count
            count += 1
            if count == boundary and not after: os._exit(9)
            out = f(*args)
            if count == boundary: os._exit(9)
            return out
        return at
    os.fsync, os.replace = wrap(os.fsync), wrap(os.replace)
    go(folder, mode)

def contents(folder): return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob('*')) if p.is_file()}

def drawn(folder):
    "Digests of the releases on disk, finished or complete but not yet named."
    out = {}
    for p in sorted((folder/'releases').glob('*')) + sorted((folder/'releases').glob('.tmp-*')):
        try: r = load_release(p)
        except ValueError: continue
        out[r.index] = r.digest
    return out

def warm_up():
    "Import and calibrate once, in the parent, what every child would do again. No vote: that would start threads."
    import matplotlib.backends.backend_agg, matplotlib.figure, PIL.Image, threadpoolctl  # noqa: F401
    import dp_accounting.pld.privacy_loss_distribution  # noqa: F401
    import pe_nb.reports
    pe_nb.reports._opinion(plan(SETTINGS, BUDGET).events, BUDGET.delta)

def main(home, mode):
    warm_up()
    whole, plain = home/'whole'/'run', home/'plain'/'run'
    assert child(lambda: go(whole, mode)) == 0
    if mode == 'report': assert child(lambda: go(plain, 'plain')) == 0
    want, boundary, died = contents(whole), 0, True
    while died:
        boundary += 1
        died = False
        for after in (False, True):
            folder = home/f'{boundary}{"b" if after else "a"}'/'run'
            if mode == 'report': shutil.copytree(plain, folder)
            code = child(lambda: dying(folder, mode, boundary, after))
            died |= code == 9
            before = drawn(folder)
            resumed = child(lambda: go(folder, mode))
            now = drawn(folder)
            print(json.dumps(dict(boundary=boundary, after=after, code=code, resumed=resumed, same=contents(folder) == want, kept=all(now.get(i) == d for i, d in before.items()),
                                  releases=len(now), left=[p.name for p in folder.rglob('.tmp-*')])), flush=True)

if __name__ == '__main__': main(Path(sys.argv[1]), sys.argv[2])
