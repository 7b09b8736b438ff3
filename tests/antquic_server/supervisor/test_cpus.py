"""Tests of how many CPUs may be used."""

from pathlib import Path

import pytest

from antquic_server.supervisor.cpus import UsableCpus, cpu_quota, usable_cpus


@pytest.mark.parametrize(
    ("numbers", "quota", "count"),
    [
        ((0, 1, 2, 3), None, 4),
        ((2, 5), None, 2),
        ((0, 1, 2, 3), 1.5, 2),
        ((0, 1, 2, 3), 0.1, 1),
        ((0, 1), 8.0, 2),
        ((), None, 1),
    ],
)
def test_count_is_what_affinity_and_quota_allow(numbers: tuple[int, ...], quota: float | None, count: int) -> None:
    """The smaller of both, rounded up, and at least one."""
    assert UsableCpus(numbers=numbers, quota=quota).count == count


def test_slots_are_pinned_to_the_allowed_cpus_in_turn() -> None:
    """The third worker of two CPUs shares the first one."""
    cpus = UsableCpus(numbers=(2, 5), quota=None)

    assert [cpus.cpu_of(slot) for slot in range(3)] == [2, 5, 2]


def test_nobody_is_pinned_under_a_quota() -> None:
    """Containers of one machine would otherwise all crowd on its first CPUs."""
    assert UsableCpus(numbers=(0, 1, 2, 3), quota=2.0).cpu_of(0) == -1
    assert UsableCpus(numbers=(), quota=None).cpu_of(0) == -1
    assert UsableCpus(numbers=(0, 1), quota=2.0).cpu_of(1) == 1


def test_smallest_quota_on_the_way_to_the_root_counts(tmp_path: Path) -> None:
    """A service's own group may be unlimited inside a limited container."""
    group = tmp_path / "cgroup" / "machine" / "service"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("max 100000\n")
    (group.parent / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "cgroup" / "cpu.max").write_text("400000 100000\n")
    membership = tmp_path / "membership"
    membership.write_text("1:name=systemd:/x\n0::/machine/service\n")

    assert cpu_quota(tmp_path / "cgroup", membership) == 1.5


@pytest.mark.parametrize("content", ["max 100000", "nonsense", "100000 0", ""])
def test_unlimited_or_unreadable_groups_have_no_quota(tmp_path: Path, content: str) -> None:
    """What cannot be read is no limit."""
    (tmp_path / "cpu.max").write_text(content)
    membership = tmp_path / "membership"
    membership.write_text("0::/\n")

    assert cpu_quota(tmp_path, membership) is None
    assert cpu_quota(tmp_path, tmp_path / "missing") is None


def test_this_machine_has_a_cpu() -> None:
    """The kernel can be asked for real."""
    assert usable_cpus().count >= 1
