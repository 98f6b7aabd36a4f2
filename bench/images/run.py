"""Both measurements of this folder, and results.json from what they wrote: `python bench/images/run.py`. About an hour on two cores; MNIST is left out where its files are not there."""
import json, subprocess, sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

def main():
    "Run digits.py and mnist.py, then gather their figures."
    subprocess.run([sys.executable, HERE/'digits.py'], check=True)
    if subprocess.run([sys.executable, HERE/'mnist.py']).returncode: print('MNIST was not measured: its last figures stay', file=sys.stderr)
    gather()

def gather():
    "results.json: the two files in one."
    found = {n: json.loads((HERE/f'{n}.json').read_text(encoding='utf-8')) for n in ('digits', 'mnist') if (HERE/f'{n}.json').exists()}
    (HERE/'results.json').write_text(json.dumps(found, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')

if __name__ == '__main__': gather() if sys.argv[1:] == ['gather'] else main()
