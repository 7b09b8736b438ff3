"""
Carries out a Containerfile without a container engine: stages are copies of a Debian system, steps run in them.

Knows the instructions that ours has, and refuses any other.
"""

import json
import re
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Image", "build", "inside", "instructions"]

STEP_TIMEOUT_S = 300.0
IGNORED = ("EXPOSE", "VOLUME", "STOPSIGNAL")
"""Words to the engine, which change nothing inside."""


@dataclass(slots=True, kw_only=True)
class Image:
    """A stage: its file system, and what later steps and the container inherit."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health_check: list[str] = field(default_factory=list)


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return instruction and arguments of every step; comments are gone, continued lines are joined."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    steps = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word.upper(), " ".join(rest.split())) for word, _, rest in (step.partition(" ") for step in steps)]


def build(
    path: Path,
    context: Path,
    base: Path,
    directory: Path,
    *,
    binds: Mapping[str, Path],
    environment: Mapping[str, str],
) -> Image:
    """
    Build the last stage of ``path``, with files of ``context``, below ``directory``.

    Every FROM is a copy of the system in ``base``. ``binds`` are directories that steps can read: there → here.
    ``environment`` is what steps find beside their own, such as pip's settings.
    """
    stages: dict[str, Image] = {}
    image: Image | None = None
    for word, arguments in instructions(path):
        if word == "FROM":
            name = arguments.partition(" AS ")[2] or f"stage-{len(stages)}"
            root = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=directory))
            _run(["cp", "--archive", "--reflink=auto", f"{base}/.", str(root)])
            image = stages[name] = Image(root=root, environment=dict(environment))
            continue
        assert image is not None, "the first instruction is FROM"
        _carry_out(image, stages, context, (word, arguments), binds)
    assert image is not None
    return image


def _carry_out(
    image: Image, stages: Mapping[str, Image], context: Path, step: tuple[str, str], binds: Mapping[str, Path]
) -> None:
    word, arguments = step
    match word:
        case "RUN":
            _run(inside(image, ["sh", "-c", arguments], binds=binds))
        case "COPY":
            _copy(image, stages, context, arguments)
        case "ENV":
            pairs = (item.partition("=") for item in shlex.split(arguments))
            path = image.environment.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            image.environment |= {name: value.replace("$PATH", path) for name, _, value in pairs}
        case "WORKDIR":
            image.directory = arguments
            (image.root / arguments.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "USER":
            image.user = arguments
        case "ENTRYPOINT":
            image.entrypoint = json.loads(arguments)
        case "CMD":
            image.command = json.loads(arguments)
        case "HEALTHCHECK":
            image.health_check = json.loads(arguments.partition(" CMD ")[2])
        case _:
            assert word in IGNORED, f"{word}: not an instruction that this can carry out"


def _copy(image: Image, stages: Mapping[str, Image], context: Path, arguments: str) -> None:
    words = shlex.split(arguments)
    source = context
    if found := re.fullmatch(r"--from=(\w+)", words[0]):
        source, words = stages[found[1]].root, words[1:]
    *names, target = words
    there = image.root / (Path(image.directory) / target).as_posix().lstrip("/")
    for name in names:
        here = source / name.lstrip("/")
        if here.is_dir():
            _run(["cp", "--archive", "--no-target-directory", str(here), str(there)])
        else:
            _run(["cp", str(here), str(there)])


def inside(image: Image, command: list[str], *, binds: Mapping[str, Path]) -> list[str]:
    """Return ``command`` as it runs in the image: root, user, directory and environment; no network but loopback."""
    uid, _, _ = image.user.partition(":")
    there = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--pipe", "--as-pid2"]
    there += [f"--directory={image.root}", f"--chdir={image.directory}", "--resolv-conf=off", "--timezone=off"]
    there += [f"--bind-ro={here}:{place}" for place, here in binds.items()]
    there += [f"--setenv={name}={value}" for name, value in image.environment.items()]
    return [*there, *([] if uid == "0" else [f"--user={uid}"]), *command]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
