"""Which provider a name stands for."""

from typing import NoReturn

import pytest

from antquic_server.errors import ExitCode, ProviderUnavailableError
from antquic_server.pqc import select
from antquic_server.pqc.select import load_provider
from support.pqc import load_or_skip


def missing() -> NoReturn:
    """Stand in for a machine without liboqs."""
    raise ProviderUnavailableError("liboqs is not installed: install it")


def test_cryptography_does_not_look_for_liboqs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming ``cryptography`` costs no search."""
    monkeypatch.setattr(select, "load_liboqs", lambda: pytest.fail("looked for liboqs"))
    assert load_provider("cryptography").name == "cryptography"


def test_auto_takes_liboqs_if_it_is_there() -> None:
    """The faster provider wins."""
    load_or_skip("liboqs")
    assert load_provider("auto").name == load_provider("liboqs").name == "liboqs"


def test_auto_falls_back_to_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without liboqs ``auto`` still works."""
    monkeypatch.setattr(select, "load_liboqs", missing)
    assert load_provider("auto").name == "cryptography"


def test_liboqs_that_is_missing_cannot_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for liboqs where there is none stops the node."""
    monkeypatch.setattr(select, "load_liboqs", missing)
    with pytest.raises(ProviderUnavailableError, match="not installed") as caught:
        load_provider("liboqs")
    assert caught.value.exit_code is ExitCode.CANNOT_BOOT
