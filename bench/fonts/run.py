"""Images per second of the font renderer, against drawing each image with Pillow: `python bench/fonts/run.py`.

The peer does what a straightforward renderer does for every image: open the font at its size, measure the text's box, draw it, rotate.
Both draw the same mixture of random parameters with the same fonts, on one thread, in turns; the figures are the medians of CPU time.
"""
import json, os
os.environ.setdefault('OMP_NUM_THREADS', '1')
import statistics, sys, time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from pe_nb.generators.fonts import Fonts

DEGREE = dict(font=0.5, size=5, rotation=9, stroke=1)
WARPED = dict(shear=(-.5, .5), scale_x=(.5, 1.5), bend=(-.5, .5), waist=(-.4, .4), tilt=(-.4, .4), shift_x=(-1., 1.), shift_y=(-1., 1.))

def peer(fonts, labels, extra):
    "One image after another with Pillow."
    out = np.empty((len(labels), 28, 28, 1), np.uint8)
    for i, (l, f, size, turn, stroke) in enumerate(zip(labels, *(extra[k].tolist() for k in ('font', 'size', 'rotation', 'stroke')))):
        font, text = ImageFont.truetype(str(fonts.fonts[f]), size), fonts.label_texts[l][0]
        im = Image.new('L', (28, 28)); d = ImageDraw.Draw(im)
        x0, y0, x1, y1 = d.textbbox((0, 0), text, font=font, stroke_width=stroke)
        d.text(((28 - x1 - x0)/2, (28 - y1 - y0)/2), text, font=font, fill=255, stroke_width=stroke)
        out[i, ..., 0] = np.asarray(im.rotate(turn))
    return out

def rate(n, f):
    t = time.process_time(); out = f()
    return n/(time.process_time() - t), out

def main(n=10_000, rounds=5):
    labels, rates = np.arange(n) % 10, {}
    note = lambda k, v: rates.setdefault(k, []).append(v)
    fonts, warped, tiny = Fonts(), Fonts(**WARPED), Fonts(height=8, width=8, supersample=4, size_of='height', size=(8, 8), stroke=(0., .6), **WARPED)
    for i in range(rounds):
        rng = np.random.default_rng(i)
        cold = Fonts()
        v, r = rate(n, lambda: cold.random(labels, rng)); note('random, first call (no glyph drawn yet)', v)
        v, r = rate(n, lambda: fonts.random(labels, rng)); note('random', v)
        if i == 0: continue                                   # the first round fills the caches of the warm renderers
        v, _ = rate(n, lambda: fonts.vary(r, DEGREE, rng)); note('vary', v)
        v, _ = rate(n, lambda: warped.random(labels, rng)); note('random with shear, stretch, warp and shift', v)
        v, _ = rate(n, lambda: tiny.random(labels, rng)); note('random, 8x8 from 32x32, all parameters', v)
        m = n//10
        v, _ = rate(m, lambda: peer(fonts, labels[:m], {k: a[:m] for k, a in r.extra.items()})); note('peer: Pillow, image by image', v)
    mid = {k: statistics.median(v) for k, v in rates.items()}
    base = mid['peer: Pillow, image by image']
    rows = [dict(what=k, images_per_second=round(v), times_the_peer=round(v/base, 1), worst=round(min(rates[k]))) for k, v in mid.items()]
    print(f"{'28x28, 22 fonts, 1 thread':48} images/s   worst   x peer")
    for r in rows: print(f"{r['what']:48} {r['images_per_second']:8,} {r['worst']:7,} {r['times_the_peer']:8}")
    Path(__file__).with_name('results.json').write_text(json.dumps(dict(images=n, rounds=rounds, fonts=len(fonts.fonts), rows=rows), indent=1) + '\n')
    assert mid['random'] >= 10_000 and mid['vary'] >= 10_000, 'the claim is 10,000 images per second'

if __name__ == '__main__': main()
