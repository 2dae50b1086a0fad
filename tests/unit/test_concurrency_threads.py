"""Interrupting a job in a thread: what was raised is gone afterwards, for the whole interpreter."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, threading, time
from opsq.concurrency.thread import ThreadPlace

class Interrupt(BaseException): ...

begun, places, seen = threading.Event(), [], []

def runner():
    place = ThreadPlace()
    place.job = places
    places.append(place)
    place.enter()
    begun.set()
    try:
        while True:
            time.sleep(0.001)
    except Interrupt:
        seen.append("interrupted")
    finally:
        place.leave()

thread = threading.Thread(target=runner)
thread.start()
begun.wait()
places[0].interrupt(places, Interrupt)
thread.join()

def traced(): seen.append("traced")
sys.settrace(lambda *_: None)
traced()
sys.settrace(None)
print(*seen)
"""


def test_after_an_interrupt_no_thread_looks_for_an_error_any_more() -> None:
    """A trace function shows it: in Python 3.11 a traced call never begins while an error is told that is gone."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["interrupted", "traced"]
