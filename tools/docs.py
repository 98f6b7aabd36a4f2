"""The notebooks as web pages in _docs/html: `python tools/docs.py`. Sphinx and myst-nb, no network, no quarto.

Pages are the committed notebooks with their outputs; nothing is run. Cells with `#| hide` and `#| default_exp` are left out, and directive lines
are dropped from the rest, so that exported code reads like code.
"""
import configparser, json, posixpath, shutil, subprocess, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent))
from check import ROOT, directives, notebooks, read, text
from readme import LINK

CONF = '''
project = author = 'pe_nb'
extensions = ['myst_nb']
html_theme = 'sphinx_book_theme'
html_title = 'pe_nb'
nb_execution_mode = 'off'
nb_merge_streams = True
myst_enable_extensions = ['dollarmath', 'amsmath']
myst_heading_anchors = 3
suppress_warnings = ['myst.header', 'mystnb.unknown_mime_type', 'misc.highlighting_failure']
exclude_patterns = ['_build']
'''
FOLDERS = dict(generators='Generators', llms='Language models', embeddings='Embeddings', metrics='Metrics', data='Data', models='Models of our own', papers='The papers', tutorials='Tutorials')

def outward(md, folder, web):
    "Links that leave nbs/ lead to the repository on the web."
    def one(m):
        to = posixpath.normpath(posixpath.join('nbs', folder, m[2]))
        return m[0] if ':' in m[2] or m[2][0] in '#/' or to.startswith('nbs/') else f'{m[1]}{web}/{to}'
    return LINK.sub(one, md)

def page(path, web):
    "One notebook without what only the build needs."
    nb, cells = read(path), []
    for c in nb['cells']:
        flags, body = directives(text(c['source']))
        if {'hide', 'default_exp'} & flags.keys() or flags.get('include') == 'false': continue
        if c['cell_type'] == 'code':
            if flags.get('output') == 'false': c['outputs'] = []
            if flags.get('echo') == 'false': c['metadata']['tags'] = ['remove-input']
            if not body.strip() and not c['outputs']: continue
        c['source'] = outward(body, path.parent.relative_to(ROOT / 'nbs').as_posix(), web) if c['cell_type'] == 'markdown' else body
        cells.append(c)
    nb['metadata'] = {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}, 'language_info': {'name': 'python', 'pygments_lexer': 'python'}}
    return nb | {'cells': cells}

def toctree(pages):
    "The index page's contents: the core first, then one list per folder."
    groups = {'Core': [p for p in pages if p.parent == Path('.') and p.stem != 'index']}
    groups |= {title: [p for p in pages if p.parts[0] == folder] for folder, title in FOLDERS.items()}
    block = '```{{toctree}}\n:hidden:\n:caption: {}\n\n{}\n```'
    return '\n\n'.join(block.format(t, '\n'.join(p.with_suffix('').as_posix() for p in ps)) for t, ps in groups.items() if ps)

def main():
    src, html = ROOT / '_docs' / 'src', ROOT / '_docs' / 'html'
    shutil.rmtree(ROOT / '_docs', ignore_errors=True)
    src.mkdir(parents=True)
    (src / 'conf.py').write_text(CONF.lstrip())
    if (ROOT / 'nbs' / 'images').exists(): shutil.copytree(ROOT / 'nbs' / 'images', src / 'images')
    settings = configparser.ConfigParser()
    settings.read(ROOT / 'settings.ini')
    web = f"{settings['DEFAULT']['git_url']}/blob/{settings['DEFAULT']['branch']}"
    pages = [p.relative_to(ROOT / 'nbs') for p in notebooks()]
    for p in pages:
        nb = page(ROOT / 'nbs' / p, web)
        if p.stem == 'index': nb['cells'].append(dict(cell_type='markdown', id='toctree', metadata={}, source=toctree(pages)))
        (src / p).parent.mkdir(parents=True, exist_ok=True)
        (src / p).write_text(json.dumps(nb), encoding='utf-8')
    run = subprocess.run([sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-b', 'html', str(src), str(html)])
    if run.returncode: raise SystemExit(run.returncode)
    print('_docs/html/index.html')

if __name__ == '__main__': main()
