"What the tests of the paper notebooks read from a notebook."
import json
import re
from pathlib import Path

HEAD = ['what', "paper's number", 'source', 'ours', 'why they differ']


class Page:
    "A notebook as it was kept: its code, its prose, what it shows."
    def __init__(self, path):
        self.name = Path(path).stem
        self.cells = json.loads(Path(path).read_text(encoding='utf-8'))['cells']

    @property
    def code(self): return [''.join(c['source']) for c in self.cells if c['cell_type'] == 'code']
    @property
    def prose(self): return ' '.join(''.join(c['source']) for c in self.cells if c['cell_type'] == 'markdown')

    @property
    def outputs(self):
        "All that it shows as text."
        shown = [o for c in self.cells for o in c.get('outputs', [])]
        return '\n'.join(s for o in shown for s in [''.join(o.get('text', ''))] + [''.join(v) for k, v in o.get('data', {}).items() if k.startswith('text/')])

    @property
    def tables(self):
        "The tables that it shows as markdown, each as (head, rows)."
        found = [''.join(o['data']['text/markdown']) for c in self.cells for o in c.get('outputs', []) if 'text/markdown' in o.get('data', {})]
        split = [[[v.strip() for v in line.strip()[1:-1].split('|')] for line in t.split('\n')] for t in found]
        return [(head, rows) for head, _, *rows in split]

    def numbers(self, again):
        "The rows of its one table of the paper's numbers, as dicts; `again` says what to do if there is none."
        assert len(self.tables) == 1, again
        (head, rows), = self.tables
        assert head == HEAD and all(len(r) == len(HEAD) for r in rows)
        return [dict(zip(('what', 'paper', 'source', 'ours', 'why'), r)) for r in rows]

    def defined(self, *marks, given=None, change=(), **parameters):
        "Names that it defines with other parameters: its first three cells, then each cell that holds one of the marks, with texts replaced; `given` names are there in between."
        first, ns = self.code[0], {}
        for k, v in parameters.items():
            first, n = re.subn(rf'^{k} = [^#\n]*', f'{k} = {v!r} ', first, flags=re.M)
            assert n == 1, k
        for s in [first, *self.code[1:3]]: exec(s, ns)
        ns |= given or {}
        for m in marks:
            hits = [s for s in self.code if m in s]
            assert len(hits) == 1, (m, len(hits))
            for old, new in change: hits[0] = hits[0].replace(old, new)
            exec(compile(hits[0], f'{self.name}: {m}', 'exec'), ns)
        return ns
