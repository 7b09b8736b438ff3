"""
Files over a stream between peers.

Layout of the sender's half; the receiver's half is the 32 bytes of the SHA-256 of what it has stored::

    "ANTFILE1" (8)  length of the name (2)  name, UTF-8  length of the file (8)  the file  SHA-256 of the file (32)

Lengths are big-endian. The name is a suggestion: of a path only the last part counts, and nothing is overwritten.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile

from antquic_server.errors import MessageDecodeError, PeerError, UsageError
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.stream import PeerStream

__all__ = ["Progress", "Transfer", "receive_file", "send_file"]

MAGIC = b"ANTFILE1"
MAX_NAME_BYTES = 255
MAX_STORED_NAME_BYTES = 240
"""Of a file that is stored, in UTF-8: file systems take 255, and a number may be added."""
DIGEST_BYTES = 32
CHUNK_BYTES = 256 * 1024
MAX_COPIES = 10_000
MAX_CHARACTER_BYTES = 4
"""Of UTF-8."""

Progress = Callable[[str, int, int], None]
"""Called with the name, the bytes done and the bytes of the whole file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A file that has arrived whole: where it is, its length, its SHA-256 in hexadecimal."""

    path: Path
    size_bytes: int
    sha256: str


async def send_file(connection: PeerConnection, path: Path, progress: Progress) -> Transfer:
    """
    Send a file and wait until the receiver has confirmed what it stored.

    Raises:
        UsageError: The file cannot be read.
        PeerError: The connection or the stream ended early, or the receiver has something else.
    """
    digest = sha256()
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            stream = await connection.open_stream()
            name = _cut(os.fsencode(path.name), MAX_NAME_BYTES)
            await stream.write(MAGIC + len(name).to_bytes(2, "big") + name + size.to_bytes(8, "big"))
            done = 0
            while chunk := await asyncio.to_thread(file.read, min(CHUNK_BYTES, size - done)):
                digest.update(chunk)
                await stream.write(chunk)
                done += len(chunk)
                progress(path.name, done, size)
            if done != size:
                stream.reset()
                raise UsageError(f"{path}: became shorter while it was sent")
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}") from exc
    await stream.write(digest.digest())
    await stream.close()
    if await stream.read_exactly(DIGEST_BYTES) != digest.digest():
        raise PeerError(f"{path}: the receiver has stored something else")
    return Transfer(path=path, size_bytes=size, sha256=digest.hexdigest())


async def receive_file(stream: PeerStream, directory: Path, progress: Progress) -> Transfer:
    """
    Store one file in ``directory`` and confirm it.

    Raises:
        MessageDecodeError: What arrives is no file, or not the one that was announced.
        PeerError: The stream ended early, or the file cannot be stored.
    """
    name, size = await _read_header_untrusted(stream)
    digest = sha256()
    try:
        with NamedTemporaryFile(dir=directory, prefix=".incoming-", delete=False) as file:
            temporary = Path(file.name)
            try:
                done = 0
                while done < size:
                    chunk = await stream.read(min(CHUNK_BYTES, size - done))
                    if not chunk:
                        raise PeerError(f"{name}: ended after {done} of {size} bytes")
                    digest.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
                    done += len(chunk)
                    progress(name, done, size)
                if await stream.read_exactly(DIGEST_BYTES) != digest.digest():
                    raise MessageDecodeError(f"{name}: the checksum does not match")
                file.flush()
                path = _link_as(temporary, directory, name)
            finally:
                _discard(temporary)
    except OSError as exc:
        # What a stranger sends is no mistake of whoever receives: the disk is full, or too much is asked of it.
        raise PeerError(f"{name}: cannot be stored in {directory}: {exc.strerror}") from exc
    with suppress(PeerError):
        # It has arrived whole and is stored, even if the sender has not waited to hear so.
        await stream.write(digest.digest())
        await stream.close()
    return Transfer(path=path, size_bytes=size, sha256=digest.hexdigest())


async def _read_header_untrusted(stream: PeerStream) -> tuple[str, int]:
    if await stream.read_exactly(len(MAGIC)) != MAGIC:
        raise MessageDecodeError("what arrives is no file")
    length = int.from_bytes(await stream.read_exactly(2), "big")
    if not 0 < length <= MAX_NAME_BYTES:
        raise MessageDecodeError(f"file name of {length} bytes: expected 1 to {MAX_NAME_BYTES}")
    raw = await stream.read_exactly(length)
    size = int.from_bytes(await stream.read_exactly(8), "big")
    return _safe_name_untrusted(raw), size


def _safe_name_untrusted(raw: bytes) -> str:
    """Return the last part of a path, without anything that would command a terminal or hide the file; not too long."""
    text = raw.decode("utf-8", "replace").replace("\\", "/")
    name = "".join(char if char.isprintable() else "_" for char in PurePosixPath(text).name).lstrip(".")
    # Every byte that is no UTF-8 has become three, so that even a name of 255 may be too long.
    return _cut(name.encode(), MAX_STORED_NAME_BYTES).decode() or "unnamed"


def _cut(name: bytes, limit_bytes: int) -> bytes:
    """Return the beginning of a name, up to the end of a character; what is no UTF-8 is cut anywhere."""
    end = min(len(name), limit_bytes)
    for _ in range(MAX_CHARACTER_BYTES - 1):
        if end < len(name) and name[end] & 0xC0 == 0x80:
            end -= 1
    return name[:end]


def _discard(temporary: Path) -> None:
    """Remove the first name of a file; a second one keeps it."""
    temporary.unlink(missing_ok=True)


def _link_as(temporary: Path, directory: Path, name: str) -> Path:
    """Give a complete file its name, or that name with a number if it is taken."""
    for number in range(MAX_COPIES):
        path = directory / (f"{name}.{number}" if number else name)
        try:
            os.link(temporary, path)
        except FileExistsError:
            continue
        return path
    raise PeerError(f"{directory}: more than {MAX_COPIES} files named {name}")
