"""README.md from nbs/index.ipynb: `python tools/readme.py [--check] [ROOT]`.

Prose as it is, code as python blocks with the printed output below, pictures by their place in the repository (a picture that a cell
drew is written to nbs/images/). Cells with `#| hide`, `#| export` or `#| default_exp` are left out; `#| echo: false` leaves out the code,
`#| output: false` the output. Links are rewritten so that they work from the root. `--check` writes nothing and ends with 1 on a difference.
"""
import base64, difflib, os, posixpath, re, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent))
from check import EXPORTS, directives, read, text

NOTE = '<!-- Made from nbs/index.ipynb by `make export`: edit the notebook. -->'
LINK = re.compile(r'''(\]\(\s*<?|^\[[^\]]+\]:\s*|\b(?:src|href)=["'])([^)\s"'>]+)''', re.M)
ANSI = re.compile(r'\x1b\[[0-9;]*m')

def relink(md, seen):
    "Links relative to nbs/ become relative to the root; code stays as it is. `seen` collects the new targets."
    def one(m):
        target, mark, part = m[2].partition('#')
        if not target or target.startswith('/') or re.match(r'[a-zA-Z][\w+.-]*:', target): return m[0]
        new = posixpath.normpath(posixpath.join('nbs', target))
        seen.append(new)
        return m[1] + new + mark + part
    parts = re.split(r'(^(?:```|~~~).*?^(?:```|~~~)[ \t]*$|`[^`\n]+`)', md, flags=re.M | re.S)
    return ''.join(p if i % 2 else LINK.sub(one, p) for i, p in enumerate(parts))

def fence(body, lang=''):
    "A code block whose fence is longer than any fence inside."
    ticks = '`' * max(3, 1 + max((len(t) for t in re.findall('`+', body)), default=0))
    return f'{ticks}{lang}\n{body}\n{ticks}'

def outputs(cell, pictures):
    "The outputs of one cell as markdown: printed text, then values; `pictures` collects the bytes of those that were drawn."
    printed, shown = '', []
    def flush():
        nonlocal printed
        if printed.strip(): shown.append(fence(ANSI.sub('', printed).strip('\n')))
        printed = ''
    for o in cell.get('outputs', []):
        if o['output_type'] == 'error' or o.get('name') == 'stderr': raise SystemExit('index.ipynb: a cell writes to stderr or ended in an error')
        if o['output_type'] == 'stream': printed += text(o['text']); continue
        data = o['data']
        if 'image/png' in data:
            flush()
            name = f'nbs/images/index_{len(pictures) + 1}.png'
            pictures[name] = base64.b64decode(text(data['image/png']))
            shown.append(f'![]({name})')
        elif 'text/markdown' in data: flush(); shown.append(text(data['text/markdown']).strip('\n'))
        elif 'text/plain' in data: printed += text(data['text/plain']) + '\n'
    flush()
    return shown

def build(root):
    "The text of README.md, the pictures to write beside it, and the local files that it links to."
    parts, pictures, seen = [NOTE], {}, []
    for c in read(root / 'nbs' / 'index.ipynb')['cells']:
        flags, body = directives(text(c['source']))
        if {'hide', 'default_exp', *EXPORTS} & flags.keys() or flags.get('include') == 'false': continue
        if c['cell_type'] == 'markdown': parts.append(relink(body.strip('\n'), seen))
        if c['cell_type'] != 'code': continue
        if flags.get('echo') != 'false' and body.strip(): parts.append(fence(body.strip('\n'), 'python'))
        if flags.get('output') != 'false': parts += [relink(s, seen) if not s.startswith(('```', '![](')) else s for s in outputs(c, pictures)]
    return '\n\n'.join(p for p in parts if p) + '\n', pictures, seen

def main(args):
    check = '--check' in args
    root = Path(next((a for a in args if a != '--check'), Path(__file__).resolve().parents[1]))
    if not (root / 'nbs' / 'index.ipynb').exists(): raise SystemExit('nbs/index.ipynb is missing')
    new, pictures, seen = build(root)
    readme, bad = root / 'README.md', False
    if check:
        old = readme.read_text(encoding='utf-8') if readme.exists() else ''
        for line in difflib.unified_diff(old.splitlines(), new.splitlines(), 'README.md', 'nbs/index.ipynb', lineterm=''): print(line); bad = True
        for name, data in pictures.items():
            if not (root / name).exists() or (root / name).read_bytes() != data: print(f'{name} differs from the picture in nbs/index.ipynb'); bad = True
    else:
        for name, data in pictures.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        readme.write_text(new, encoding='utf-8')
    for s in sorted(set(seen)):
        if not os.path.exists(root / s): print(f'nbs/index.ipynb links to {s}, which does not exist'); bad = True
    if bad: raise SystemExit(1)

if __name__ == '__main__': main(sys.argv[1:])
