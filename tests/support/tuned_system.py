"""A directory that looks like a system with kernel settings, for everything that is not to touch this machine's."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from antquic_server.tuning.catalogue import Setting, Topic, load_topics
from antquic_server.tuning.places import tuning_directory

__all__ = ["STOCK", "catalogue", "key_file", "make_system", "settings_of", "snapshot"]

STOCK: Mapping[str, str] = {
    "net.core.rmem_max": "212992",
    "net.core.wmem_max": "212992",
    "net.core.rmem_default": "212992",
    "net.core.wmem_default": "212992",
    "net.ipv4.udp_rmem_min": "4096",
    "net.ipv4.udp_wmem_min": "4096",
    "net.ipv4.udp_mem": "22596\t30129\t45192",
    "net.core.netdev_max_backlog": "1000",
    "net.core.netdev_budget": "300",
    "net.core.netdev_budget_usecs": "2000",
    "net.core.dev_weight": "64",
    "net.netfilter.nf_conntrack_max": "65536",
    "net.netfilter.nf_conntrack_buckets": "16384",
    "net.netfilter.nf_conntrack_udp_timeout": "10",
    "net.netfilter.nf_conntrack_udp_timeout_stream": "300",
    "net.ipv4.ip_local_port_range": "49152\t65535",
    "net.ipv4.ip_local_reserved_ports": "",
    "fs.nr_open": "65536",
    "fs.file-max": "98304",
    "vm.swappiness": "60",
    "vm.min_free_kbytes": "8192",
    "net.core.busy_poll": "0",
    "net.core.busy_read": "0",
}
"""A machine of 1 GB with an old kernel, on which every single setting is to be changed."""


@cache
def catalogue() -> tuple[Topic, ...]:
    """Return the topics for Linux, those by default and those when named."""
    return load_topics(tuning_directory() / "linux")


def settings_of(topics: tuple[Topic, ...]) -> dict[str, Setting]:
    """Return every setting by its key."""
    return {setting.key: setting for topic in topics for setting in topic.settings}


def key_file(root: Path, key: str) -> Path:
    """Return the file that stands for a setting."""
    return root / "proc" / "sys" / key.replace(".", "/")


def make_system(root: Path, values: Mapping[str, str] = STOCK) -> Path:
    """Make the files of a system in which the kernel has these values; returns ``root``."""
    for key, value in values.items():
        path = key_file(root, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    return root


def snapshot(root: Path) -> dict[str, bytes | None]:
    """Return the content of every file below ``root`` by its path; None for directories."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))
    }
