"""Checks of the notebooks and of what is generated from them: `python tools/check.py [list]`.

Without a word: exports into an empty folder and compares with pe_nb/ byte for byte, cleans copies of the notebooks and compares,
looks into every notebook for what must not be committed, and compares README.md with what tools/readme.py makes. It changes nothing
in the tree, so it is as good with uncommitted work as without. `list` prints the notebooks in the order in which they build on each other.
"""
import ast, json, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_CELL, MAX_MODULE, MAX_BYTES = 40, 350, 1_500_000
EXPORTS = {'export', 'exports', 'exporti'}
PATHS = re.compile(r'(?<![\w.])/(?:work|home|root|tmp|Users|opt/pypi)/|[A-Z]:\\{1,2}Users')
VENV = re.compile(r'\.venv\b|site-packages')

def notebooks(root=ROOT):
    "Notebooks that nbdev sees, in reading order: numbered ones by number over all folders, then the rest by path."
    found = [p for p in (root / 'nbs').rglob('*.ipynb') if not any(s[0] in '_.' for s in p.relative_to(root / 'nbs').parts)]
    return sorted(found, key=lambda p: (not p.name[:2].isdigit(), p.name[:2] if p.name[:2].isdigit() else '', p.as_posix()))

def read(path): return json.loads(Path(path).read_text(encoding='utf-8'))
def text(o): return ''.join(o) if isinstance(o, list) else str(o)

def directives(source):
    "The `#| word rest` lines at the top of a cell, as a dict, and the source below them."
    found, lines = {}, source.split('\n')
    while lines and (m := re.match(r'\s*#\s*\|\s*([\w-]+):?\s*(.*?)\s*$', lines[0])):
        found[m[1]] = m[2]
        lines.pop(0)
    return found, '\n'.join(lines)

def copy(root, to):
    "What nbdev needs to export: the settings and the notebooks."
    for p in [root / 'settings.ini', root / 'pyproject.toml', *notebooks(root)]:
        (to / p.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(p, to / p.relative_to(root))

def nbdev(call, where):
    "Run one nbdev command in a process of its own, in the folder `where`."
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}  # under IN_TEST nbdev_export does nothing
    module = {'nbdev_export': 'doclinks', 'nbdev_clean': 'clean'}[call]
    run = subprocess.run([sys.executable, '-c', f'from nbdev.{module} import {call}; {call}()'], cwd=where, env=env, capture_output=True, text=True)
    return [f'{call} failed: {run.stderr.strip()[-2000:]}'] if run.returncode else []

def modules(root, lib='pe_nb'):
    "Relative path to bytes, for every Python file of the package."
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted((root / lib).rglob('*.py')) if '.ipynb_checkpoints' not in p.parts}

def export_problems(root=ROOT):
    "Where pe_nb/ differs from a fresh export of the notebooks, and where the notebooks differ from clean ones."
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        copy(root, tmp)
        bad = nbdev('nbdev_export', tmp)
        if bad: return bad
        have, want = modules(root), modules(tmp)
        bad = [f'{p}: no notebook exports it' for p in have if p not in want]
        bad += [f'{p}: missing, run `make export`' for p in want if p not in have]
        bad += [f'{p}: differs from its notebook, run `make export`' for p in want if p in have and have[p] != want[p]]
        bad += nbdev('nbdev_clean', tmp)
        for p in notebooks(root):
            name = p.relative_to(root)
            if p.read_bytes() != (tmp / name).read_bytes(): bad.append(f'{name}: not clean, run `make export`')
    return bad

def cell_problems(cell):
    "What must not be in one code cell or its outputs."
    flags, body = directives(text(cell['source']))
    if cell.get('execution_count') is not None: yield 'has an execution count'
    if VENV.search(body): yield 'names the virtual environment'
    for o in cell.get('outputs', []):
        if o['output_type'] == 'error': yield 'ended in an error'
        if o.get('name') == 'stderr': yield f'writes to stderr: {text(o["text"])[:80]!r}'
        shown = '\n'.join([text(o.get('text', ''))] + [text(v) for k, v in o.get('data', {}).items() if k.startswith('text/') or 'svg' in k])
        if m := PATHS.search(shown) or VENV.search(shown): yield f'shows a path of this machine in its output ({m[0]})'
    if not EXPORTS & flags.keys(): return
    lines = [l for l in body.split('\n') if l.strip()]
    if len(lines) > MAX_CELL: yield f'exports {len(lines)} lines, at most {MAX_CELL}'
    for n in ast.walk(ast.parse(body)):
        if isinstance(n, ast.ImportFrom) and any(a.name == '*' for a in n.names): yield 'exports a star import'

def notebook_problems(root=ROOT):
    "What must not be in a notebook, named by notebook and cell."
    bad = []
    for p in notebooks(root):
        name, nb = p.relative_to(root), read(p)
        if p.stat().st_size > MAX_BYTES: bad.append(f'{name}: {p.stat().st_size} bytes, at most {MAX_BYTES}')
        first = nb['cells'][0] if nb['cells'] else {'cell_type': 'none', 'source': ''}
        if first['cell_type'] != 'markdown' or not re.match(r'# .+\n\n> \S', text(first['source'])):
            bad.append(f'{name}: the first cell must be `# title`, an empty line, and `> one line`')
        for i, c in enumerate(nb['cells']):
            if m := PATHS.search(text(c['source'])): bad.append(f'{name}: cell {i} names a path of this machine ({m[0]})')
            if c['cell_type'] == 'code': bad += [f'{name}: cell {i} {b}' for b in cell_problems(c)]
    return bad

def size_problems(root=ROOT):
    "Modules that have grown past one idea."
    sizes = {p: sum(1 for l in b.decode().split('\n') if l.strip()) for p, b in modules(root).items() if not p.endswith('_modidx.py')}
    return [f'{p}: {n} lines, at most {MAX_MODULE}' for p, n in sizes.items() if n > MAX_MODULE]

def readme_problems(root=ROOT):
    "Where README.md differs from what its notebook says."
    run = subprocess.run([sys.executable, str(ROOT / 'tools' / 'readme.py'), '--check', str(root)], capture_output=True, text=True)
    return [] if run.returncode == 0 else [f'README.md: run `make export`\n{run.stdout}{run.stderr}'.strip()]

def main(args):
    if args == ['list']: return print(*(p.relative_to(ROOT).as_posix() for p in notebooks()), sep='\n')
    if args: raise SystemExit(__doc__)
    bad = export_problems() + notebook_problems() + size_problems() + readme_problems()
    for b in bad: print(b, file=sys.stderr)
    if bad: raise SystemExit(f'{len(bad)} problem(s) in the notebooks or what is made from them')
    print(f'{len(notebooks())} notebooks are clean, and pe_nb/ and README.md are what they make')

if __name__ == '__main__': main(sys.argv[1:])
