"""Names of a folder, page by page."""

from __future__ import annotations

import pytest

from connectors_grpc.memory import MemoryDocuments
from connectors_grpc.paging import count, pages


async def filled(*names: str) -> MemoryDocuments:
    """A folder with these."""
    documents = MemoryDocuments()
    for name in names:
        await documents.write(f"things/{name}", {}, cas=0)
    return documents


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_every_name_comes_once_whatever_a_page_holds(limit: int) -> None:
    """In order; the last page may be empty."""
    documents = await filled("b", "a", "c")
    found = [name async for names in pages(documents, "things", limit=limit) for name in names]
    assert found == ["a", "b", "c"]
    assert await count(documents, "things") == 3
    assert await count(documents, "nothing") == 0


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_a_prefix_leaves_out_what_stands_before_and_behind(limit: int) -> None:
    """However they fall into pages."""
    documents = await filled("a.9", "b.1", "b.2", "b.3", "c.1", "c.2")
    found = [name async for names in pages(documents, "things", prefix="b.", limit=limit) for name in names]
    assert found == ["b.1", "b.2", "b.3"]
