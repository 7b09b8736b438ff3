"""
The node key: one ML-DSA-65 key in a PEM file, made on first start.

The file is PKCS #8 with the seed form of the private key (RFC 9881), the form OpenSSL 3.5 writes, too. It
appears under its name only when it is complete and on the disk: the content goes to a temporary file beside
it, which is then *linked* to the name. Linking, unlike renaming, fails if the name is taken, so two processes
that start at once end up with one key, and a crash at any step leaves either no key or a whole one. Replacing
a key links the old one to ``.bak-1``, ``.bak-2``, … first and then renames the new one over it, so there is a
whole key under the name at every moment.
"""

import os
import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from antquic_server.errors import IdentityError
from antquic_server.protocol.raw_public_key import peer_id

__all__ = [
    "Identity",
    "create_identity",
    "default_identity_path",
    "identity_from_seed",
    "load_identity",
    "load_or_create_identity",
]

_SYSTEM_PATH = Path("/var/lib/antquic-server/node.pem")
_MAX_FILE_BYTES = 65536
"""A key file has about 130 bytes; the bound is there for paths such as ``/dev/zero``."""
_MAX_BACKUPS = 10_000
_TOO_OPEN = 0o077
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """
    The node key.

    ``seed`` (32 bytes) is the private key, ``public_key`` has 1952 bytes, ``peer_id`` 32. ``path`` is the
    file it lives in, if any; ``too_open`` tells that others than the owner may read that file, which deserves
    a warning.
    """

    seed: bytes = field(repr=False)
    public_key: bytes = field(repr=False)
    peer_id: bytes
    path: Path | None = None
    too_open: bool = False


def default_identity_path(environment: Mapping[str, str] | None = None, *, is_root: bool | None = None) -> Path:
    """
    Return where the node key lives when nobody says otherwise.

    ``/var/lib/antquic-server/node.pem`` for root, else ``antquic-server/node.pem`` in ``$XDG_STATE_HOME``
    (which must be absolute, as its specification says) or ``~/.local/state``.

    Raises:
        IdentityError: There is no home directory to put it in.
    """
    environment = os.environ if environment is None else environment
    if os.geteuid() == 0 if is_root is None else is_root:
        return _SYSTEM_PATH
    state_home = Path(environment.get("XDG_STATE_HOME", ""))
    if not state_home.is_absolute():
        try:
            state_home = Path.home() / ".local" / "state"
        except RuntimeError as exc:
            raise IdentityError("no home directory for the node key: name a file with --identity") from exc
    return state_home / "antquic-server" / "node.pem"


def identity_from_seed(seed: bytes, *, path: Path | None = None, too_open: bool = False) -> Identity:
    """Compute public key and peer id of a 32-byte seed; IdentityError if it has another length."""
    try:
        public_key = MLDSA65PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
    except ValueError as exc:
        raise IdentityError(f"node key seed has {len(seed)} bytes instead of 32") from exc
    return Identity(seed=seed, public_key=public_key, peer_id=peer_id(public_key), path=path, too_open=too_open)


def load_or_create_identity(path: Path) -> Identity:
    """
    Load the node key, or make one if the file does not exist.

    A file that exists but cannot be used is an error and stays as it is.

    Raises:
        IdentityError: As for :func:`load_identity` and :func:`create_identity`.
    """
    identity = _load_if_present(path)
    if identity is not None:
        return identity
    with suppress(FileExistsError):
        return _create(path)
    # Another process was faster; its key is complete, since that is the only way to get the name.
    return load_identity(path)


def load_identity(path: Path) -> Identity:
    """
    Load the node key from its file.

    Raises:
        IdentityError: The file is missing, unreadable, or no unencrypted ML-DSA-65 key with a seed.
    """
    identity = _load_if_present(path)
    if identity is None:
        raise IdentityError(f"{path}: no such node key")
    return identity


def create_identity(path: Path, *, replace: bool = False) -> Identity:
    """
    Make a new node key, and its directory if that is missing.

    Args:
        path: Where to put it.
        replace: Allow a file there; it is kept beside the new one as ``<name>.bak-<n>``.

    Raises:
        IdentityError: The file exists and ``replace`` is false, or the directory cannot be written.
    """
    try:
        return _create(path, replace=replace)
    except FileExistsError as exc:
        raise IdentityError(f"{path}: a node key is already there, and replacing it was not asked for") from exc


def _load_if_present(path: Path) -> Identity | None:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise IdentityError(f"{path}: cannot read the node key: {exc.strerror}") from exc
    return identity_from_seed(_parse(path, content), path=path, too_open=bool(mode & _TOO_OPEN))


def _parse(path: Path, content: bytes) -> bytes:
    if len(content) > _MAX_FILE_BYTES:
        raise IdentityError(f"{path}: too large for a node key")
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as exc:
        raise IdentityError(f"{path}: the node key is encrypted, which is not supported") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise IdentityError(f"{path}: not a PEM private key with an ML-DSA-65 seed") from exc
    if not isinstance(key, MLDSA65PrivateKey):
        raise IdentityError(f"{path}: holds another kind of key, expected ML-DSA-65")
    return key.private_bytes_raw()


def _create(path: Path, *, replace: bool = False) -> Identity:
    """Like :func:`create_identity`, but FileExistsError if the name is taken."""
    key = MLDSA65PrivateKey.generate()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        _make_directory(path.parent)
        _store(path, content, replace=replace)
    except FileExistsError as exc:
        if os.path.lexists(path) and path.parent.is_dir():
            raise
        raise IdentityError(f"{path}: cannot write the node key: {exc.strerror}") from exc
    except OSError as exc:
        raise IdentityError(f"{path}: cannot write the node key: {exc.strerror}") from exc
    return identity_from_seed(key.private_bytes_raw(), path=path)


def _make_directory(directory: Path) -> None:
    missing = [ancestor for ancestor in (directory, *directory.parents) if not ancestor.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in reversed(missing):
        _sync_directory(made.parent)  # else a power failure could take the directory away, key and all


def _store(path: Path, content: bytes, *, replace: bool) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with _ends_held_back():
        try:
            _write_durably(temporary, content)
            if replace and os.path.lexists(path):
                _keep_backup(path)
                temporary.replace(path)
            else:
                os.link(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
    _sync_directory(path.parent)


@contextmanager
def _ends_held_back() -> Iterator[None]:
    """
    Let signals that end a process wait until the block is left.

    Most end it without running any ``finally``, and the temporary file holds a private key that nobody looks for.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _write_durably(path: Path, content: bytes) -> None:
    descriptor = os.open(path, _CREATE_FLAGS, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # whatever the umask took away
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _keep_backup(path: Path) -> None:
    for number in range(1, _MAX_BACKUPS + 1):
        with suppress(FileExistsError):
            os.link(path, path.with_name(f"{path.name}.bak-{number}"), follow_symlinks=False)
            return _sync_directory(path.parent)
    raise IdentityError(f"{path}: more than {_MAX_BACKUPS} old node keys beside it")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
