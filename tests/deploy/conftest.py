"""Two bare Debian systems on a network of their own, and what is deployed to them; all tests here share them."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from support.deployment import (
    MIRROR,
    WHEELS,
    Deployed,
    Playbooks,
    build_wheel,
    debian_image,
    files_of,
    liboqs_archive,
    prepare_root,
    tools_missing,
    wheelhouse,
)
from support.nspawn import Network, booted, network
from support.require import require


@pytest.fixture(scope="session")
def containers_are_possible() -> None:
    """Skip with the reason when rights or programs are missing; in CI that is a failure."""
    require(os.geteuid() == 0, "needs root to boot containers")
    missing = tools_missing()
    require(not missing, f"needs {', '.join(missing)} (Debian: systemd-container mmdebstrap dpkg-dev openssh-client)")


@pytest.fixture(scope="session")
def wheels(containers_are_possible: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
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
def net(containers_are_possible: None) -> Iterator[Network]:
    """The network of the machines."""
    with network() as net:
        yield net


@pytest.fixture(scope="session")
def playbooks(net: Network, wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Playbooks:
    """
    The playbooks, which install the first version unless told otherwise.

    ``alpha`` is a node with little said about it; for ``beta`` everything is otherwise.
    """
    directory = tmp_path_factory.mktemp("ansible")
    alpha: dict[str, object] = {
        "antquic_server_settings": {"endpoint": {"workers": 2}, "relay": {"port_range": [50000, 50100]}}
    }
    archive = liboqs_archive(directory)
    if archive is not None:
        alpha["antquic_server_liboqs_archive"] = str(archive)
    beta = {
        "antquic_server_settings": {
            "endpoint": {"workers": 1, "listen": ["0.0.0.0:443"]},
            "admin": {"listen": "0.0.0.0:9443", "allow_remote": True},
            "relay": {"enabled": False},
            "log": {"level": "debug", "modules": {"net.udp": "error"}},
        },
        "antquic_server_user": "quic",
        "antquic_server_group": "quic",
        "antquic_server_firewall_policy": "drop",
        "antquic_server_firewall_admin_sources": [f"{net.host}/32"],
        "antquic_server_journal_max_use": "",
        "antquic_server_tuning": False,
        "antquic_server_log_file": "node.log",
        "antquic_server_prometheus_directory": "/srv",
        "antquic_server_prometheus_labels": {"site": "lab"},
    }
    variables = {"antquic_server_source": str(wheels["first"])}
    return Playbooks(directory, net, variables, {"alpha": alpha, "beta": beta})


@pytest.fixture(scope="session")
def deployed(playbooks: Playbooks, net: Network, wheels: dict[str, Path]) -> Iterator[Deployed]:
    """Boot two bare systems, look at all their files, and deploy; the tests here share what comes of it."""
    image, mirror = debian_image()
    binds = {MIRROR: mirror, WHEELS: wheelhouse()}
    prepare = partial(prepare_root, public_key=playbooks.public_key)
    with booted(net, image, ["alpha", "beta"], binds=binds, prepare=prepare) as machines:
        pristine = [files_of(machine.root) for machine in machines]
        check = playbooks.run("site.yml", machines, "--check")
        recap = playbooks.run("site.yml", machines)
        recap.require_success()
        yield Deployed(
            machines=machines, check=check, recap=recap, playbooks=playbooks, wheels=wheels, pristine=pristine
        )
