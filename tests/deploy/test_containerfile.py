"""The Containerfile: a linter's opinion, and what comes of its steps, which are carried out in a Debian system."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.containerfile import Image, build, inside, instructions
from support.deployment import DEPLOY, MIRROR, WHEELS, debian_image, wheelhouse
from support.node import REPOSITORY

CONTAINERFILE = DEPLOY / "Containerfile"

STORY = """
set -e
"$@" >/tmp/ready &
node=$!
for _ in $(seq 120); do {health} 2>/dev/null && break; sleep 0.5; done
{health}
cat /tmp/ready
antquic-server peer connect 127.0.0.1:10000 --json
id -u
kill -TERM $node
wait $node
"""
"""Start the container's command as an engine would, wait for its health check, connect, and stop it."""


def test_linter_finds_nothing() -> None:
    """hadolint, with its own rules; that versions of Debian packages are not pinned is meant."""
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [program, "--ignore=DL3008", CONTAINERFILE], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_last_stage_is_small_and_without_rights() -> None:
    """Two stages; the second has neither pip's packages nor a compiler, is not root, and can tell how it is."""
    steps = instructions(CONTAINERFILE)
    first, second = [number for number, (word, _) in enumerate(steps) if word == "FROM"]
    assert first == 0
    last = dict(steps[second:])
    assert "python3-venv" not in str(steps[second:])
    assert last["USER"].split(":")[0] not in ("0", "root")
    assert "/healthz" in last["HEALTHCHECK"]


def test_the_command_shown_keeps_the_health_check() -> None:
    """Wherever podman is to build the image: in its own format, OCI, it drops HEALTHCHECK."""
    shown = CONTAINERFILE.read_text() + (REPOSITORY / "docs" / "deployment.md").read_text()
    commands = re.findall(r"podman build .*", shown)
    assert len(commands) == 2
    assert [command for command in commands if "--format docker" not in command] == []


@pytest.fixture(scope="module")
def image(containers_are_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image, built from this tree with packages from the mirror and wheels from the cache."""
    base, mirror = debian_image()
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS}
    directory = tmp_path_factory.mktemp("image")
    binds = {MIRROR: mirror, WHEELS: wheelhouse()}
    return build(CONTAINERFILE, REPOSITORY, base, directory, binds=binds, environment=pip)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_image_serves_as_somebody_else_than_root(image: Image) -> None:
    """Entry point and command as they are: healthy by its own health check, reached by a peer, stopped by SIGTERM."""
    health = " ".join(f"'{word}'" if "'" not in word else f'"{word}"' for word in image.health_check)
    command = ["sh", "-c", STORY.format(health=health), "sh", *image.entrypoint, *image.command]
    done = subprocess.run(inside(image, command, binds={}), capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"event": "ready"' in done.stdout
    assert '"event": "alive"' in done.stdout
    assert "\n10000\n" in done.stdout.replace("\r", "")
    key = image.root / "var/lib/antquic-server/node.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    shutil.rmtree(image.root)
