"""
Changing kernel settings and changing them back.

``apply`` goes in this order, so that it can be interrupted anywhere: the record of what was found and of what
is about to be set, the kernel, the record without what the kernel refused, the file for the next start. A
second run finds nothing to do, or what the first could not finish.

``revert`` puts back what the record says, last to first. A value that is neither what was applied nor what was
found has been changed by somebody since: it stays, and stays recorded, unless forced.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from antquic_server.errors import AntQuicError, PrivilegeError
from antquic_server.tuning.bootfile import BOOT_FILE, foreign_lines, remove_boot_file, write_boot_file
from antquic_server.tuning.catalogue import Topic
from antquic_server.tuning.kernel import Kernel, KernelError, NoSuchKeyError
from antquic_server.tuning.modulefile import (
    MODULE,
    MODULE_FILE,
    foreign_modules,
    is_loaded_at_boot,
    is_ours,
    needs_module,
    write_module_file,
)
from antquic_server.tuning.plan import Outcome, Verdict, examine
from antquic_server.tuning.record import (
    Entry,
    Record,
    RecordForbiddenError,
    load_record,
    make_directories,
    save_record,
)
from antquic_server.tuning.recordfile import OLD_RECORD_FILE, RECORD_FILE, OldRecordError, find_record, move_record
from antquic_server.tuning.rules import normal

__all__ = ["Report", "TuningError", "apply", "check", "revert"]

_GOOD = frozenset({Verdict.FINE, Verdict.MISSING, Verdict.CHANGED, Verdict.RESTORED, Verdict.AS_FOUND})


class TuningError(AntQuicError):
    """Settings cannot be applied or reverted as a whole; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of one action; ``files`` are sentences about the files that were written or removed."""

    action: str
    outcomes: tuple[Outcome, ...]
    files: tuple[str, ...] = ()
    dry_run: bool = False

    @property
    def has_changed(self) -> bool:
        """Whether anything was written, to the kernel or to a file; what a dry run would do is no change."""
        written = {Verdict.CHANGED, Verdict.RESTORED}
        notes_only = self.dry_run or self.action == "check"
        return not notes_only and (bool(self.files) or any(outcome.verdict in written for outcome in self.outcomes))

    @property
    def is_good(self) -> bool:
        """Whether nothing is left to do or went wrong; planned changes of a dry run are no fault."""
        planned = {Verdict.TO_DO, Verdict.LOST_AT_BOOT} if self.dry_run else set()
        return all(outcome.verdict in _GOOD | planned for outcome in self.outcomes)


def check(root: Path, topics: Iterable[Topic]) -> Report:
    """
    Compare the settings with what the system below ``root`` has.

    Raises:
        RecordError: The record of an earlier ``apply`` cannot be read.
    """
    record, files = _visible_record(root)
    return Report(action="check", outcomes=tuple(examine(Kernel(root=root), topics, record)), files=files)


def _visible_record(root: Path) -> tuple[Record, tuple[str, ...]]:
    """The record for who only looks: an ordinary user may be kept out, and a record of the node's is left aside."""
    try:
        return find_record(root), ()
    except (RecordForbiddenError, OldRecordError) as error:
        return Record(), (f"{error}: whether everything applied is kept at the next start is not known",)


def apply(root: Path, topics: Iterable[Topic], *, dry_run: bool = False) -> Report:
    """
    Set what is not as it should be, now and for the next start, and record what was found.

    Raises:
        PrivilegeError: This process is not root, and the system is the real one.
        RecordError: The record or the file for the next start cannot be read or written; the kernel is then
            as it was, or what was set is recorded.
        TuningError: The file for the next start has lines that did not come from here, or another run is at it.
    """
    kernel = Kernel(root=root)
    if dry_run:
        record, files = _visible_record(root)
        return Report(action="apply", outcomes=tuple(examine(kernel, topics, record)), files=files, dry_run=True)
    _require_root(root, "apply")
    made = [str(path) for path in make_directories((root / RECORD_FILE).parent)]
    try:
        with _alone(root):
            return _apply(kernel, tuple(topics), made)
    finally:
        # Directories that turned out not to be needed go again; one with the record in it stays.
        _remove_empty(made)


def _apply(kernel: Kernel, topics: Sequence[Topic], made: Sequence[str]) -> Report:
    record_file, boot_file = kernel.root / RECORD_FILE, kernel.root / BOOT_FILE
    files = _moved(kernel.root, made)
    record = load_record(record_file)
    _refuse_foreign_lines(boot_file, record)
    outcomes = examine(kernel, topics, record)
    plan = [outcome for outcome in outcomes if outcome.verdict is Verdict.TO_DO]
    _refuse_foreign_modules(kernel.root, _with(record, plan))
    done: dict[str, Outcome] = {}
    if plan:
        record = _with_made(record, made, make_directories(boot_file.parent))
        save_record(record_file, _with(record, plan))
        done = {outcome.key: _set(kernel, outcome) for outcome in plan}
        record = _with(record, _taken(kernel, done.values()))
        save_record(record_file, record)
    files += [f"{record_file} written: what was found"] if plan and record.entries else []
    if record.entries and write_boot_file(boot_file, record):
        files.append(f"{boot_file} written: read at every start")
    if needs_module(record) and not is_loaded_at_boot(kernel.root):
        module_file = kernel.root / MODULE_FILE
        record = _with_made(record, make_directories(module_file.parent))
        save_record(record_file, record)
        write_module_file(module_file)
        files.append(f"{module_file} written: {MODULE} is loaded before that")
    if not record.entries:
        _remove_empty(record.made)
    after = {outcome.key: outcome for outcome in examine(kernel, topics, record)}
    result = [_result(outcome, done.get(outcome.key), after[outcome.key]) for outcome in outcomes]
    return Report(action="apply", outcomes=tuple(result), files=tuple(files))


def _moved(root: Path, made: Sequence[str]) -> list[str]:
    """Move a record of an early version to where it is safe; returns the sentence about it."""
    is_moved = move_record(root, made)
    return [f"{root / RECORD_FILE} written: moved from {root / OLD_RECORD_FILE}"] if is_moved else []


def _with_made(record: Record, *made: Iterable[Path | str]) -> Record:
    """The record with directories that were made, each once."""
    return replace(record, made=tuple(dict.fromkeys([*record.made, *(str(one) for group in made for one in group)])))


def _taken(kernel: Kernel, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """What is to be put back one day, with the values the kernel has: it may have taken another than it was given."""
    for outcome in outcomes:
        with suppress(KernelError):
            now = kernel.read(outcome.key)
            if normal(now) != normal(outcome.now):
                yield replace(outcome, wanted=normal(now))


def _result(before: Outcome, done: Outcome | None, after: Outcome) -> Outcome:
    """What came of a setting, from what was planned, what was done, and how it looks now."""
    if done is not None and after.verdict is Verdict.LOST_AT_BOOT:
        return replace(done, verdict=after.verdict, note=f"set now, but {after.note}")
    if done is None and before.verdict is Verdict.LOST_AT_BOOT and after.verdict is Verdict.FINE:
        return replace(before, verdict=Verdict.CHANGED, note="kept at the next start again")
    return done or before


def _with(record: Record, outcomes: Iterable[Outcome]) -> Record:
    for outcome in outcomes:
        entry = Entry(key=outcome.key, topic=outcome.topic, found=outcome.now, applied=outcome.wanted)
        record = record.with_entry(entry)
    return record


def _set(kernel: Kernel, outcome: Outcome) -> Outcome:
    try:
        kernel.write(outcome.key, outcome.wanted)
    except KernelError as error:
        return replace(outcome, verdict=Verdict.FAILED, note=error.reason)
    return replace(outcome, verdict=Verdict.CHANGED)


def revert(root: Path, topics: Iterable[str] = (), *, force: bool = False, dry_run: bool = False) -> Report:
    """
    Put back what ``apply`` has found, and remove what it wrote.

    Args:
        root: The system, ``/`` for the real one.
        topics: Names of topics; all that are recorded if there are none.
        force: Also put back values that somebody has changed since, and remove a file with foreign lines.
        dry_run: Only tell.

    Raises:
        PrivilegeError: This process is not root, and the system is the real one.
        RecordError: The record or the file for the next start cannot be read or written.
        TuningError: There is a file for the next start but no record of what was found.
    """
    record = find_record(root)
    if not record.entries:
        return _revert_without_record(root, force=force, dry_run=dry_run)
    names = set(topics)
    entries = [entry for entry in reversed(record.entries) if not names or entry.topic in names]
    kernel = Kernel(root=root)
    if dry_run:
        outcomes = [_judge(kernel, entry, force=force)[0] for entry in entries]
        return Report(action="revert", outcomes=tuple(outcomes), dry_run=True)
    _require_root(root, "revert")
    made = [str(path) for path in make_directories((root / RECORD_FILE).parent)]
    try:
        with _alone(root):
            files = _moved(root, made)
            record = load_record(root / RECORD_FILE)
            report, rest, kept = _revert(kernel, entries, record, force=force)
    finally:
        _remove_empty(made)
    if not rest.entries:
        _remove_empty(record.made)
    if kept:
        raise TuningError(f"{kept[0]}; move them to a file of their own, or use --force")
    return replace(report, files=(*files, *report.files))


def _revert(
    kernel: Kernel, entries: Iterable[Entry], record: Record, *, force: bool
) -> tuple[Report, Record, list[str]]:
    """Put entries back; returns what came of it, what is left, and which files were kept for what else is in them."""
    record_file, boot_file = kernel.root / RECORD_FILE, kernel.root / BOOT_FILE
    foreign = foreign_lines(boot_file, record)
    outcomes = [_put_back(kernel, entry, force=force) for entry in entries]
    gone = (Verdict.RESTORED, Verdict.AS_FOUND, Verdict.MISSING)
    rest = record.without(outcome.key for outcome in outcomes if outcome.verdict in gone)
    files, kept = [], []
    if foreign and not force:
        kept.append(_kept(boot_file, foreign[0]))
    elif write_boot_file(boot_file, rest):
        files = [f"{boot_file} {'written: what is left' if rest.entries else 'removed'}"]
    if not needs_module(rest):
        removed, held = _remove_module_file(kernel.root, force=force)
        files, kept = [*files, *removed], [*kept, *held]
    save_record(record_file, rest)
    files.append(f"{record_file} {'kept: what is left' if rest.entries else 'removed'}")
    return Report(action="revert", outcomes=tuple(outcomes), files=tuple(files)), rest, kept


def _kept(path: Path, foreign: str) -> str:
    return f"{path} kept: it has lines that did not come from here, such as {foreign}"


def _remove_module_file(root: Path, *, force: bool) -> tuple[list[str], list[str]]:
    """Remove the file if it came from here; returns sentences about what was removed, and about what was kept."""
    path = root / MODULE_FILE
    if not is_ours(path):
        return [], []
    foreign = foreign_modules(path)
    if foreign and not force:
        return [], [_kept(path, foreign[0])]
    return ([f"{path} removed"] if remove_boot_file(path) else []), []


def _revert_without_record(root: Path, *, force: bool, dry_run: bool) -> Report:
    ours = [root / BOOT_FILE] if (root / BOOT_FILE).exists() else []
    if ours and not force:
        raise TuningError(
            f"{ours[0]} is there, but {root / RECORD_FILE} with the values found is not: "
            "they stand in its comments as well; --force removes it"
        )
    ours += [root / MODULE_FILE] if force and is_ours(root / MODULE_FILE) else []
    if not ours or dry_run:
        would = tuple(f"{path} would be removed" for path in ours)
        return Report(action="revert", outcomes=(), files=would, dry_run=dry_run)
    _require_root(root, "revert")
    for path in ours:
        remove_boot_file(path)
    return Report(action="revert", outcomes=(), files=tuple(f"{path} removed" for path in ours))


def _judge(kernel: Kernel, entry: Entry, *, force: bool) -> tuple[Outcome, bool]:
    """Return what to think of a recorded setting and whether it is to be put back."""
    outcome = Outcome(key=entry.key, topic=entry.topic, wanted=entry.found, verdict=Verdict.TO_DO)
    try:
        outcome = replace(outcome, now=kernel.read(entry.key))
    except NoSuchKeyError:
        return replace(outcome, verdict=Verdict.MISSING, note="no longer there"), False
    except KernelError as error:
        return replace(outcome, verdict=Verdict.UNREADABLE, note=error.reason), False
    if normal(outcome.now) == normal(entry.found):
        return replace(outcome, verdict=Verdict.AS_FOUND), False
    if normal(outcome.now) != normal(entry.applied) and not force:
        note = f"changed by somebody since it was set to {normal(entry.applied)}; --force restores it"
        return replace(outcome, verdict=Verdict.KEPT, note=note), False
    return outcome, True


def _put_back(kernel: Kernel, entry: Entry, *, force: bool) -> Outcome:
    outcome, is_due = _judge(kernel, entry, force=force)
    if not is_due:
        return outcome
    outcome = _set(kernel, outcome)
    return replace(outcome, verdict=Verdict.RESTORED) if outcome.verdict is Verdict.CHANGED else outcome


def _refuse_foreign_lines(boot_file: Path, record: Record) -> None:
    foreign = foreign_lines(boot_file, record)
    if foreign:
        raise TuningError(
            f"{boot_file} has lines that did not come from here, such as {foreign[0]}: "
            "move them to a file of their own, or remove the file"
        )


def _refuse_foreign_modules(root: Path, record: Record) -> None:
    path = root / MODULE_FILE
    if not needs_module(record) or is_loaded_at_boot(root) or not os.path.lexists(path):
        return
    if not is_ours(path) or foreign_modules(path):
        raise TuningError(
            f"{path} did not come from here, or has lines that did not: add {MODULE} to it, or move it to another name"
        )


def _require_root(root: Path, action: str) -> None:
    if root.resolve() == Path("/") and os.geteuid() != 0:
        raise PrivilegeError(f"tune {action} changes settings of the kernel: run it as root; --dry-run needs no rights")


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep a second run out; the lock goes with the process, however that ends."""
    descriptor = os.open((root / RECORD_FILE).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TuningError("another antquic-server tune is at work: wait for it to end") from None
        yield
    finally:
        os.close(descriptor)


def _remove_empty(directories: Iterable[str]) -> None:
    for directory in sorted(directories, key=len, reverse=True):
        with suppress(OSError):
            Path(directory).rmdir()
