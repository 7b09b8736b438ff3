"""Tests of opening what a node needs."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from antquic_server.config.load import load_settings
from antquic_server.config.model import Settings, from_plain
from antquic_server.errors import CannotBootError, PortInUseError
from antquic_server.identity import identity_from_seed
from antquic_server.supervisor.boot import (
    AssignmentWriter,
    open_admin_socket,
    open_endpoint,
    worker_environment,
)
from antquic_server.supervisor.cpus import UsableCpus
from antquic_server.supervisor.privileges import find_account

TWO_CPUS = UsableCpus(numbers=(3, 5), quota=None)


def settings_with(*overrides: str) -> Settings:
    """Settings on free loopback ports."""
    return load_settings(None, overrides=["endpoint.listen=['127.0.0.1:0']", "admin.listen='127.0.0.1:0'", *overrides])


def test_endpoint_has_a_socket_and_a_stray_channel_per_slot() -> None:
    """Every worker inherits all of them; addresses have real ports."""
    endpoint = open_endpoint(settings_with("endpoint.workers=3"), TWO_CPUS)
    try:
        (group,) = endpoint.groups
        assert endpoint.worker_count == len(group.sockets) == len(endpoint.strays) == 3
        assert len(set(endpoint.inherited_fds)) == 3 + 2 * 3
        assert endpoint.listen == [f"127.0.0.1:{group.port}"]
        assert group.port > 0
        assert endpoint.admin_url == f"http://127.0.0.1:{endpoint.admin.getsockname()[1]}"
        assert not endpoint.admin.get_inheritable()
    finally:
        endpoint.close()
    assert endpoint.admin.fileno() == -1
    assert all(sock.fileno() == -1 for sock in group.sockets)


@pytest.mark.parametrize(("cpus", "count"), [(TWO_CPUS, 2), (UsableCpus(numbers=tuple(range(99)), quota=None), 64)])
def test_worker_count_defaults_to_the_usable_cpus(cpus: UsableCpus, count: int) -> None:
    """And to no more than steering can tell apart."""
    endpoint = open_endpoint(settings_with("endpoint.workers=0"), cpus)
    endpoint.close()

    assert endpoint.worker_count == count


def test_taken_admin_port_gives_the_udp_port_back() -> None:
    """Whatever was opened before the failure is closed again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        admin = f"127.0.0.1:{taken.getsockname()[1]}"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = settings_with(f"endpoint.listen=['127.0.0.1:{port}']", f"admin.listen='{admin}'")
        with pytest.raises(PortInUseError, match=admin):
            open_endpoint(settings, TWO_CPUS)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))


def test_admin_address_of_another_machine_is_refused() -> None:
    """The error names the address and the purpose."""
    with pytest.raises(CannotBootError, match=r"192\.0\.2\.1:1 for admin requests"):
        open_admin_socket("192.0.2.1:1")


def test_assignments_share_the_secret_and_name_the_slots_sockets() -> None:
    """All slots open each other's Retry tokens; each reads its own sockets."""
    settings = settings_with("endpoint.workers=2")
    endpoint = open_endpoint(settings, TWO_CPUS)
    try:
        writer = AssignmentWriter(
            settings=settings,
            identity=identity_from_seed(bytes(32)),
            certificate=(b"cert", b"key"),
            endpoint=endpoint,
            cpus=TWO_CPUS,
            echo=True,
        )
        first, second = writer(0, 1), writer(1, 4)
        assert first.root_secret == second.root_secret
        assert len(set(first.root_secret)) > 1
        assert first.identity_seed == bytes(32)
        assert (first.certificate_pem, first.certificate_key_pem, first.echo) == (b"cert", b"key", True)
        assert (second.slot, second.generation, second.worker_count, second.cpu) == (1, 4, 2, 5)
        assert from_plain(first.settings) == settings
        changed = replace(settings, relay=replace(settings.relay, max_sessions=7))
        writer.change(changed)
        assert from_plain(writer(0, 2).settings) == changed
        assert writer(0, 2).root_secret == first.root_secret
        assert not writer.renew((b"cert", b"key"))
        assert writer.renew((b"cert", b"other key"))
        renewed = writer(0, 3)
        assert (renewed.certificate_pem, renewed.certificate_key_pem) == (b"cert", b"other key")
        for assign in (first, second):
            (descriptor,) = assign.sockets
            assert descriptor.fd == endpoint.groups[0].sockets[assign.slot].fileno()
            assert (descriptor.host, descriptor.port) == ("127.0.0.1", endpoint.groups[0].port)
            assert assign.steering_fd == endpoint.strays[assign.slot].receiver.fileno()
            assert assign.steering_fds == [pair.sender.fileno() for pair in endpoint.strays]
    finally:
        endpoint.close()


def test_pinning_can_be_switched_off() -> None:
    """Then no assignment names a CPU."""
    settings = settings_with("endpoint.workers=1", "endpoint.pin_workers=false")
    endpoint = open_endpoint(settings, TWO_CPUS)
    endpoint.close()
    writer = AssignmentWriter(
        settings=settings,
        identity=identity_from_seed(bytes(32)),
        certificate=(b"", b""),
        endpoint=endpoint,
        cpus=TWO_CPUS,
        echo=False,
    )

    assert writer(0, 1).cpu == -1


def test_workers_find_the_packages_of_a_source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the node was started from; an existing search path is kept behind."""
    home = str(Path(__file__).resolve().parents[3])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert worker_environment(None)["PYTHONPATH"] == home

    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert worker_environment(None)["PYTHONPATH"] == f"{home}:/elsewhere"


def test_workers_of_another_user_have_that_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries must not look for their files in root's home, which they cannot even enter."""
    monkeypatch.setenv("HOME", "/root")
    account = find_account("nobody", None)
    environment = worker_environment(account)

    assert environment["HOME"] == account.home
    assert environment["USER"] == environment["LOGNAME"] == "nobody"
    assert worker_environment(None)["HOME"] == "/root"
