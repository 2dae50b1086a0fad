"""What the tests with the real Celery share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.kombu_peer import Kombu


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first of these tests may have to install Celery."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def kombu(celery_python: Path) -> Iterator[Kombu]:
    """The real kombu, in a process of its own."""
    peer = Kombu(celery_python)
    yield peer
    peer.close()


@pytest.fixture
def foreign_keys() -> Sequence[str]:
    """What a Celery client or worker leaves in the broker's database."""
    return (r"_kombu\.binding.*", "unacked.*", r".*\.reply\.celery\.pidbox")
