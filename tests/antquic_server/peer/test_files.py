"""Files over streams."""

import asyncio
import errno
import os
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import MessageDecodeError, PeerError, UsageError
from antquic_server.peer.files import MAGIC, _cut, _link_as, _safe_name_untrusted, receive_file, send_file
from support.peers import Couple, with_couple


def quiet(_name: str, _done: int, _total: int) -> None:
    """Show no progress."""


@pytest.mark.parametrize("size", [0, 1, 1_000_000])
def test_a_file_arrives_under_its_name(tmp_path: Path, size: int) -> None:
    """Whole, confirmed, and with progress up to its end."""
    source, inbox = tmp_path / "picture.bin", tmp_path / "inbox"
    source.write_bytes(b"x" * size)
    inbox.mkdir()
    seen: list[tuple[str, int, int]] = []

    async def story(couple: Couple) -> None:
        async def receive() -> Path:
            return (await receive_file(await couple.there.accept_stream(), inbox, quiet)).path

        receiver = asyncio.create_task(receive())
        sent = await send_file(couple.here, source, lambda *facts: seen.append(facts))
        assert await receiver == inbox / "picture.bin"
        assert sent.sha256 == sha256(source.read_bytes()).hexdigest()

    with_couple(story)
    assert (inbox / "picture.bin").read_bytes() == source.read_bytes()
    assert [item.name for item in inbox.iterdir()] == ["picture.bin"]
    assert not size or seen[-1] == ("picture.bin", size, size)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A second file of the name gets a number."""
    source, inbox = tmp_path / "a", tmp_path / "inbox"
    source.write_bytes(b"new")
    inbox.mkdir()
    (inbox / "a").write_bytes(b"old")

    async def story(couple: Couple) -> None:
        async def receive() -> Path:
            return (await receive_file(await couple.there.accept_stream(), inbox, quiet)).path

        receiver = asyncio.create_task(receive())
        await send_file(couple.here, source, quiet)
        assert await receiver == inbox / "a.1"

    with_couple(story)
    assert (inbox / "a").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"GARBAGE!" + bytes(50), MessageDecodeError),
        (MAGIC + b"\0\0" + bytes(8), MessageDecodeError),
        (MAGIC + b"\0\1a" + (5).to_bytes(8, "big") + b"12345" + bytes(32), MessageDecodeError),
        (MAGIC + b"\0\1a" + (5).to_bytes(8, "big") + b"123", PeerError),
    ],
    ids=["no file", "no name", "wrong checksum", "cut short"],
)
def test_what_is_no_whole_file_leaves_nothing_behind(tmp_path: Path, sent: bytes, error: type[Exception]) -> None:
    """Not even a temporary file."""

    async def story(couple: Couple) -> None:
        stream = await couple.here.open_stream()
        await stream.write(sent)
        await stream.close()
        with pytest.raises(error):
            await receive_file(await couple.there.accept_stream(), tmp_path, quiet)

    with_couple(story)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    """With its path."""

    async def story(couple: Couple) -> None:
        with pytest.raises(UsageError, match="nothing-here"):
            await send_file(couple.here, tmp_path / "nothing-here", quiet)

    with_couple(story)


def test_a_file_that_cannot_be_stored_is_a_failed_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a mistake of whoever receives; nothing is left, and the next file is stored."""
    source, inbox = tmp_path / "a", tmp_path / "inbox"
    source.write_bytes(b"x" * 1000)
    inbox.mkdir()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def story(couple: Couple) -> None:
        sender = asyncio.create_task(send_file(couple.here, source, quiet))
        stream = await couple.there.accept_stream()
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", full)
            with pytest.raises(PeerError, match=r"^a: cannot be stored in .*: No space left"):
                await receive_file(stream, inbox, quiet)
        assert list(inbox.iterdir()) == []
        sender.cancel()
        again = asyncio.create_task(send_file(couple.here, source, quiet))
        await receive_file(await couple.there.accept_stream(), inbox, quiet)
        await again

    with_couple(story)
    assert (inbox / "a").read_bytes() == source.read_bytes()


def test_a_name_that_is_no_utf_8_is_sent_all_the_same(tmp_path: Path) -> None:
    """And stored with a mark in the place of what is none."""
    source, inbox = tmp_path / os.fsdecode(b"bad\xff.txt"), tmp_path / "inbox"
    source.write_bytes(b"x")
    inbox.mkdir()

    async def story(couple: Couple) -> None:
        sender = asyncio.create_task(send_file(couple.here, source, quiet))
        await receive_file(await couple.there.accept_stream(), inbox, quiet)
        await sender

    with_couple(story)
    assert [item.name for item in inbox.iterdir()] == ["bad\ufffd.txt"]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=90), st.integers(0, 255))
def test_a_cut_name_ends_with_a_whole_character(name: str, limit: int) -> None:
    """It is as long as it may be."""
    cut = _cut(name.encode(), limit)

    assert name.startswith(cut.decode())
    assert len(cut) <= limit
    assert cut == name.encode() or len(cut) > limit - 4


@pytest.mark.parametrize("raw", [b"\xff" * 255, b"l" * 251 + b".txt", "é".encode() * 127], ids=["no UTF-8", "l", "é"])
def test_the_longest_names_are_cut(tmp_path: Path, raw: bytes) -> None:
    """So that the file can be stored, and a second one of that name as well."""
    name = _safe_name_untrusted(raw)

    assert 235 < len(os.fsencode(name)) <= 240
    assert raw.decode("utf-8", "replace").startswith(name)
    for _ in range(2):
        with tempfile.NamedTemporaryFile(dir=tmp_path) as temporary:
            _link_as(Path(temporary.name), tmp_path, name)
    assert {item.name for item in tmp_path.iterdir()} == {name, f"{name}.1"}


@given(st.binary(max_size=300))
def test_a_name_never_leaves_the_directory(raw: bytes) -> None:
    """Whatever the sender calls its file."""
    name = _safe_name_untrusted(raw)

    assert name
    assert "/" not in name
    assert not name.startswith(".")
    assert name.isprintable()
    assert len(name.encode()) <= 240
