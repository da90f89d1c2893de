"""The laws of `ports.Ciphers`. Inherit CiphersLaws and bring the fixtures `ciphers` and `key` (a name that is free)."""

import asyncio
import base64

import pytest

from connectors_grpc.errors import KeyMissing, Undecipherable
from connectors_grpc.grammar import sealed_version
from connectors_grpc.ports import Ciphers, KeyVersions, Sealed

HERE = b"uid-1\x00github"
GARBAGE = [
    "", "x", "vault", "vault:v1", "vault:v1:", "vault:v1:AAAA", "vault:v1:!!!", "vault:vx:AAAA", "vault:v999:" + "A" * 64,
    "vault:v1:" + "A" * 200, "v1:AAAA", "\ud800", "vault:v1:\ud800", "vault:v-1:AAAA", "vault:v1:" + "A" * 400_000,
]  # fmt: skip


def damaged(ciphertext: str) -> list[str]:
    """The ciphertext with one thing wrong each: cut, grown, one bit turned in nonce, middle and tag."""
    prefix, _, body = ciphertext.rpartition(":")
    sealed = base64.b64decode(body)

    def as_text(content: bytes) -> str:
        return f"{prefix}:{base64.b64encode(content).decode()}"

    turned = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in (0, len(sealed) // 2, len(sealed) - 1)]
    return [as_text(content) for content in (*turned, sealed[:-1], sealed[1:], sealed + b"\x00", sealed[:20], b"")]


class CiphersLaws:
    @pytest.mark.parametrize("plaintext", [b"", b"\x00", "ключ 🔑".encode(), bytes(range(256)), b"x" * 65_536])
    async def test_what_was_sealed_opens(self, ciphers: Ciphers, key: str, plaintext: bytes) -> None:
        """Any bytes, none, and as many as are allowed."""
        await ciphers.create_key(key)
        assert await ciphers.decrypt(key, HERE, await ciphers.encrypt(key, HERE, plaintext)) == plaintext

    async def test_too_much_plaintext_or_no_context_is_refused(self, ciphers: Ciphers, key: str) -> None:
        """Bounds are checked before anything is sent."""
        await ciphers.create_key(key)
        with pytest.raises(ValueError, match="64 KiB"):
            await ciphers.encrypt(key, HERE, b"x" * 65_537)
        with pytest.raises(ValueError, match="context"):
            await ciphers.encrypt(key, b"", b"x")
        with pytest.raises(ValueError, match="context"):
            await ciphers.decrypt(key, b"", "vault:v1:AAAA")

    async def test_a_ciphertext_tells_nothing_and_never_repeats(self, ciphers: Ciphers, key: str) -> None:
        """The same plaintext gives another ciphertext each time, and does not stand in it."""
        await ciphers.create_key(key)
        sealed = {await ciphers.encrypt(key, HERE, b"open sesame") for _ in range(5)}
        assert len(sealed) == 5
        assert not any(b"sesame" in base64.b64decode(text.rpartition(":")[2]) for text in sealed)

    async def test_a_data_key_comes_back_from_its_wrapping_and_in_no_other_context(
        self, ciphers: Ciphers, key: str
    ) -> None:
        """Unwrapped it is the same 32 bytes; each is another; a missing key gives none."""
        with pytest.raises(KeyMissing):
            await ciphers.data_key(key, HERE)
        await ciphers.create_key(key)
        first, second = await ciphers.data_key(key, HERE), await ciphers.data_key(key, HERE)
        assert len(first.plaintext) == 32
        assert first.plaintext != second.plaintext
        assert await ciphers.decrypt(key, HERE, first.wrapped) == first.plaintext
        with pytest.raises(Undecipherable):
            await ciphers.decrypt(key, b"elsewhere", first.wrapped)

    @pytest.mark.parametrize("other", [b"uid-2\x00github", b"uid-1\x00githuB", b"uid-1\x00github\x00", b"uid-1"])
    async def test_another_context_does_not_open_it(self, ciphers: Ciphers, key: str, other: bytes) -> None:
        """A ciphertext that was moved to another credential or tenant stays shut."""
        await ciphers.create_key(key)
        sealed = await ciphers.encrypt(key, HERE, b"secret")
        with pytest.raises(Undecipherable):
            await ciphers.decrypt(key, other, sealed)

    async def test_another_key_does_not_open_it(self, ciphers: Ciphers, key: str) -> None:
        """One tenant's ciphertext is shut to another's key."""
        await ciphers.create_key(key)
        await ciphers.create_key(f"{key}-b")
        sealed = await ciphers.encrypt(key, HERE, b"secret")
        with pytest.raises(Undecipherable):
            await ciphers.decrypt(f"{key}-b", HERE, sealed)

    async def test_a_missing_key_is_told_apart(self, ciphers: Ciphers, key: str) -> None:
        """Neither method makes a key, and both say that there is none."""
        for _ in range(2):
            with pytest.raises(KeyMissing):
                await ciphers.encrypt(key, HERE, b"secret")
            with pytest.raises(KeyMissing):
                await ciphers.decrypt(key, HERE, "vault:v1:" + "A" * 64)

    async def test_creating_an_existing_key_keeps_it(self, ciphers: Ciphers, key: str) -> None:
        """What was sealed before still opens."""
        await ciphers.create_key(key)
        sealed = await ciphers.encrypt(key, HERE, b"secret")
        await ciphers.create_key(key)
        assert await ciphers.decrypt(key, HERE, sealed) == b"secret"

    async def test_a_shredded_key_never_opens_again(self, ciphers: Ciphers, key: str) -> None:
        """Gone at once, and a key made anew under that name can't read what the old one sealed."""
        await ciphers.create_key(key)
        sealed = await ciphers.encrypt(key, HERE, b"secret")
        await ciphers.shred_key(key)
        with pytest.raises(KeyMissing):
            await ciphers.decrypt(key, HERE, sealed)
        await ciphers.create_key(key)
        with pytest.raises(Undecipherable):
            await ciphers.decrypt(key, HERE, sealed)

    async def test_shredding_what_is_absent_is_no_error(self, ciphers: Ciphers, key: str) -> None:
        """Never there, twice, and two at once."""
        await ciphers.shred_key(key)
        await ciphers.create_key(key)
        await asyncio.gather(*(ciphers.shred_key(key) for _ in range(4)))
        await ciphers.shred_key(key)

    async def test_garbage_does_not_open(self, ciphers: Ciphers, key: str) -> None:
        """Whatever text was stored, it is Undecipherable and nothing else."""
        await ciphers.create_key(key)
        for text in GARBAGE:
            with pytest.raises(Undecipherable):
                await ciphers.decrypt(key, HERE, text)

    async def test_damage_does_not_open(self, ciphers: Ciphers, key: str) -> None:
        """One bit is enough."""
        await ciphers.create_key(key)
        for text in damaged(await ciphers.encrypt(key, HERE, b"secret of some length")):
            with pytest.raises(Undecipherable):
                await ciphers.decrypt(key, HERE, text)

    @pytest.mark.parametrize("name", ["", "..", "a/b", "A", "a b", "a%2f", "x" * 129, "a\n"])
    async def test_a_name_outside_the_grammar_goes_nowhere(self, ciphers: Ciphers, key: str, name: str) -> None:
        """Checked once more before a URL is built, in every method."""
        with pytest.raises(ValueError, match="name"):
            await ciphers.create_key(name)
        with pytest.raises(ValueError, match="name"):
            await ciphers.encrypt(name, HERE, b"")
        with pytest.raises(ValueError, match="name"):
            await ciphers.decrypt(name, HERE, "vault:v1:AAAA")
        with pytest.raises(ValueError, match="name"):
            await ciphers.shred_key(name)
        with pytest.raises(ValueError, match="name"):
            await ciphers.key_versions(name)
        with pytest.raises(ValueError, match="name"):
            await ciphers.rotate(name)
        with pytest.raises(ValueError, match="name"):
            await ciphers.rewrap(name, [Sealed(HERE, "vault:v1:AAAA")])
        with pytest.raises(ValueError, match="name"):
            await ciphers.retire(name, 1)

    async def test_a_rotated_key_seals_by_the_new_version_and_opens_the_old(self, ciphers: Ciphers, key: str) -> None:
        """Nothing is lost by rotating; each ciphertext says its version."""
        await ciphers.create_key(key)
        assert await ciphers.key_versions(key) == KeyVersions(1, 1)
        old = await ciphers.encrypt(key, HERE, b"old")
        await ciphers.rotate(key)
        new = await ciphers.encrypt(key, HERE, b"new")
        assert (sealed_version(old), sealed_version(new)) == (1, 2)
        assert await ciphers.key_versions(key) == KeyVersions(2, 1)
        assert [await ciphers.decrypt(key, HERE, text) for text in (old, new)] == [b"old", b"new"]

    async def test_rewrapping_brings_all_that_opens_to_the_latest_version(self, ciphers: Ciphers, key: str) -> None:
        """In order, each in its own context; what does not open is told apart and harms no other."""
        await ciphers.create_key(key)
        contexts = [f"uid\x00{number}".encode() for number in range(100)]
        items = [Sealed(context, await ciphers.encrypt(key, context, context)) for context in contexts]
        await ciphers.rotate(key)
        items[3] = Sealed(contexts[4], items[3].ciphertext)
        items[7] = Sealed(contexts[7], "vault:v1:AAAA")
        items[9] = Sealed(contexts[9], "")
        items[11] = Sealed(contexts[11], "vault:v9:" + "A" * 64)
        rewrapped = await ciphers.rewrap(key, items)
        assert [at for at, text in enumerate(rewrapped) if text is None] == [3, 7, 9, 11]
        for context, text in zip(contexts, rewrapped, strict=True):
            if text is not None:
                assert sealed_version(text) == 2
                assert await ciphers.decrypt(key, context, text) == context

    async def test_a_batch_of_which_nothing_opens_is_no_error(self, ciphers: Ciphers, key: str) -> None:
        """Every garbage, one by one and together."""
        await ciphers.create_key(key)
        for text in (text for text in GARBAGE if len(text) < 1000):
            assert await ciphers.rewrap(key, [Sealed(HERE, text)]) == [None]
        small = [Sealed(HERE, text) for text in GARBAGE if len(text) < 1000]
        assert await ciphers.rewrap(key, small) == [None] * len(small)

    async def test_a_batch_is_bounded(self, ciphers: Ciphers, key: str) -> None:
        """In number, in size; and no context may be empty."""
        await ciphers.create_key(key)
        for items in ([], [Sealed(HERE, "x")] * 101, [Sealed(HERE, "x" * 600_000)], [Sealed(b"", "vault:v1:AAAA")]):
            with pytest.raises(ValueError, match=r"batch|context"):
                await ciphers.rewrap(key, items)

    async def test_the_largest_plaintexts_can_be_rewrapped(self, ciphers: Ciphers, key: str) -> None:
        """As many as the bound takes, in one batch."""
        await ciphers.create_key(key)
        sealed = Sealed(HERE, await ciphers.encrypt(key, HERE, b"x" * 65_536))
        await ciphers.rotate(key)
        assert [sealed_version(text or "") for text in await ciphers.rewrap(key, [sealed] * 5)] == [2] * 5

    async def test_what_a_retired_version_sealed_never_opens_again(self, ciphers: Ciphers, key: str) -> None:
        """The new one's does; retiring again, or lower, changes nothing; what is to come can't be retired."""
        await ciphers.create_key(key)
        old = await ciphers.encrypt(key, HERE, b"old")
        await ciphers.rotate(key)
        (new,) = await ciphers.rewrap(key, [Sealed(HERE, old)])
        for version in (2, 2, 1):
            await ciphers.retire(key, version)
        assert await ciphers.key_versions(key) == KeyVersions(2, 2)
        assert new is not None
        assert await ciphers.decrypt(key, HERE, new) == b"old"
        with pytest.raises(Undecipherable):
            await ciphers.decrypt(key, HERE, old)
        assert await ciphers.rewrap(key, [Sealed(HERE, old)]) == [None]
        with pytest.raises(ValueError, match="version"):
            await ciphers.retire(key, 3)

    async def test_a_key_that_was_rotated_often_retires_all_before(self, ciphers: Ciphers, key: str) -> None:
        """Several versions at once, and then again one."""
        await ciphers.create_key(key)
        for _ in range(4):
            await ciphers.rotate(key)
        await ciphers.retire(key, 4)
        assert await ciphers.key_versions(key) == KeyVersions(5, 4)
        await ciphers.retire(key, 5)
        assert await ciphers.decrypt(key, HERE, await ciphers.encrypt(key, HERE, b"x")) == b"x"

    async def test_a_missing_key_has_no_versions(self, ciphers: Ciphers, key: str) -> None:
        """Not to be read, rotated, rewrapped or retired, and none is made by trying."""
        calls = (
            lambda: ciphers.key_versions(key),
            lambda: ciphers.rotate(key),
            lambda: ciphers.rewrap(key, [Sealed(HERE, "vault:v1:" + "A" * 64)]),
            lambda: ciphers.retire(key, 1),
        )
        for _ in range(2):
            for call in calls:
                with pytest.raises(KeyMissing):
                    await call()

    async def test_many_at_once_do_not_mix_answers(self, ciphers: Ciphers, key: str) -> None:
        """Sixty callers over one pool each get their own."""
        await ciphers.create_key(key)

        async def there_and_back(number: int) -> bytes:
            context = f"uid\x00{number}".encode()
            return await ciphers.decrypt(key, context, await ciphers.encrypt(key, context, str(number).encode()))

        assert await asyncio.gather(*map(there_and_back, range(60))) == [str(number).encode() for number in range(60)]
