"""The daemon's last words reach a keeper that is far behind."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

from opsq.supervisor.link import KeeperLink

MANY = 5000


def test_last_words_arrive_though_the_keeper_is_behind(tmp_path: Path) -> None:
    heard: list[str] = []
    behind = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "keeper.sock"))
        listener.listen(1)
        link = KeeperLink(tmp_path / "keeper.sock")
        keeper, _address = listener.accept()

        def read() -> None:
            behind.wait(10)
            with keeper:
                while data := keeper.recv(1 << 16):
                    heard.append(json.loads(data)["order"])

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(MANY):
            link.say("ack", seq=number)
        link.say("exit")
        link.flush()
        assert link.behind
        behind.set()
        link.drain(20)
        assert not link.behind
        link.close()
        reader.join(20)
    assert heard == ["ack"] * MANY + ["exit"]


def test_last_words_to_nobody_end_at_once(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "keeper.sock"))
        listener.listen(1)
        link = KeeperLink(tmp_path / "keeper.sock")
        listener.accept()[0].close()
        link.say("exit")
        link.drain(60)
        link.close()
