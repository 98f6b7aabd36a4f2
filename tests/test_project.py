"The project itself: notebooks and what is made from them, taste that a program can check, and the commands."
import ast, base64, json, os, re, shutil, subprocess, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tools'))
import check, readme  # noqa: E402

SOURCES = sorted(p for p in (ROOT / 'pe_nb').rglob('*.py') if p.name != '_modidx.py' and '.ipynb_checkpoints' not in p.parts)
BOTH = [*SOURCES, *sorted((ROOT / 'bench').rglob('*.py'))]
name_of = lambda p: p.relative_to(ROOT).as_posix()


# ---- notebooks, and what is made from them ----

def test_export_and_clean_leave_no_difference(): assert check.export_problems() == []
def test_notebooks_are_fit_to_commit(): assert check.notebook_problems() == []
def test_readme_is_its_notebook(): assert check.readme_problems() == []
def test_modules_are_one_idea(): assert check.size_problems() == []


def code(source, **more):
    return dict(cell_type='code', id='x', metadata={}, execution_count=None, outputs=[], source=source) | more


def prose(source): return dict(cell_type='markdown', id='y', metadata={}, source=source)


def project(where, cells, name='00_thing.ipynb'):
    "A small project of its own, exported and clean."
    for f in ('settings.ini', 'pyproject.toml'): shutil.copyfile(ROOT / f, where / f)
    (where / 'nbs').mkdir(exist_ok=True)
    for i, c in enumerate(cells): c['id'] = f'c{i}'
    nb = dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)
    (where / 'nbs' / name).write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + '\n', encoding='utf-8')
    return where


@pytest.fixture
def small(tmp_path):
    root = project(tmp_path, [prose('# thing\n\n> One line.'), code('#| default_exp thing'), code('#| export\ndef f():\n    "Four."\n    return 4')])
    assert check.nbdev('nbdev_export', root) == []
    return root


def test_stale_exports_are_seen(small):
    assert check.export_problems(small) == [] and check.notebook_problems(small) == []
    module = small / 'pe_nb' / 'thing.py'
    module.write_text(module.read_text().replace('return 4', 'return 5'))
    (small / 'pe_nb' / 'orphan.py').write_text('x = 1\n')
    assert check.export_problems(small) == ['pe_nb/orphan.py: no notebook exports it', 'pe_nb/thing.py: differs from its notebook, run `make export`']
    module.unlink()
    assert 'pe_nb/thing.py: missing, run `make export`' in check.export_problems(small)


def test_unclean_notebooks_are_seen(small):
    nb = json.loads((small / 'nbs' / '00_thing.ipynb').read_text())
    nb['cells'][2]['execution_count'] = 3
    (small / 'nbs' / '00_thing.ipynb').write_text(json.dumps(nb, indent=1, sort_keys=True) + '\n')
    assert check.export_problems(small) == ['nbs/00_thing.ipynb: not clean, run `make export`']


stream = lambda text, name='stdout': [dict(output_type='stream', name=name, text=text)]
home = '/' + 'home/ada/x'


@pytest.mark.parametrize('cell, said', [
    (code('1', execution_count=7), 'execution count'),
    (code('print(p)', outputs=stream(home)), 'path of this machine in its output'),
    (code(f'open("{home}")'), 'names a path of this machine'),
    (prose(f'see {home}'), 'names a path of this machine'),
    (code('1', outputs=stream('oh', 'stderr')), 'stderr'),
    (code('1/0', outputs=[dict(output_type='error', ename='E', evalue='', traceback=[])]), 'error'),
    (code('1', outputs=[dict(output_type='execute_result', data={'text/html': 'lib/python3/site-packages/x'}, metadata={}, execution_count=None)]), 'path of this machine'),
    (code('#| export\n' + '\n'.join(f'x{i} = {i}' for i in range(41))), 'exports 41 lines'),
    (code('#| export\nfrom os import *'), 'star import'),
])
def test_unfit_cells_are_seen(tmp_path, cell, said):
    root = project(tmp_path, [prose('# thing\n\n> One line.'), cell])
    found = check.notebook_problems(root)
    assert len(found) == 1 and said in found[0]


def test_fit_cells_pass(tmp_path):
    cells = [prose('# thing\n\n> One line, with `runs/home/x`, a/tmp/b and https://x.org/home/y, made in `.venv`.'), code('from os import *'),
             code('#| export\n' + '\n\n'.join(f'x{i} = {i}' for i in range(40)), outputs=stream('runs/quickstart/report.html'))]
    assert check.notebook_problems(project(tmp_path, cells)) == []
    assert 'first cell' in check.notebook_problems(project(tmp_path, cells[1:]))[0]


# ---- README ----

def test_readme_is_made_as_documented(tmp_path):
    png = base64.b64encode(b'not really a picture').decode()
    result = lambda **data: [dict(output_type='execute_result', metadata={}, execution_count=None, data={k.replace('_', '/'): v for k, v in data.items()})]
    cells = [
        prose('# thing\n\n> One line.\n\n![](images/a.png) [votes](03_voting.ipynb#why) [claims](../bench/x/README.md) [web](https://x.org/a) [here](#thing)\n'
              '<img src="images/a.png">\n\n```\n[not](a_link)\n```\nand `[nor](this)`'),
        code('#| hide\nsecret = 1'), code('#| export\nexported = 1'), code('#| default_exp thing'),
        code('print("hello")\n4', outputs=stream(['hello\n']) + result(text_plain=['4'])),
        code('#| echo: false\nquiet()', outputs=result(text_markdown='| a |\n|---|\n| 1 |', text_plain='no', text_html='<b>no</b>')),
        code('#| output: false\nloud()', outputs=stream('unseen')),
        code('#| echo: false\ndraw()', outputs=[dict(output_type='display_data', metadata={}, data={'image/png': png, 'text/plain': '<Figure>'})]),
        code('print("```")', outputs=stream('```\n'))]
    root = project(tmp_path, cells, 'index.ipynb')
    for f in ('nbs/images/a.png', 'nbs/03_voting.ipynb', 'bench/x/README.md'):
        (root / f).parent.mkdir(parents=True, exist_ok=True)
        (root / f).write_text('')
    readme.main([str(root)])
    assert (root / 'README.md').read_text().removeprefix(readme.NOTE) == '''

# thing

> One line.

![](nbs/images/a.png) [votes](nbs/03_voting.ipynb#why) [claims](bench/x/README.md) [web](https://x.org/a) [here](#thing)
<img src="nbs/images/a.png">

```
[not](a_link)
```
and `[nor](this)`

```python
print("hello")
4
```

```
hello
4
```

| a |
|---|
| 1 |

```python
loud()
```

![](nbs/images/index_1.png)

````python
print("```")
````

````
```
````
'''
    assert (root / 'nbs/images/index_1.png').read_bytes() == b'not really a picture'
    readme.main(['--check', str(root)])


def test_readme_check_sees_differences(tmp_path, capsys):
    root = project(tmp_path, [prose('# thing\n\n> One line.')], 'index.ipynb')
    for problem in ('differs', 'dead link'):
        if problem == 'dead link': project(tmp_path, [prose('# thing\n\n> [gone](gone.ipynb)')], 'index.ipynb')
        with pytest.raises(SystemExit) as e: readme.main(['--check', str(root)])
        assert e.value.code == 1
    assert '+# thing' in (said := capsys.readouterr().out) and 'nbs/gone.ipynb, which does not exist' in said
    bad = project(tmp_path, [code('1', outputs=stream('oh', 'stderr'))], 'index.ipynb')
    with pytest.raises(SystemExit, match='stderr'): readme.main([str(bad)])


# ---- taste that a program can check ----

LEGACY_OK = {'default_rng', 'Generator', 'SeedSequence', 'BitGenerator', 'PCG64', 'PCG64DXSM', 'Philox', 'SFC64', 'MT19937'}
NO_IMPORT = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'joblib', 'marshal', 'shelve'}


def dotted(n):
    "`a.b.c` of an attribute chain, or ''."
    if isinstance(n, ast.Name): return n.id
    return f'{head}.{n.attr}' if isinstance(n, ast.Attribute) and (head := dotted(n.value)) else ''


def unsafe(source):
    "Pickles, evaluated text, global random generators and swallowed errors in `source`."
    for n in ast.walk(ast.parse(source)):
        if isinstance(n, (ast.Import, ast.ImportFrom)):
            names = [a.name for a in n.names] if isinstance(n, ast.Import) else [n.module or '', *(f'{n.module}.{a.name}' for a in n.names)]
            if found := NO_IMPORT & {m.partition('.')[0] for m in names}: yield f'line {n.lineno}: imports {found}'
            for m in names:
                if m.startswith('numpy.random.') and m.split('.')[2] not in LEGACY_OK: yield f'line {n.lineno}: global generator {m}'
        elif isinstance(n, ast.Attribute):
            d = dotted(n).split('.')
            if d[:2] in (['np', 'random'], ['numpy', 'random']) and len(d) == 3 and d[2] not in LEGACY_OK: yield f'line {n.lineno}: global generator {".".join(d)}'
            if d[0] == 'random' and len(d) == 2 and d[1] not in ('Random', 'SystemRandom'): yield f'line {n.lineno}: global generator {".".join(d)}'
        elif isinstance(n, ast.Call):
            if dotted(n.func) in ('eval', 'exec'): yield f'line {n.lineno}: {dotted(n.func)}'
            for k in n.keywords:
                if k.arg == 'allow_pickle' and not (isinstance(k.value, ast.Constant) and k.value.value is False): yield f'line {n.lineno}: allow_pickle'
            if re.search(r'(^|\.)(read_pickle|to_pickle)$', dotted(n.func)): yield f'line {n.lineno}: pickle'
        elif isinstance(n, ast.ExceptHandler):
            if n.type is None or all(isinstance(b, ast.Pass) for b in n.body): yield f'line {n.lineno}: swallows an error'


@pytest.mark.parametrize('path', BOTH, ids=name_of)
def test_nothing_unsafe(path): assert list(unsafe(path.read_text(encoding='utf-8'))) == []


@pytest.mark.parametrize('source', ['import pickle', 'from joblib import load', 'import numpy as np\nnp.random.normal()', 'from numpy.random import rand', 'import random\nrandom.random()',
                                    'np.load(f, allow_pickle=True)', 'eval(x)', 'df.to_pickle(p)', 'try: x\nexcept: y', 'try: x\nexcept OSError: pass'])
def test_unsafe_is_seen(source): assert len(list(unsafe(source))) == 1


def test_safe_passes():
    assert not list(unsafe('import numpy as np\nrng = np.random.default_rng(1)\nrng.random()\nnp.load(f, allow_pickle=False)\ntry: x\nexcept OSError as e: y'))


@pytest.mark.parametrize('path', SOURCES, ids=name_of)
def test_public_names_say_what_they_do(path):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    bare = [n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and n.name[0] != '_' and not ast.get_docstring(n)]
    assert not bare, f'without a docstring: {bare}'


def test_ruff():
    run = subprocess.run([sys.executable, '-m', 'ruff', 'check', 'pe_nb', 'tests', 'tools', 'bench'], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_ruff_sees_notebook_globals(tmp_path):
    "The rule that finds what nbdev_test cannot: a function that lives off a variable of its notebook."
    (tmp_path / 'm.py').write_text('def f(): return only_in_the_notebook\n')
    run = subprocess.run([sys.executable, '-m', 'ruff', 'check', '--no-cache', '--config', str(ROOT / 'pyproject.toml'), str(tmp_path / 'm.py')], capture_output=True, text=True)
    assert run.returncode == 1 and 'F821' in run.stdout


# ---- commands ----

def make(*args):
    "Run make as a person would, not as a part of the make that runs these tests."
    env = {k: v for k, v in os.environ.items() if k not in ('MAKEFLAGS', 'MFLAGS', 'MAKELEVEL', 'MAKEOVERRIDES')}
    return subprocess.run(['make', '--no-print-directory', *args], cwd=ROOT, env=env, capture_output=True, text=True)


def test_make_help_lists_every_target():
    phony = re.search(r'^\.PHONY: (.*)$', (ROOT / 'Makefile').read_text(), re.M)[1].split()
    run = make()
    assert run.returncode == 0 and re.findall(r'^  make (\w+) +\w', run.stdout, re.M) == phony
    assert {'quickstart', 'test', 'lab', 'bench', 'docs', 'reproduce', 'notebooks', 'export', 'clean', 'help'} == set(phony)


def test_make_test_runs_everything_and_pytest_last():
    lines = make('--dry-run', 'test').stdout.strip().split('\n')
    for word in ('tools/check.py', 'ruff check pe_nb', 'nbdev_test'): assert any(word in l for l in lines[:-1]), word
    assert lines[-1].split()[1:] == ['-m', 'pytest']


def test_notebook_workers_start_clean():
    "nbdev_test forks its workers, and a fork after faiss or torch has started threads hangs: the parent must have loaded neither."
    run = subprocess.run([sys.executable, '-c', 'import nbdev.test, sys; print([m for m in ("faiss", "torch", "pe_nb") if m in sys.modules])'], capture_output=True, text=True)
    assert run.stdout.strip() == '[]', run.stderr


def test_ci_runs_make_test():
    ci = ROOT / '.ci' / 'run'
    lines = [l for l in ci.read_text().split('\n') if l and not l.startswith('#')]
    assert ci.stat().st_mode & 0o111 and lines[0] == 'set -euo pipefail' and re.fullmatch(r'exec make\b.* test', lines[-1])


def test_one_version():
    settings = re.search(r'^version = (\S+)$', (ROOT / 'settings.ini').read_text(), re.M)[1]
    assert f'__version__ = "{settings}"' in (ROOT / 'pe_nb' / '__init__.py').read_text()
    assert f'## {settings}' in (ROOT / 'CHANGELOG.md').read_text()


def test_every_claim_has_its_folder():
    for folder in sorted(p for p in (ROOT / 'bench').iterdir() if p.is_dir() and p.name[0] not in '._'):
        if (folder / 'run.py').exists() or list(folder.glob('*.md')):
            assert {'README.md', 'run.py', 'results.json'} <= {p.name for p in folder.iterdir()}, folder.name
