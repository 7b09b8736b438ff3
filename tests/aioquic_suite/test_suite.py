"""
aioquic's own test suite, run on our connection class.

The tests are those of aioquic's source distribution, the release we pin; they are fetched once into the cache. Both
runs happen side by side in processes of their own, since replacing a class for good is no way to treat this one.
"""

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from aioquic_suite.differences import EXPECTED_DIFFERENCES
from support.require import require, slow_tests_wanted

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
AIOQUIC_VERSION = "1.7.2"
STOCK_PASSES = 681
"""What the release passes on its own connection class."""

RUN_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRun:
    """Outcome of one run: names of the tests in each state, and the end of pytest's output."""

    passed: frozenset[str]
    failed: frozenset[str]
    skipped: frozenset[str]
    report: str


class RunningSuite:
    """One run of aioquic's suite with the plugin loaded, in a child process."""

    def __init__(self, source: Path, profile: str, directory: Path) -> None:
        self._results = directory / f"{profile}.xml"
        self._log = directory / f"{profile}.log"
        # What our own run is told (CI's second tries) is none of this one's business.
        ours = ("COVERAGE_", "PYTEST_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment["ANTQUIC_SUITE_PROFILE"] = profile
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE), str(REPOSITORY)])
        command = [sys.executable, "-m", "pytest", "-q", "-p", "plugin", "-p", "no:cacheprovider", "--tb=short"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, f"--junit-xml={self._results}", "tests"],
                cwd=source,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> "RunningSuite":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def finish(self) -> SuiteRun:
        """Wait for the end and read the results."""
        self._process.wait(timeout=RUN_TIMEOUT_S)
        report = self._log.read_text(errors="replace")[-4000:]
        assert self._results.exists(), report
        states: dict[str, set[str]] = {"passed": set(), "failed": set(), "skipped": set()}
        for case in ET.parse(self._results).iter("testcase"):
            tags = {child.tag for child in case}
            state = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
            states[state].add(f"{case.get('classname')}::{case.get('name')}")
        return SuiteRun(report=report, **{state: frozenset(names) for state, names in states.items()})


def _fetch_source() -> Path:
    """Return the unpacked source distribution, fetching it with pip if the cache has none."""
    cache = Path(os.environ.get("ANTQUIC_CACHE") or Path.home() / ".cache" / "antquic-server")
    source = cache / f"aioquic-{AIOQUIC_VERSION}"
    if (source / "tests").is_dir():
        return source
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "aioquic"]
    fetched = subprocess.run(
        [*command, "--dest", str(cache), f"aioquic=={AIOQUIC_VERSION}"],
        check=False,
        capture_output=True,
        text=True,
    )
    require(fetched.returncode == 0, f"aioquic's source distribution is out of reach: {fetched.stderr[-300:]}")
    with tarfile.open(cache / f"aioquic-{AIOQUIC_VERSION}.tar.gz") as archive:
        archive.extractall(cache, filter="data")
    return source


@pytest.fixture(scope="module")
def running_suites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunningSuite]]:
    """Both runs, started at the same time."""
    if not slow_tests_wanted():
        pytest.skip("takes minutes: set ANTQUIC_SLOW=1")
    source = _fetch_source()
    directory = tmp_path_factory.mktemp("aioquic-suite")
    with ExitStack() as stack:
        yield {
            profile: stack.enter_context(RunningSuite(source, profile, directory))
            for profile in ("stock", "post_quantum")
        }


def test_the_suite_is_that_of_the_release_we_pin() -> None:
    """Installed aioquic, pinned aioquic and the suite's release are one and the same."""
    pinned = re.search(r'"aioquic==([0-9.]+)"', (REPOSITORY / "pyproject.toml").read_text())

    assert pinned is not None
    assert version("aioquic") == pinned[1] == AIOQUIC_VERSION


def test_our_connection_passes_aioquics_suite_without_options(running_suites: dict[str, RunningSuite]) -> None:
    """With everything of ours switched off, not one of aioquic's tests can tell our class from its own."""
    run = running_suites["stock"].finish()

    assert run.failed == frozenset(), run.report
    assert len(run.passed) == STOCK_PASSES, run.report


def test_post_quantum_tls_changes_only_what_is_listed(running_suites: dict[str, RunningSuite]) -> None:
    """With post-quantum TLS on, exactly the listed tests differ: no more, and none is listed needlessly."""
    run = running_suites["post_quantum"].finish()
    failed = frozenset(name.rpartition("::")[2] for name in run.failed)

    assert failed - set(EXPECTED_DIFFERENCES) == set(), run.report
    assert set(EXPECTED_DIFFERENCES) - failed == set(), "listed, yet passing"
    assert len(run.passed) == STOCK_PASSES - len(failed), run.report
