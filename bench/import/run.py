"""`import pe_nb` in a fresh process, against an empty process and `import numpy`; and what it must not load."""
import json, subprocess, sys, time
from pathlib import Path

def best(code, n=7):
    "Shortest wall time of a fresh interpreter that runs `code`."
    out = []
    for _ in range(n):
        t = time.perf_counter(); subprocess.run([sys.executable, '-c', code], check=True); out.append(time.perf_counter() - t)
    return min(out)

def main():
    empty = best('pass')
    row = {k: round(best(code) - empty, 4) for k, code in {'import pe_nb': 'import pe_nb', 'import numpy': 'import numpy', 'pe_nb.synthesize': 'import pe_nb; pe_nb.synthesize'}.items()}
    heavy = subprocess.run([sys.executable, '-c', 'import pe_nb, sys; print([m for m in ("torch", "faiss", "pandas", "sklearn", "opendp", "dp_accounting", "matplotlib") if m in sys.modules])'], check=True, capture_output=True, text=True).stdout.strip()
    row['heavy packages loaded by import pe_nb'] = heavy
    Path(__file__).with_name('results.json').write_text(json.dumps(row, indent=1) + '\n')
    for k, v in row.items(): print(f'{k:40s} {v}')

if __name__ == '__main__': main()
