"""The containers of these tests: nothing of them is left, however a test ends."""

from pathlib import Path

import pytest

from support.deployment import debian_image
from support.nspawn import Machine, booted, network
from support.veth import RUN_NETNS

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


class _MistakeError(Exception):
    """What a test that fails would raise."""


def test_nothing_is_left_after_a_failure(containers_are_possible: None) -> None:
    """Two systems run when the mistake happens; afterwards there is no process, mount, namespace or file of them."""
    image, _ = debian_image()
    seen: list[Machine] = []

    def fail() -> None:
        with network() as net, booted(net, image, ["one", "two"], binds={}, prepare=lambda _: None) as machines:
            seen.extend(machines)
            machines[1].run("touch", "/etc/mark")
            assert len({group for each in machines for group in each.cgroups}) == 2 * len(machines[0].cgroups) > 0
            assert all((group / "payload").is_dir() for each in machines for group in each.cgroups)
            assert {each.namespace for each in machines} <= {path.name for path in RUN_NETNS.iterdir()}
            raise _MistakeError

    with pytest.raises(_MistakeError):
        fail()
    one, two = seen
    assert not [path for path in RUN_NETNS.iterdir() if path.name.startswith(one.network.namespace)]
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if str(two.directory) in line]
    assert not [group for each in seen for group in each.cgroups if group.exists()]
    assert not one.directory.exists()
    assert not two.directory.exists()
    assert not (image / "etc/mark").exists()
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _names(path, str(one.directory))]


def _names(path: Path, text: str) -> bool:
    """Whether a process's command line has ``text``; one that has just ended has none."""
    try:
        return text in path.read_text(errors="replace")
    except OSError:
        return False
