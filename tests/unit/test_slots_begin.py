"""The file of a worker while it is made: who looks for what was left behind does not take it for that."""

from __future__ import annotations

import threading
from pathlib import Path

from opsq.worker.slots import Facts, Slots


def test_a_worker_that_starts_while_another_one_sweeps_up_keeps_its_file(tmp_path: Path) -> None:
    ended = threading.Event()
    swept: list[Path] = []

    def sweep() -> None:
        while not ended.is_set():
            for path in tmp_path.glob("*.slots"):
                table = Slots.claim(path)
                if table is not None and not table.counts:
                    table.remove()
                    swept.append(path)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for number in range(400):
            table = Slots.create(tmp_path / f"{number}.slots", Facts(f"w@h:{number:08x}", ["celery"], "", [1]))
            assert table.path.exists()
            table.remove()
    finally:
        ended.set()
        sweeper.join()
    assert not swept
