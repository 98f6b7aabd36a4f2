"""A run is killed at every fsync and every rename, before and after, and resumed."""
import json, subprocess, sys
from pathlib import Path
import pytest

pytestmark = pytest.mark.skipif(sys.platform == 'win32', reason='forks')

def boundaries(tmp_path, mode):
    done = subprocess.run([sys.executable, str(Path(__file__).with_name('crash_driver.py')), str(tmp_path), mode], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]

@pytest.mark.parametrize('mode, least', [('seeded', 60), ('report', 20)])
def test_same_bytes_after_any_crash(tmp_path, mode, least):
    "With the seeded sampler the resumed folder equals the folder of an unbroken run, file by file, byte by byte."
    rows = boundaries(tmp_path, mode)
    assert len(rows) > least and {r['code'] for r in rows} == {0, 9} and {r['code'] for r in rows[:-2]} == {9}
    assert [r for r in rows if not (r['resumed'] == 0 and r['same'] and r['kept'] and not r['left'])] == []

def test_no_release_is_drawn_twice(tmp_path):
    "With noise that differs in every process, whatever release was complete at the crash is the one that the resumed run uses."
    rows = boundaries(tmp_path, 'fresh')
    assert len(rows) > 40
    assert [r for r in rows if not (r['resumed'] == 0 and r['kept'] and r['releases'] == 3 and not r['left'])] == []
