"""What is said while benchmarks run."""

import io

import pytest

from antquic_server.bench import progress
from antquic_server.bench.progress import LINE_INTERVAL_S, Campaign, Progress, Task, duration, running_campaign


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        """Say so."""
        return True


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        """Return a time that moves only by hand."""
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock of our own for the module."""
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def test_progress_is_silent_without_a_campaign(capsys: pytest.CaptureFixture[str]) -> None:
    """A benchmark that is called as a function disturbs nobody."""
    steps = Progress(2)
    steps.step("one")

    assert capsys.readouterr().err == ""


def test_terminal_has_one_live_line(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, step and time left, each over the last; nothing is left of it afterwards."""
    monkeypatch.setenv("COLUMNS", "100")
    terminal = Terminal()
    tasks = [Task(name="a", expected_s=10), Task(name="b", expected_s=60)]
    with running_campaign(Campaign(tasks, terminal)) as campaign:
        with campaign.task():
            steps = Progress(4)
            steps.step("first")
            clock.now_s += 5
            steps.step("second")
        with campaign.task():
            pass

    lines = terminal.getvalue().split("\r\x1b[K")
    assert lines[1] == "[1/2] a, about 70 s left"
    assert lines[2] == "[1/2] a 1/4: first, about 70 s left"
    # A quarter took 5 s: a quarter of 20 s and three of the 10 s expected, less those 5 s, and b.
    assert lines[3] == "[1/2] a 2/4: second, about 68 s left"
    assert "[2/2] b, about 60 s left" in lines
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert "\n" not in terminal.getvalue()


def test_live_line_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes on into the next line could not be removed."""
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    campaign = Campaign([Task(name="a benchmark with a long name", expected_s=5)], terminal)
    with campaign.task():
        pass

    assert terminal.getvalue().split("\r\x1b[K")[1] == "a benchmark with a "


def test_elsewhere_there_is_a_line_now_and_then(clock: Clock) -> None:
    """One for each run, and one for a step that comes long after the last line."""
    log = io.StringIO()
    with running_campaign(Campaign([Task(name="a", expected_s=0)], log)) as campaign, campaign.task():
        steps = Progress(3)
        steps.step("too soon")
        clock.now_s += LINE_INTERVAL_S
        steps.step("late enough")
        steps.step("too soon again")

    assert log.getvalue().splitlines() == ["bench: a", "bench: a 2/3: late enough, about 20 s left"]


def test_what_a_run_took_is_expected_of_the_next_ones(clock: Clock) -> None:
    """Whatever the listing says."""
    log = io.StringIO()
    campaign = Campaign([Task(name="a", expected_s=100)] * 3, log)
    with campaign.task():
        clock.now_s += 7
    with campaign.task():
        assert campaign.left_s(0, 0) == 14
        clock.now_s += 50
        assert campaign.left_s(0, 0) == 7, "this one should be over, the third is left"


def test_nobody_guesses_where_a_duration_is_unknown(clock: Clock) -> None:
    """A benchmark of one's own that does not say how long it takes."""
    campaign = Campaign([Task(name="a", expected_s=5), Task(name="mine", expected_s=0)], io.StringIO())
    with campaign.task():
        assert campaign.left_s(0, 0) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (1200, "20 min"), (5400, "1.5 h")]
)
def test_durations_are_rough(seconds: float, text: str) -> None:
    """As people say them."""
    assert duration(seconds) == text
