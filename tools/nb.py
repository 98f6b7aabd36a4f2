"""Work on a notebook as text, run it, and put it back: `python tools/nb.py {show,make,run,export} ...`.

show NOTEBOOK            print it as a py:percent script (`# %%` starts a code cell, `# %% [markdown]` a prose cell)
make SCRIPT NOTEBOOK     write the notebook from such a script; cells whose source did not change keep their outputs
run NOTEBOOK...          execute in place from top to bottom, keep the outputs, drop all volatile metadata
export NOTEBOOK...       write the modules of these notebooks only (`nbdev_export` does all of them, and the index)
"""
import hashlib, json, os, sys
from pathlib import Path

def to_script(nb):
    "Notebook (dict) to py:percent text."
    out = []
    for c in nb['cells']:
        src = ''.join(c['source'])
        if c['cell_type'] == 'markdown':
            out.append('# %% [markdown]\n' + '\n'.join(('# ' + l).rstrip() for l in src.split('\n')))
        else: out.append('# %%\n' + src)
    return '\n\n'.join(out) + '\n'

def cells_of(text):
    "py:percent text to a list of (cell type, source)."
    cells, kind, lines = [], None, []
    def flush():
        src = '\n'.join(lines).strip('\n')
        if kind == 'markdown': src = '\n'.join(l[2:] if l.startswith('# ') else l.lstrip('#') for l in src.split('\n'))
        if kind and src: cells.append((kind, src))
    for line in text.split('\n'):
        if line.startswith('# %%'):
            flush(); lines = []
            kind = 'markdown' if '[markdown]' in line else 'code'
        else: lines.append(line)
    flush()
    return cells

def make(text, old=None):
    "Notebook (dict) from py:percent text; outputs of unchanged cells come from `old`."
    kept = {''.join(c['source']): c.get('outputs', []) for c in (old or {}).get('cells', []) if c['cell_type'] == 'code'}
    cells, seen = [], {}
    for kind, src in cells_of(text):
        ident = hashlib.sha1(src.encode()).hexdigest()[:8]
        seen[ident] = seen.get(ident, 0) + 1
        if seen[ident] > 1: ident = f'{ident}-{seen[ident]}'
        c = dict(cell_type=kind, id=ident, metadata={}, source=src.splitlines(keepends=True))
        if kind == 'code': c.update(execution_count=None, outputs=kept.get(src, []))
        cells.append(c)
    meta = {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}
    return dict(cells=cells, metadata=meta, nbformat=4, nbformat_minor=5)

def write(nb, path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + '\n', encoding='utf-8')

def run(path):
    "Execute the notebook as `nbdev_test` would (its own folder is the working folder) and keep its outputs."
    from execnb.nbio import read_nb, write_nb
    from execnb.shell import CaptureShell
    from nbdev.clean import clean_nb
    path = Path(path).resolve()
    nb = read_nb(path)
    here = os.getcwd()
    os.chdir(path.parent)
    os.environ['IN_TEST'] = '1'  # the last cell of a notebook exports all notebooks; not while it is run here
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    try:
        shell = CaptureShell(path, mpl_format='png')  # small pictures
        shell.run_all(nb, exc_stop=True, verbose=False)
        if shell.exc: raise SystemExit(f'{path.name}: a cell failed\n{shell.prettytb(fname=path)}')
    finally:
        os.chdir(here)
        del os.environ['IN_TEST']
    for c in nb.cells:
        for o in c.get('outputs', []):
            if o.get('name') == 'stderr': raise SystemExit(f'{path.name}: cell {c.idx_} writes to stderr: {"".join(o["text"])[:600]}')
    clean_nb(nb)
    write_nb(nb, path)

def main(args):
    verb, *paths = args or ['']
    if verb == 'show': print(to_script(json.loads(Path(paths[0]).read_text(encoding='utf-8'))), end='')
    elif verb == 'make':
        src, dst = paths
        old = json.loads(Path(dst).read_text(encoding='utf-8')) if Path(dst).exists() else None
        write(make(Path(src).read_text(encoding='utf-8'), old), dst)
    elif verb == 'run':
        for p in paths: run(p)
    elif verb == 'export':
        from nbdev.config import add_init, get_config
        from nbdev.export import nb_export
        for p in paths: nb_export(p)
        add_init(get_config().lib_path)
    else: raise SystemExit(__doc__)

if __name__ == '__main__': main(sys.argv[1:])
