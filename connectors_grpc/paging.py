"""All names in a folder of documents, page by page, however many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from connectors_grpc.ports import Documents


async def pages(
    documents: Documents, folder: str, *, prefix: str = "", limit: int = 1000
) -> AsyncIterator[Sequence[str]]:
    """The names that begin so, in ascending order. What comes or goes meanwhile may be missed; no name comes twice.

    Raises: VaultUnavailable.
    """
    after, more = prefix, True
    while more:
        page = await documents.list(folder, after=after, limit=limit)
        names = [name for name in page.names if name.startswith(prefix)]
        yield names
        more = page.more and bool(names) and len(names) == len(page.names)
        after = names[-1] if names else after


async def count(documents: Documents, folder: str) -> int:
    """How many names there are."""
    counted = 0
    async for names in pages(documents, folder):
        counted += len(names)
    return counted
