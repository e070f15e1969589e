"""What every case of the judges needs: patience, a large body, waiting without a guess."""
import subprocess
import sys
import time

START_SECONDS = 20
PATIENCE = 20
LARGE = 1 << 20


def wait_for(is_so, may_wait):
    deadline = time.monotonic() + START_SECONDS
    while not is_so():
        if not may_wait() or time.monotonic() > deadline:
            sys.exit('what was started is not ready')
        time.sleep(0.02)


def said_by(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout
