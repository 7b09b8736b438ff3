"""The role without a host: what its templates make of its variables, what linters say, what the page promises."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from antquic_server.config.load import load_settings
from antquic_server.config.model import Settings, section_types, to_plain
from antquic_server.supervisor.admin_request import names_us_untrusted
from support.deployment import DEPLOY
from support.node import REPOSITORY
from support.require import require

ROLE = DEPLOY / "roles" / "antquic_server"
DOCUMENTATION = (REPOSITORY / "docs" / "deployment.md").read_text()
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
UNIT = DEPLOY / "systemd" / "antquic-server.service"

LINT_TIMEOUT_S = 300.0
KEY = "/var/lib/antquic-server/node.pem"
ALL_KEYS = to_plain(Settings()) | {"identity": {"file": KEY}}
"""Every key of the configuration, spelled out."""

CHANGED: dict[str, dict[str, object]] = {
    "endpoint": {
        "listen": ["203.0.113.1:443", "[2001:db8::1]:443"],
        "workers": 3,
        "idle_timeout_s": 40,
        "alpn": ['h"\\3'],
    },
    "pqc": {"mode": "any", "handshake_timeout_multiplier": 1.5},
    "relay": {"enabled": False, "port_range": [50000, 50100], "max_bytes": 10**15, "denied_targets": ["192.0.2.0/24"]},
    "log": {"format": "console", "modules": {"net.udp": "error", "supervisor": "debug"}},
    "admin": {"listen": "[::]:9443", "allow_remote": True},
    "tls": {"certificate": '/etc/schlüssel "a"\\b.pem', "private_key": "/etc/k.pem"},
}
"""One value of every kind, with characters that a careless template would stumble over."""

HOSTS: dict[str, dict[str, object]] = {
    "plain": {},
    "all-keys": {"antquic_server_settings": ALL_KEYS},
    "changed": {
        "antquic_server_settings": CHANGED,
        "antquic_server_liboqs_archive": "/somewhere/liboqs.tar.gz",
        "antquic_server_log_file": "node.log",
        "antquic_server_memory_max": "2G",
        "antquic_server_firewall_policy": "drop",
        "antquic_server_firewall_admin_sources": ["198.18.0.0/15", "2001:db8::/32"],
    },
    "no-firewall": {"antquic_server_firewall": False},
    "named": {
        "ansible_host": "Node-1.example.net.",
        "antquic_server_prometheus_host": "monitor",
        "antquic_server_settings": {
            "admin": {"listen": "0.0.0.0:9443", "allow_remote": True, "names": ["status.example.net"]}
        },
    },
    "by-ipv6": {"ansible_host": "2001:db8::20", "antquic_server_prometheus_host": "monitor"},
    "monitor": {"ansible_host": "192.0.2.7", "antquic_server_prometheus_host": "monitor"},
}
"""Hosts that exist in an inventory only, and what is said about each."""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what every template makes of each host's variables: ``<host>/<template>``."""
    directory = tmp_path_factory.mktemp("rendered")
    expressions = {
        path.name.removesuffix(".j2"): f"lookup('ansible.builtin.template', '{path}')"
        for path in sorted((ROLE / "templates").iterdir())
    }
    facts = [f"antquic_server_{name}" for name in ("ports", "admin_local", "listen_local", "admin_rich_rules")]
    expressions["facts.json"] = "{" + ", ".join(f"'{name}': {name}" for name in facts) + "} | to_json"
    everything = ", ".join(f"'{name}': {expression}" for name, expression in expressions.items())
    # One task for each host: what takes Ansible its time is the number of tasks, not what they do.
    result = f"{directory}/{{{{ inventory_hostname }}}}.json"
    task = {"copy": {"content": "{{ {" + everything + "} | to_json }}", "dest": result}}
    play = {
        "hosts": "all",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(ROLE / "vars" / "main.yml")],
        "tasks": [task],
    }
    (directory / "play.json").write_text(json.dumps([play]))
    common = {**DEFAULTS, "ansible_python_interpreter": sys.executable}
    (directory / "hosts.json").write_text(json.dumps({"all": {"hosts": HOSTS, "vars": common}}))
    _run(["ansible-playbook", "-i", str(directory / "hosts.json"), str(directory / "play.json")])
    for host in HOSTS:
        (directory / host).mkdir()
        for name, text in json.loads((directory / f"{host}.json").read_text()).items():
            (directory / host / name).write_text(text if isinstance(text, str) else json.dumps(text))
    return directory


def _run(command: list[str]) -> str:
    """Run a program of this environment in ``deploy/``; what it says is shown when it fails."""
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        command, cwd=DEPLOY, env=environment, capture_output=True, text=True, timeout=LINT_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}{done.stderr[-3000:]}"
    return done.stdout


def _as_node(settings: dict[str, Any]) -> dict[str, Any]:
    """What the settings of ``to_plain`` are once the role has added its own."""
    return {**settings, "identity": {"file": KEY}}


def test_defaults_of_the_role_are_those_of_the_program(rendered: Path) -> None:
    """Whoever sets nothing gets ``Settings()``, with the key where the unit may write and logs for machines."""
    found = to_plain(load_settings(rendered / "plain" / "antquic-server.toml"))
    expected = _as_node(to_plain(Settings()))
    expected["log"]["format"] = "json"
    assert found == expected


def test_what_the_role_takes_for_a_default_is_one() -> None:
    """vars/main.yml repeats a few defaults of the program, for firewall and checks."""
    text = (ROLE / "vars" / "main.yml").read_text()
    known = to_plain(Settings())
    repeated = re.findall(r"antquic_server_settings\.(\w+) \| default\(\{\}\)\)\.(\w+) \| default\((.*?)\) \}\}", text)
    assert len(repeated) == 5
    for section, key, default in repeated:
        section_values = known[section]
        assert isinstance(section_values, dict)
        assert yaml.safe_load(default) == section_values[key], f"{section}.{key}"


def test_every_key_of_the_model_can_be_set(rendered: Path) -> None:
    """All of them, spelled out, come out as they went in."""
    text = (rendered / "all-keys" / "antquic-server.toml").read_text()
    for section in section_types():
        assert f"[{section}]" in text
    assert to_plain(load_settings(rendered / "all-keys" / "antquic-server.toml")) == ALL_KEYS


def test_values_of_every_kind_survive(rendered: Path) -> None:
    """Quotes, backslashes, umlauts, tables, lists, large numbers, fractions and booleans."""
    found = to_plain(load_settings(rendered / "changed" / "antquic-server.toml"))
    for section, keys in CHANGED.items():
        values = found[section]
        assert isinstance(values, dict)
        assert {key: values[key] for key in keys} == keys, section


def test_facts_follow_from_the_settings(rendered: Path) -> None:
    """Ports once each; an address that means every one is asked at the loopback."""
    plain, changed = (json.loads((rendered / host / "facts.json").read_text()) for host in ("plain", "changed"))
    assert plain["antquic_server_ports"] == [10000]
    assert plain["antquic_server_listen_local"] == "127.0.0.1:10000"
    assert plain["antquic_server_admin_local"] == "127.0.0.1:10001"
    assert changed["antquic_server_ports"] == [443]
    assert changed["antquic_server_listen_local"] == "203.0.113.1:443"
    assert changed["antquic_server_admin_local"] == "[::1]:9443"


def test_firewalld_lets_the_admin_sources_in(rendered: Path) -> None:
    """A rule for each network and its family (firewalld.richlanguage(5)); none where nobody may."""
    rules = {
        host: json.loads((rendered / host / "facts.json").read_text())["antquic_server_admin_rich_rules"]
        for host in ("plain", "changed")
    }
    assert rules["plain"] == []
    assert rules["changed"] == [
        'rule family="ipv4" source address="198.18.0.0/15" port port="9443" protocol="tcp" accept',
        'rule family="ipv6" source address="2001:db8::/32" port port="9443" protocol="tcp" accept',
    ]


@pytest.mark.parametrize(
    ("host", "target", "names"),
    [
        ("plain", "127.0.0.1:10001", ()),
        ("monitor", "127.0.0.1:10001", ()),
        ("named", "Node-1.example.net.:9443", ("node-1.example.net", "status.example.net")),
        ("by-ipv6", "[2001:db8::20]:10001", ()),
    ],
)
def test_the_node_answers_to_what_prometheus_calls_it(
    rendered: Path, host: str, target: str, names: tuple[str, ...]
) -> None:
    """The target's host is a name that the configuration lists, or an address; names of the inventory's own stay."""
    (group,) = json.loads((rendered / host / "prometheus.json").read_text())
    assert group["targets"] == [target]
    settings = load_settings(rendered / host / "antquic-server.toml")
    assert set(settings.admin.names) == set(names)
    assert names_us_untrusted(target, settings.admin.names)


def test_shipped_prometheus_reads_the_role_s_targets() -> None:
    """Files of the name that the role gives them, in the job that rules and dashboard ask for."""
    (job,) = yaml.safe_load((DEPLOY / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]
    (tasks,) = yaml.safe_load((ROLE / "tasks" / "prometheus.yml").read_text())
    destination = Path(tasks["ansible.builtin.template"]["dest"].replace("{{ inventory_hostname }}", "node-1.example"))
    assert job["job_name"] == "antquic"
    assert fnmatch(destination.name, job["file_sd_configs"][0]["files"][0])


def test_unit_to_install_by_hand_is_that_of_the_role(rendered: Path) -> None:
    """deploy/systemd holds what the template makes of the defaults without a firewall of ours."""
    assert UNIT.read_text() == (rendered / "no-firewall" / "antquic-server.service").read_text()


@pytest.mark.parametrize("host", ["plain", "changed", "no-firewall"])
def test_exposure_is_two_or_below(rendered: Path, host: str) -> None:
    """By systemd's own measure, which counts in tenths: with no capability, and with that for low ports."""
    require(shutil.which("systemd-analyze"), "needs systemd-analyze")
    unit = rendered / host / "antquic-server.service"
    _run(["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", str(unit)])


def test_unit_asks_for_what_the_variables_say(rendered: Path) -> None:
    """Each variable has its line, and only then."""
    plain = (rendered / "plain" / "antquic-server.service").read_text()
    changed = (rendered / "changed" / "antquic-server.service").read_text()
    for line in (
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "Environment=OQS_INSTALL_PATH=/opt/antquic-server/liboqs",
        "MemoryMax=2G",
        "StandardError=append:/var/log/antquic-server/node.log",
    ):
        assert line in changed.splitlines()
        assert line not in plain.splitlines()
    assert "PrivateUsers=yes" in plain.splitlines()
    assert "PrivateUsers=yes" not in changed.splitlines()


def _program(rendered: Path, host: str, directory: Path, environment: dict[str, str]) -> list[str]:
    """Return what the program that a host has on its path hands on: configuration, directory of liboqs, arguments."""
    text = (rendered / host / "antquic-server.sh").read_text()
    release = directory / "opt/antquic-server/current/bin/antquic-server"
    release.parent.mkdir(parents=True, exist_ok=True)
    release.write_text('#!/bin/sh\nprintf "%s\\n" "${ANTQUIC_CONFIG-none}" "${OQS_INSTALL_PATH-none}" "$@"\n')
    release.chmod(0o755)
    script = directory / "antquic-server"
    script.write_text(text.replace("/opt/", f"{directory}/opt/").replace("/etc/", f"{directory}/etc/"))
    done = subprocess.run(
        ["sh", str(script), "status", "a b"], env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.replace(str(directory), "").splitlines()


def test_program_on_the_path_asks_the_node_of_the_host(rendered: Path, tmp_path: Path) -> None:
    """By its configuration, once there is one; whatever is set already stays, even if it is empty."""
    assert _program(rendered, "plain", tmp_path, {}) == ["none", "none", "status", "a b"]
    configuration = "/etc/antquic-server/antquic-server.toml"
    (tmp_path / "etc/antquic-server").mkdir(parents=True)
    (tmp_path / configuration[1:]).touch()
    assert _program(rendered, "plain", tmp_path, {}) == [configuration, "none", "status", "a b"]
    assert _program(rendered, "changed", tmp_path, {})[:2] == [configuration, "/opt/antquic-server/liboqs"]
    own = {"ANTQUIC_CONFIG": "", "OQS_INSTALL_PATH": "/mine"}
    assert _program(rendered, "changed", tmp_path, own)[:2] == ["", "/mine"]


@pytest.mark.parametrize("host", ["plain", "changed"])
def test_rules_are_accepted_by_nft(rendered: Path, host: str, root: None) -> None:
    """Checked only, in a network namespace of its own; nothing is loaded."""
    require(shutil.which("nft") and shutil.which("unshare"), "needs nftables")
    _run(["unshare", "--net", "nft", "--check", "--file", str(rendered / host / "firewall.nft")])


def test_every_variable_is_documented() -> None:
    """The table of docs/deployment.md has each, with its default; nothing is there that does not exist."""
    rows = re.findall(r"(?m)^\| `(antquic_server_\w+)` \| (.*?) \| (.+) \|$", DOCUMENTATION)
    assert [name for name, _, _ in rows] == list(DEFAULTS)
    for name, default, _ in rows:
        shown = re.fullmatch(r"`(.*)`|(.*)", default)
        assert shown is not None
        if shown[1] is not None:
            assert yaml.safe_load(shown[1]) == DEFAULTS[name], name
        else:
            assert name == "antquic_server_source", f"{name}: a default is shown as it is written"


def test_every_line_of_the_unit_is_explained() -> None:
    """By its name, in docs/deployment.md."""
    names = set(re.findall(r"(?m)^([A-Z]\w+)=", UNIT.read_text())) - {"Description", "After", "Wants", "WantedBy"}
    unexplained = sorted(name for name in names if f"`{name}" not in DOCUMENTATION)
    assert unexplained == []


def _documents() -> Iterator[Path]:
    yield from sorted(DEPLOY.rglob("*.yml"))


@pytest.mark.parametrize("path", list(_documents()), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_documents_are_yaml_without_secrets(path: Path) -> None:
    """Each parses; none has a key or password in it."""
    text = path.read_text()
    yaml.safe_load(text)
    assert not re.search(r"BEGIN [A-Z ]*PRIVATE KEY|password:", text)


def test_yamllint_finds_nothing() -> None:
    """With the settings beside the files."""
    _run(["yamllint", "--strict", "-c", ".yamllint", "."])


@pytest.mark.slow
def test_ansible_lint_finds_nothing() -> None:
    """By its strictest profile."""
    _run(["ansible-lint", "--offline", "--profile", "production", "."])
