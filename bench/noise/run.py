"""Secure noise for 20,000 synthetic records, against NumPy's seeded normal generator: the price of exact and cryptographic."""
import json, time
from pathlib import Path
import numpy as np
from pe_nb.release import SecureNoise, SeededNoise

def best(f, n=5):
    out = []
    for _ in range(n):
        t = time.perf_counter(); f(); out.append(time.perf_counter() - t)
    return min(out)

def main():
    z, rng = np.zeros(20_000, np.int64), np.random.default_rng(0)
    SecureNoise()(z[:10], 3.)
    rows = {}
    for scale in (1., 10., 200.):
        secure, seeded, normal = best(lambda: SecureNoise()(z, scale)), best(lambda: SeededNoise(0)(z, scale)), best(lambda: np.rint(rng.normal(0, scale, len(z))))
        rows[f'scale {scale:g}'] = dict(secure_s=round(secure, 4), seeded_s=round(seeded, 4), numpy_normal_s=round(normal, 5), microseconds_per_secure_draw=round(secure/len(z)*1e6, 1))
    Path(__file__).with_name('results.json').write_text(json.dumps(rows, indent=1) + '\n')
    for k, r in rows.items(): print(k, r)

if __name__ == '__main__': main()
