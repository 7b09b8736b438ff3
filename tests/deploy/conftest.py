"""Two bare Debian systems on a network of their own, and what is deployed to them; all tests here share them."""

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from support.deployment import (
    MIRROR,
    WHEELS,
    Playbooks,
    build_wheel,
    debian_image,
    liboqs_archive,
    prepare_root,
    tools_missing,
    wheelhouse,
)
from support.nspawn import Machine, Network, booted, network
from support.require import require


@pytest.fixture(scope="session")
def _containers_are_possible() -> None:
    """Skip with the reason when rights or programs are missing; in CI that is a failure."""
    require(os.geteuid() == 0, "needs root to boot containers")
    missing = tools_missing()
    require(not missing, f"needs {', '.join(missing)} (Debian: systemd-container mmdebstrap dpkg-dev openssh-client)")


@pytest.fixture(scope="session")
def wheels(_containers_are_possible: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheels of this tree by what they are good for: a first version, the next one, and one whose node never starts."""
    directory = tmp_path_factory.mktemp("own-wheels")

    def break_workers(source: Path) -> None:
        (source / "workers" / "__main__.py").write_text("raise SystemExit('a mistake of the release')\n")

    return {
        "first": build_wheel(directory, "1.0.0"),
        "next": build_wheel(directory, "1.1.0"),
        "broken": build_wheel(directory, "1.2.0", change=break_workers),
    }


@pytest.fixture(scope="session")
def net(_containers_are_possible: None) -> Iterator[Network]:
    """The network of the machines."""
    with network() as net:
        yield net


@pytest.fixture(scope="session")
def playbooks(net: Network, wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Playbooks:
    """The playbooks, which install the first version unless told otherwise."""
    directory = tmp_path_factory.mktemp("ansible")
    variables: dict[str, object] = {
        "antquic_server_source": str(wheels["first"]),
        "antquic_server_settings": {"endpoint": {"workers": 2}, "relay": {"port_range": [50000, 50100]}},
    }
    archive = liboqs_archive(directory)
    if archive is not None:
        variables["antquic_server_liboqs_archive"] = str(archive)
    return Playbooks(directory, net, variables)


@pytest.fixture(scope="session")
def machines(net: Network, playbooks: Playbooks) -> Iterator[list[Machine]]:
    """Two bare systems, booted."""
    image, mirror = debian_image()
    binds = {MIRROR: mirror, WHEELS: wheelhouse()}
    prepare = partial(prepare_root, public_key=playbooks.public_key)
    with booted(net, image, ["alpha", "beta"], binds=binds, prepare=prepare) as machines:
        yield machines
