"""A generator for wide numeric tables such as flattened images: children start from the mean of released parents.

With 196 columns and noise of 40 votes and more, a single parent is mostly the noise of its own random walk. The mean of all parents of one site keeps what they have in common.
Nothing is assumed about columns that lie next to each other, no model, no data but what was released.
"""
import numpy as np
import pandas as pd
from pe_nb.generators.tables import Tables
from pe_nb.records import Records

class Sites(Tables):
    "Tables whose labels have a few sites each; a child is the mean of its site's parents, moved by a step. All sites of a label get equally many children."
    @property
    def fingerprint(self): return 'Sites 1 ' + super().fingerprint
    def check(self, degree): super().check(degree['step'])

    def random(self, labels, rng):
        r = super().random(labels, rng)
        return r.with_extra(site=np.zeros(len(r), np.int64))

    def vary(self, parents, degree, rng):
        x, site = parents.data.to_numpy(np.float64, copy=True), parents.extra['site'].copy()
        for label in np.unique(parents.labels):
            here = np.flatnonzero(parents.labels == label)
            mean = site_means(x[here], site[here], degree['sites'], rng)
            site[here] = np.arange(len(here)) % degree['sites']
            x[here] = mean[site[here]]
            if degree['mix']: x[here] += degree['mix']*rng.standard_normal((len(here), len(mean)))/np.sqrt(len(mean))@(mean - mean.mean(0))
        low, high = zip(*(c.bounds for c in self.schema.columns))
        df = pd.DataFrame(np.rint(np.clip(x, low, high)).astype(np.int64), columns=list(self.schema.names))
        moved = super().vary(Records.table(df, self.schema, parents.labels, self.label_names), degree['step'], rng)
        return moved.with_extra(site=site)

def site_means(x, site, K, rng):
    "The mean of the parents at each of `K` sites; with more sites than before, each one splits at random."
    now = site.max() + 1
    if K > now: site = site*(K//now) + rng.integers(0, K//now, len(site))
    held = np.bincount(site, minlength=K)
    mean = np.stack([x[site == j].mean(0) if held[j] else np.zeros(x.shape[1]) for j in range(K)])
    for j in np.flatnonzero(held == 0):  # a site without parents shares the largest one
        big = held.argmax()
        mean[j] = mean[big]
        held[[big, j]] = held[big]//2
    return mean

def settings(T=200, N=1000, final=4000, threshold=29.):
    "Steps that shrink, sites that split; the threshold is half of the noise of a release at epsilon 1 and T = 200, a public number."
    step = lambda f: float(np.exp(np.interp(f, (0, .12, 1), np.log((.4, .06, .02)))))
    sites = lambda f: 8 if f >= .3 else 4 if f >= .2 else 2 if f >= .12 else 1
    degree = [dict(sites=sites(t/T), step=step(t/T), mix=0.) for t in range(T)] + [dict(sites=8, step=.03, mix=1.)]
    return dict(generations=T, samples=[N]*T + [final], degree=degree, selection='sample', threshold=threshold)
