"""The laws of `ports.Documents`. Inherit DocumentsLaws and bring the fixtures `documents` and `folder`."""

import asyncio
from collections.abc import Awaitable

import pytest

from connectors_grpc.errors import Conflict
from connectors_grpc.ports import Document, Documents, Json

BAD_PATHS = [
    "", "/", "lonely", "/a/b", "a/b/", "a//b", "a/../b", "a/.", "..", "a/B", "a/b c", "a/b%2f", "a/b?list=true", "a/b#x", "a/é",
    "a/b\n", "a/" + "x" * 129, "a/b\\c", "/".join("a" * 9),
]  # fmt: skip


async def won(attempt: Awaitable[int]) -> bool:
    """Whether a write won its race."""
    try:
        await attempt
    except Conflict:
        return False
    return True


class DocumentsLaws:
    async def test_what_is_absent_reads_as_none(self, documents: Documents, folder: str) -> None:
        """No document is None, in a folder that is there and in one that is not."""
        await documents.write(f"{folder}/here", {}, cas=0)
        assert await documents.read(f"{folder}/there") is None
        assert await documents.read(f"{folder}-nowhere/there") is None

    async def test_a_write_is_read_back_at_once(self, documents: Documents, folder: str) -> None:
        """Read your own write, with its version, which counts from 1."""
        assert await documents.write(f"{folder}/one", {"n": 1}, cas=0) == 1
        assert await documents.read(f"{folder}/one") == Document({"n": 1}, 1)
        assert await documents.write(f"{folder}/one", {"n": 2}, cas=1) == 2
        assert await documents.read(f"{folder}/one") == Document({"n": 2}, 2)

    async def test_data_comes_back_as_it_went_in(self, documents: Documents, folder: str) -> None:
        """Nesting, Unicode, empty things, numbers up to 2**53 and control characters survive."""
        data: Json = {
            "text": 'naïve \u2028 \U0001f511 <&> \x00 "\\',
            "empty": {"object": {}, "list": [], "text": ""},
            "numbers": [0, -1, 2**53, -(2**53), 1.5, 1e-9, 1e300],
            "flags": [True, False, None],
        }
        await documents.write(f"{folder}/data", data, cas=0)
        assert await documents.read(f"{folder}/data") == Document(data, 1)

    @pytest.mark.parametrize(
        "data", [{"n": 2**53 + 1}, {"n": [float("nan")]}, {"n": float("inf")}, {"x": "y" * 600_000}]
    )
    async def test_data_that_would_change_is_refused(self, documents: Documents, folder: str, data: Json) -> None:
        """Numbers that a double can't hold, and documents above the bound, are our own bug."""
        with pytest.raises(ValueError, match=r"number|JSON|KiB"):
            await documents.write(f"{folder}/data", data, cas=0)
        assert await documents.read(f"{folder}/data") is None

    async def test_a_large_document_fits(self, documents: Documents, folder: str) -> None:
        """Half a MiB goes both ways."""
        data = {"x": "y" * 500_000}
        await documents.write(f"{folder}/large", data, cas=0)
        assert await documents.read(f"{folder}/large") == Document(data, 1)

    @pytest.mark.parametrize(
        "data",
        [
            {"x": ["y"] * 5_000},
            {"x": {f"k{n}": n for n in range(2_000)}},
            {"x": [{"seq": n, "change": {"tenant": f"t-{n}", "key": None}} for n in range(512)]},
            {"x": ['"\\' * 100] * 1_200},
            {"x": ["\u00e9\u20ac"] * 2_000},
            {"packed_json": "{}"},
            {"packed_json": 1, "x": ["y"] * 2_000},
        ],
        ids=["texts", "names", "both", "quotes", "beyond ASCII", "like a packed one", "a name of ours"],
    )
    async def test_a_document_of_many_texts_fits(self, documents: Documents, folder: str, data: Json) -> None:
        """OpenBao refuses requests of more than 1,000 strings; that is not for the callers to know."""
        await documents.write(f"{folder}/many", data, cas=0)
        assert await documents.read(f"{folder}/many") == Document(data, 1)

    async def test_create_only_refuses_what_exists(self, documents: Documents, folder: str) -> None:
        """cas=0 means that none may exist."""
        await documents.write(f"{folder}/one", {"n": 1}, cas=0)
        with pytest.raises(Conflict):
            await documents.write(f"{folder}/one", {"n": 2}, cas=0)
        assert await documents.read(f"{folder}/one") == Document({"n": 1}, 1)

    async def test_a_stale_or_early_writer_loses(self, documents: Documents, folder: str) -> None:
        """Only the current version may be replaced: not an older one, not one to come, not one of what is absent."""
        await documents.write(f"{folder}/one", {"n": 1}, cas=0)
        await documents.write(f"{folder}/one", {"n": 2}, cas=1)
        for cas in (1, 3):
            with pytest.raises(Conflict):
                await documents.write(f"{folder}/one", {"n": 3}, cas=cas)
        with pytest.raises(Conflict):
            await documents.write(f"{folder}/absent", {}, cas=1)
        assert await documents.read(f"{folder}/absent") is None

    async def test_without_cas_a_write_replaces_whatever_is_there(self, documents: Documents, folder: str) -> None:
        """cas=None creates, then replaces."""
        assert await documents.write(f"{folder}/one", {"n": 1}, cas=None) == 1
        assert await documents.write(f"{folder}/one", {"n": 2}, cas=None) == 2

    @pytest.mark.parametrize("present", [False, True])
    async def test_of_twenty_racers_exactly_one_wins(self, documents: Documents, folder: str, present: bool) -> None:
        """Compare-and-set holds under concurrency, for creation and for replacement."""
        cas = await documents.write(f"{folder}/race", {}, cas=0) if present else 0
        racers = (won(documents.write(f"{folder}/race", {"racer": n}, cas=cas)) for n in range(20))
        assert sum(await asyncio.gather(*racers)) == 1
        found = await documents.read(f"{folder}/race")
        assert found is not None
        assert found.version == cas + 1

    async def test_after_a_purge_the_path_is_as_new(self, documents: Documents, folder: str) -> None:
        """Nothing to read, cas=0 works again, versions count from 1 again, and the old version is no longer current."""
        for cas in (0, 1):
            await documents.write(f"{folder}/one", {"n": cas}, cas=cas)
        await documents.purge(f"{folder}/one")
        assert await documents.read(f"{folder}/one") is None
        with pytest.raises(Conflict):
            await documents.write(f"{folder}/one", {}, cas=2)
        assert await documents.write(f"{folder}/one", {"n": 9}, cas=0) == 1

    async def test_a_replacement_counts_on(self, documents: Documents, folder: str) -> None:
        """Unlike a purge, it leaves no version number to be taken twice: a stale writer loses, and a stale replacer too."""
        for cas in range(3):
            await documents.write(f"{folder}/one", {"n": cas}, cas=cas)
        assert await documents.replace(f"{folder}/one", {"n": 9}, cas=3) == 4
        assert await documents.read(f"{folder}/one") == Document({"n": 9}, 4)
        for cas in (1, 3):
            with pytest.raises(Conflict):
                await documents.write(f"{folder}/one", {}, cas=cas)
        with pytest.raises(Conflict):
            await documents.replace(f"{folder}/one", {}, cas=3)

    async def test_purging_what_is_absent_is_no_error(self, documents: Documents, folder: str) -> None:
        """Twice, and never there."""
        await documents.write(f"{folder}/one", {}, cas=0)
        for name in ("one", "one", "never"):
            await documents.purge(f"{folder}/{name}")

    async def test_a_purge_leaves_the_neighbours(self, documents: Documents, folder: str) -> None:
        """Only that path goes, not those that begin alike."""
        for name in ("a", "ab", "a.b"):
            await documents.write(f"{folder}/{name}", {}, cas=0)
        await documents.purge(f"{folder}/a")
        assert (await documents.list(folder)).names == ("a.b", "ab")

    async def test_an_unknown_folder_lists_empty(self, documents: Documents, folder: str) -> None:
        """Never there, and emptied."""
        assert (await documents.list(folder)).names == ()
        await documents.write(f"{folder}/one", {}, cas=0)
        await documents.purge(f"{folder}/one")
        page = await documents.list(folder)
        assert (page.names, page.more) == ((), False)

    async def test_names_come_sorted_and_cut(self, documents: Documents, folder: str) -> None:
        """In order of bytes; `after` is exclusive and need not exist; `more` is exact at the edges."""
        names = ["-x", "10", "9", "a", "a-b", "a.b", "a_b", "ab", "z"]
        for name in reversed(names):
            await documents.write(f"{folder}/{name}", {}, cas=0)
        assert list((await documents.list(folder)).names) == names
        for limit, more in ((1, True), (8, True), (9, False), (10, False)):
            page = await documents.list(folder, limit=limit)
            assert (list(page.names), page.more) == (names[:limit], more)
        assert (await documents.list(folder, after="a")).names == ("a-b", "a.b", "a_b", "ab", "z")
        assert (await documents.list(folder, after="aa", limit=1)).names == ("ab",)
        page = await documents.list(folder, after="z")
        assert (page.names, page.more) == ((), False)

    async def test_pages_under_inserts_give_each_name_once(self, documents: Documents, folder: str) -> None:
        """Names put in and taken out while somebody pages do not repeat or hide the others."""
        stable = [f"n{number:02}" for number in range(20)]
        await asyncio.gather(*(documents.write(f"{folder}/{name}", {}, cas=0) for name in stable))
        seen: list[str] = []
        more, turn = True, 0
        while more:
            page = await documents.list(folder, after=seen[-1] if seen else "", limit=3)
            seen, more, turn = [*seen, *page.names], page.more, turn + 1
            for name in (f"m{turn}", f"n{turn:02}-new", f"o{turn}"):
                if turn < 6:
                    await documents.write(f"{folder}/{name}", {}, cas=0)
            await documents.purge(f"{folder}/m{turn}")
        assert len(seen) == len(set(seen))
        assert set(stable) <= set(seen)

    @pytest.mark.parametrize("path", BAD_PATHS)
    async def test_a_path_outside_the_grammar_goes_nowhere(self, documents: Documents, folder: str, path: str) -> None:
        """Checked once more before a URL is built, in every method."""
        with pytest.raises(ValueError, match="path"):
            await documents.read(path)
        with pytest.raises(ValueError, match="path"):
            await documents.write(path, {}, cas=None)
        with pytest.raises(ValueError, match="path"):
            await documents.purge(path)
        if path != "lonely":
            with pytest.raises(ValueError, match="path"):
                await documents.list(path)

    async def test_many_at_once_do_not_mix_answers(self, documents: Documents, folder: str) -> None:
        """Sixty writers and readers over one pool each get their own."""
        numbers = range(60)
        await asyncio.gather(*(documents.write(f"{folder}/d{n}", {"n": n}, cas=0) for n in numbers))
        found = await asyncio.gather(*(documents.read(f"{folder}/d{n}") for n in numbers))
        assert found == [Document({"n": n}, 1) for n in numbers]
