"""The module that the settings of connection tracking need at the next start, and who has it loaded."""

from pathlib import Path

import pytest

from antquic_server.tuning.modulefile import (
    MODULE_FILE,
    comes_with_module,
    foreign_modules,
    is_loaded_at_boot,
    is_ours,
    needs_module,
    write_module_file,
)
from antquic_server.tuning.record import Entry, Record, RecordError

TRACKING = "net.netfilter.nf_conntrack_max"


def put(root: Path, name: str | Path, text: str) -> Path:
    """Write one file of the system; returns its path."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_only_settings_of_connection_tracking_need_it() -> None:
    """As soon as one of them is recorded."""
    buffers = Entry(key="net.core.rmem_max", topic="buffers", found="1", applied="2")
    tracking = Entry(key=TRACKING, topic="conntrack", found="1", applied="2")

    assert comes_with_module(TRACKING)
    assert not needs_module(Record())
    assert not needs_module(Record(entries=(buffers,)))
    assert needs_module(Record(entries=(buffers, tracking)))


def test_the_file_has_it_loaded(tmp_path: Path) -> None:
    """It says where it comes from, and is readable for everybody."""
    path = put(tmp_path, MODULE_FILE, "")
    assert not is_loaded_at_boot(tmp_path)
    assert not is_ours(path)
    write_module_file(path)

    assert is_loaded_at_boot(tmp_path)
    assert is_ours(path)
    assert foreign_modules(path) == []
    assert [line for line in path.read_text().splitlines() if not line.startswith("#")] == ["nf_conntrack"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("files", "is_loaded"),
    [
        ({}, False),
        ({"etc/modules-load.d/modules.conf": "loop\n nf_conntrack \n"}, True),
        ({"usr/lib/modules-load.d/firewall.conf": "nf-conntrack"}, True),
        ({"run/modules-load.d/a.conf": "#nf_conntrack\n;nf_conntrack\nnf_conntrack_ftp"}, False),
        ({"etc/modules-load.d/a": "nf_conntrack"}, False),
        ({"usr/lib/modules-load.d/a.conf": "nf_conntrack", "etc/modules-load.d/a.conf": ""}, False),
        ({"etc/modules-load.d/a.conf": "\udcff"}, False),
    ],
)
def test_every_file_that_a_start_reads_counts(tmp_path: Path, files: dict[str, str], is_loaded: bool) -> None:
    """As modules-load.d(5) has it: those that end in .conf, and of two with one name the first."""
    for name, text in files.items():
        put(tmp_path, name, "").write_bytes(text.encode(errors="surrogateescape"))

    assert is_loaded_at_boot(tmp_path) is is_loaded


def test_what_is_not_ours_is_found(tmp_path: Path) -> None:
    """Other modules; a file that cannot be read says so."""
    path = put(tmp_path, MODULE_FILE, "# theirs\nnf_conntrack\nbr_netfilter\n")
    assert not is_ours(path)
    assert foreign_modules(path) == ["br_netfilter"]
    assert foreign_modules(tmp_path / "none") == []

    path.unlink()
    path.mkdir()
    assert not is_ours(path)
    with pytest.raises(RecordError, match=f"{path}: cannot be read"):
        foreign_modules(path)
