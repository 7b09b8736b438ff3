"""Applying and reverting: exact, repeatable, and recoverable wherever they are interrupted."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from antquic_server.errors import PrivilegeError
from antquic_server.tuning import actions
from antquic_server.tuning.actions import Report, TuningError, apply, check, revert
from antquic_server.tuning.bootfile import BOOT_FILE, values_at_boot
from antquic_server.tuning.kernel import Kernel
from antquic_server.tuning.modulefile import MODULE_FILE
from antquic_server.tuning.plan import Verdict, choose_topics
from antquic_server.tuning.record import RecordError, RecordForbiddenError, load_record
from antquic_server.tuning.recordfile import OLD_RECORD_FILE, RECORD_FILE, OldRecordError
from support.require import require
from support.tuned_system import STOCK, catalogue, key_file, make_system, settings_of, snapshot

RMEM = "net.core.rmem_max"
TRACKING = [key for key in STOCK if key.startswith("net.netfilter.")]


class InterruptedRunError(BaseException):
    """Stands for whatever ends a process: nothing may catch it."""


def verdicts(report: Report) -> dict[str, Verdict]:
    """Return the verdict of each setting."""
    return {outcome.key: outcome.verdict for outcome in report.outcomes}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small and old machine."""
    return make_system(tmp_path)


def test_apply_then_revert_restores_every_byte(root: Path) -> None:
    """Every value exactly, no file left, no directory left."""
    before = snapshot(root)

    assert set(verdicts(apply(root, catalogue())).values()) == {Verdict.CHANGED}
    changed = snapshot(root)
    assert all(changed[name] != content for name, content in before.items() if content is not None)
    report = revert(root)

    assert set(verdicts(report).values()) == {Verdict.RESTORED}
    assert report.is_good
    assert report.has_changed
    assert [outcome.key for outcome in report.outcomes] == list(reversed(settings_of(catalogue())))
    assert snapshot(root) == before


def test_a_second_apply_changes_nothing(root: Path) -> None:
    """Not even the time of a file."""
    apply(root, catalogue())
    before, times = snapshot(root), {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    report = apply(root, catalogue())

    assert set(verdicts(report).values()) == {Verdict.FINE}
    assert report.files == ()
    assert not report.has_changed
    assert snapshot(root) == before
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == times
    assert check(root, catalogue()).is_good


def test_what_is_applied_is_set_at_the_next_start_too(root: Path) -> None:
    """With the same value, for every setting."""
    apply(root, catalogue())

    for key in STOCK:
        boot = values_at_boot(root).get(key)
        assert boot is not None
        assert boot[0].split() == key_file(root, key).read_text().split()
        assert boot[1] == root / BOOT_FILE


def test_a_larger_value_is_neither_lowered_nor_written_for_the_next_start(root: Path) -> None:
    """Otherwise the file would lower at the next start what apply has left alone."""
    key_file(root, RMEM).write_text("67108864\n")
    report = apply(root, catalogue())

    assert verdicts(report)[RMEM] is Verdict.FINE
    assert key_file(root, RMEM).read_text() == "67108864\n"
    assert values_at_boot(root).get(RMEM) is None
    assert load_record(root / RECORD_FILE).entry(RMEM) is None


def test_the_original_survives_applying_again_after_a_change(root: Path) -> None:
    """Somebody lowers a value, apply sets it again: revert still knows what was there first."""
    apply(root, catalogue())
    key_file(root, RMEM).write_text("100000\n")

    assert verdicts(apply(root, catalogue()))[RMEM] is Verdict.CHANGED
    revert(root)
    assert key_file(root, RMEM).read_text() == "212992\n"


def test_a_value_changed_since_is_kept_until_forced(root: Path) -> None:
    """It is named, stays recorded, and the exit is not good; the rest is restored."""
    before = snapshot(root)
    apply(root, catalogue())
    key_file(root, RMEM).write_text("67108864\n")
    report = revert(root)

    assert [key for key, verdict in verdicts(report).items() if verdict is not Verdict.RESTORED] == [RMEM]
    assert verdicts(report)[RMEM] is Verdict.KEPT
    assert not report.is_good
    assert "--force" in next(outcome.note for outcome in report.outcomes if outcome.key == RMEM)
    assert [entry.key for entry in load_record(root / RECORD_FILE).entries] == [RMEM]
    assert key_file(root, RMEM).read_text() == "67108864\n"

    assert verdicts(revert(root, force=True)) == {RMEM: Verdict.RESTORED}
    assert snapshot(root) == before


def test_topics_are_applied_and_reverted_one_by_one(root: Path) -> None:
    """The record and the file keep what is left."""
    before = snapshot(root)
    apply(root, choose_topics(catalogue(), ["buffers"]))
    apply(root, choose_topics(catalogue(), ["ports"]))
    report = revert(root, ["buffers"])

    assert {outcome.topic for outcome in report.outcomes} == {"buffers"}
    assert values_at_boot(root).get(RMEM) is None
    assert values_at_boot(root).get("net.ipv4.ip_local_reserved_ports") is not None
    assert [path.name for path in (root / RECORD_FILE).parent.iterdir()] == ["tuning.json"]
    revert(root)
    assert snapshot(root) == before


def test_a_dry_run_writes_nothing(root: Path) -> None:
    """Neither applying nor reverting, and both tell what they would do."""
    before = snapshot(root)
    report = apply(root, catalogue(), dry_run=True)

    assert report.is_good
    assert not report.has_changed
    assert set(verdicts(report).values()) == {Verdict.TO_DO}
    assert snapshot(root) == before
    apply(root, catalogue())
    before = snapshot(root)
    assert set(verdicts(revert(root, dry_run=True)).values()) == {Verdict.TO_DO}
    assert snapshot(root) == before


def test_what_the_kernel_refuses_is_reported_and_not_recorded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are set; a later apply tries again."""
    before = snapshot(root)
    real = os.open

    def refuse(path: object, flags: int, *rest: int) -> int:
        if str(path).endswith("/rmem_max") and flags & os.O_WRONLY:
            raise OSError(22, "ignored")
        return real(path, flags, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        report = apply(root, catalogue())
    failed = next(outcome for outcome in report.outcomes if outcome.key == RMEM)

    assert (failed.verdict, failed.note) == (Verdict.FAILED, "cannot be set to '26214400': Invalid argument")
    assert not report.is_good
    assert sum(verdict is Verdict.CHANGED for verdict in verdicts(report).values()) == len(STOCK) - 1
    assert load_record(root / RECORD_FILE).entry(RMEM) is None
    assert values_at_boot(root).get(RMEM) is None
    revert(root)
    assert snapshot(root) == before


def test_a_value_the_kernel_rounds_is_put_back_all_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as failed, but what the kernel took instead is recorded as ours."""
    before = snapshot(root)
    real = Kernel.write

    def rounding(self: Kernel, key: str, value: str) -> None:
        if key == RMEM and value == "26214400":
            key_file(root, key).write_text("20000000\n")
            real(self, "net.core.nothing", value)
        real(self, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(Kernel, "write", rounding)
        assert verdicts(apply(root, catalogue()))[RMEM] is Verdict.FAILED
    assert verdicts(revert(root))[RMEM] is Verdict.RESTORED
    assert snapshot(root) == before


def test_where_nothing_can_be_set_nothing_is_left_behind(root: Path) -> None:
    """As inside a container: no record of nothing, no empty directories."""
    for key in STOCK:
        key_file(root, key).chmod(0o444)
    before = snapshot(root)
    report = apply(root, catalogue())

    assert set(verdicts(report).values()) == {Verdict.FIXED_HERE}
    assert not report.is_good
    assert snapshot(root) == before


def test_a_missing_module_is_no_fault(tmp_path: Path) -> None:
    """Its keys are named, the others set; what has vanished before the revert is named then."""
    root = make_system(tmp_path, {key: value for key, value in STOCK.items() if "nf_conntrack" not in key})
    report = apply(root, catalogue())

    assert report.is_good
    assert sum(verdict is Verdict.MISSING for verdict in verdicts(report).values()) == 4
    key_file(root, "net.core.busy_poll").unlink()
    report = revert(root)
    assert verdicts(report)["net.core.busy_poll"] is Verdict.MISSING
    assert not (root / RECORD_FILE).exists()
    assert report.is_good


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """End the run at the ``step``-th change of anything, before it or half-way; returns how many there were."""
    count = 0

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                raise InterruptedRunError
            return real(*arguments, **options)

        return wrapper

    monkeypatch.setattr(Kernel, "write", counted(Kernel.write))
    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
    monkeypatch.setattr(Path, "mkdir", counted(Path.mkdir))
    return lambda: count


def test_apply_can_be_interrupted_anywhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reverting then restores everything; applying again finishes, and reverting that restores everything, too."""
    before = snapshot(root)
    step = 0
    while True:
        step += 1
        with monkeypatch.context() as patch:
            changes = interrupt_at(step, patch)
            try:
                apply(root, catalogue())
            except InterruptedRunError:
                pass
            else:
                break
        if step % 2:
            assert apply(root, catalogue()).is_good
            assert check(root, catalogue()).is_good
        assert revert(root).is_good
        assert {name: content for name, content in snapshot(root).items() if content is not None} == {
            name: content for name, content in before.items() if content is not None
        }
    assert changes() > len(STOCK)


def revert_is_interrupted_at(step: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Revert with a mishap at a step; False if it has not that many."""
    with monkeypatch.context() as patch:
        interrupt_at(step, patch)
        try:
            revert(root)
        except InterruptedRunError:
            return True
    return False


def test_revert_can_be_interrupted_anywhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second revert finishes it."""
    before = {name: content for name, content in snapshot(root).items() if content is not None}
    step = 0
    while True:
        step += 1
        apply(root, catalogue())
        if not revert_is_interrupted_at(step, root, monkeypatch):
            break
        revert(root)
        assert {name: content for name, content in snapshot(root).items() if content is not None} == before
    assert step > len(STOCK)


def test_a_lost_boot_file_is_written_again(root: Path) -> None:
    """The kernel is fine, the next start would not be: check says so, apply repairs it."""
    apply(root, catalogue())
    (root / BOOT_FILE).unlink()

    assert set(verdicts(check(root, catalogue())).values()) == {Verdict.LOST_AT_BOOT}
    assert set(verdicts(apply(root, catalogue())).values()) == {Verdict.CHANGED}
    assert check(root, catalogue()).is_good


def test_a_later_file_is_named_by_apply(root: Path) -> None:
    """Its value is the operator's, who is told instead of being overruled."""
    theirs = root / "etc/sysctl.d/99-local.conf"
    theirs.parent.mkdir(parents=True)
    theirs.write_text(f"{RMEM} = 212992\n")
    report = apply(root, catalogue())

    outcome = next(outcome for outcome in report.outcomes if outcome.key == RMEM)
    assert (outcome.verdict, outcome.note) == (Verdict.LOST_AT_BOOT, f"set now, but {theirs} sets it to 212992")
    assert not report.is_good
    revert(root)
    assert theirs.read_text() == f"{RMEM} = 212992\n"


def test_a_boot_file_with_foreign_lines_is_not_overwritten(root: Path) -> None:
    """Neither by applying nor by reverting, unless forced."""
    before = snapshot(root)
    (root / BOOT_FILE).parent.mkdir(parents=True)
    (root / BOOT_FILE).write_text("vm.swappiness = 5\n")
    with pytest.raises(TuningError, match=r"has lines that did not come from here, such as vm\.swappiness = 5"):
        apply(root, catalogue())
    (root / BOOT_FILE).unlink()
    (root / BOOT_FILE).parent.rmdir()
    (root / "etc").rmdir()
    assert snapshot(root) == before

    apply(root, catalogue())
    with (root / BOOT_FILE).open("a") as file:
        file.write("vm.swappiness = 5\n")
    with pytest.raises(TuningError, match="kept: it has lines that did not come from here"):
        revert(root)
    assert "vm.swappiness = 5" in (root / BOOT_FILE).read_text()
    assert key_file(root, RMEM).read_text() == "212992\n"
    assert revert(root, force=True).files == (f"{root / BOOT_FILE} removed",)


def start_node(root: Path) -> Path:
    """Make the state directory as systemd does: all in it belongs to the node's account; returns it."""
    require(os.geteuid() == 0, "needs root")
    state = root / "var/lib/antquic-server"
    state.mkdir(parents=True, exist_ok=True)
    for path in (state, *state.rglob("*")):
        os.chown(path, 65534, 65534)
    return state


def test_the_first_start_of_the_node_does_not_take_the_way_back(root: Path) -> None:
    """Apply comes before it on a new machine: check, apply and revert work after it as before."""
    before = {name: content for name, content in snapshot(root).items() if content is not None}
    apply(root, catalogue())
    start_node(root)

    report = check(root, catalogue())
    assert (report.is_good, report.files) == (True, ())
    assert not apply(root, catalogue()).has_changed
    assert revert(root).is_good
    assert {name: content for name, content in snapshot(root).items() if content is not None} == before


def keep_as_before(root: Path) -> Path:
    """Apply, and put the record where early versions kept it; returns its path."""
    apply(root, catalogue())
    old = root / OLD_RECORD_FILE
    old.parent.mkdir(parents=True, exist_ok=True)
    (root / RECORD_FILE).rename(old)
    (root / RECORD_FILE).parent.rmdir()
    return old


@pytest.mark.parametrize("with_apply", [True, False])
def test_a_record_in_the_old_place_is_moved_and_reverted(root: Path, with_apply: bool) -> None:
    """Looking leaves it where it is; what changes something takes it along."""
    (root / OLD_RECORD_FILE).parent.mkdir(parents=True)
    before = snapshot(root)
    old = keep_as_before(root)
    assert check(root, catalogue()).is_good
    assert apply(root, catalogue(), dry_run=True).is_good
    assert set(verdicts(revert(root, dry_run=True)).values()) == {Verdict.TO_DO}
    assert old.exists()

    if with_apply:
        report = apply(root, catalogue())
        assert report.files == (f"{root / RECORD_FILE} written: moved from {old}",)
        assert set(verdicts(report).values()) == {Verdict.FINE}
        assert not old.exists()
        assert apply(root, catalogue()).files == ()
    assert set(verdicts(revert(root)).values()) == {Verdict.RESTORED}
    assert snapshot(root) == before


def test_a_part_of_an_old_record_can_be_reverted(root: Path) -> None:
    """The rest is in the new place then."""
    old = keep_as_before(root)
    revert(root, ["buffers"])

    assert not old.exists()
    assert load_record(root / RECORD_FILE).entry(RMEM) is None
    assert load_record(root / RECORD_FILE).entry("fs.file-max") is not None


def test_an_old_record_that_the_node_owns_is_not_believed(root: Path) -> None:
    """Looking says so; what would change something tells the way out, which works."""
    before = {name: content for name, content in snapshot(root).items() if content is not None}
    old = keep_as_before(root)
    start_node(root)
    kept = snapshot(root)

    report = check(root, catalogue())
    assert set(verdicts(report).values()) == {Verdict.FINE}
    assert f"{old}: expected a file that belongs to root" in report.files[0]
    with pytest.raises(OldRecordError, match="chown root:root"):
        apply(root, catalogue())
    for force in (False, True):
        with pytest.raises(OldRecordError, match="chown root:root"):
            revert(root, force=force)
    assert snapshot(root) == kept

    os.chown(old, 0, 0)
    assert revert(root).is_good
    assert {name: content for name, content in snapshot(root).items() if content is not None} == before


def test_moving_can_be_interrupted_anywhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second revert finishes it, and nothing is put back twice."""
    before = {name: content for name, content in snapshot(root).items() if content is not None}
    step = 0
    while True:
        step += 1
        old = keep_as_before(root)
        if not revert_is_interrupted_at(step, root, monkeypatch):
            break
        revert(root)
        old.parent.rmdir()
        assert {name: content for name, content in snapshot(root).items() if content is not None} == before
    assert step > len(STOCK)


def loaded_modules(root: Path) -> list[str]:
    """What our file has the next start load."""
    return [line for line in (root / MODULE_FILE).read_text().splitlines() if not line.startswith("#")]


def test_the_module_of_connection_tracking_is_loaded_at_the_next_start(root: Path) -> None:
    """Its keys are not there before; without the file they are lost, and apply writes it again."""
    before = snapshot(root)
    report = apply(root, catalogue())
    assert f"{root / MODULE_FILE} written: nf_conntrack is loaded before that" in report.files
    assert loaded_modules(root) == ["nf_conntrack"]

    (root / MODULE_FILE).unlink()
    report = check(root, catalogue())
    assert {key for key, verdict in verdicts(report).items() if verdict is Verdict.LOST_AT_BOOT} == set(TRACKING)
    assert not report.is_good
    assert "nf_conntrack is not loaded in time" in report.outcomes[list(verdicts(report)).index(TRACKING[0])].note
    again = verdicts(apply(root, catalogue()))
    assert [key for key, verdict in again.items() if verdict is Verdict.CHANGED] == TRACKING
    assert check(root, catalogue()).is_good

    assert f"{root / MODULE_FILE} removed" in revert(root).files
    assert snapshot(root) == before


def test_the_module_goes_with_the_last_setting_that_needs_it(root: Path) -> None:
    """And is not asked for by others."""
    apply(root, choose_topics(catalogue(), ["buffers"]))
    assert not (root / MODULE_FILE).exists()
    apply(root, choose_topics(catalogue(), ["conntrack"]))
    assert loaded_modules(root) == ["nf_conntrack"]
    revert(root, ["buffers"])
    assert loaded_modules(root) == ["nf_conntrack"]
    apply(root, choose_topics(catalogue(), ["buffers"]))
    revert(root, ["conntrack"])
    assert not (root / MODULE_FILE).exists()
    assert load_record(root / RECORD_FILE).entry(RMEM) is not None


@pytest.mark.parametrize("name", [str(MODULE_FILE), "etc/modules-load.d/modules.conf"])
def test_a_file_of_the_operators_that_loads_the_module_stays(root: Path, name: str) -> None:
    """Byte for byte, even under the name of ours."""
    theirs = root / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("br_netfilter\n nf-conntrack\n")
    before = snapshot(root)

    assert apply(root, catalogue()).is_good
    assert [path.name for path in theirs.parent.iterdir()] == [theirs.name]
    revert(root)
    assert snapshot(root) == before


def test_a_module_file_with_foreign_lines_is_not_overwritten(root: Path) -> None:
    """Neither by applying, which changes nothing then, nor by reverting, unless forced."""
    before = snapshot(root)
    theirs = root / MODULE_FILE
    theirs.parent.mkdir(parents=True)
    theirs.write_text("br_netfilter\n")
    with pytest.raises(TuningError, match=f"{theirs} did not come from here, .*: add nf_conntrack to it"):
        apply(root, catalogue())
    theirs.unlink()
    theirs.parent.rmdir()
    (root / "etc").rmdir()
    assert snapshot(root) == before

    apply(root, catalogue())
    with theirs.open("a") as file:
        file.write("br_netfilter\n")
    with pytest.raises(TuningError, match=r"kept: it has lines that did not come from here, such as br_netfilter"):
        revert(root)
    assert theirs.read_text().endswith("br_netfilter\n")
    assert key_file(root, TRACKING[0]).read_text() == "65536\n"
    assert revert(root).files == ()
    assert revert(root, force=True).files == (f"{theirs} removed",)


def test_a_boot_file_without_its_record_is_not_reverted_blindly(root: Path) -> None:
    """What was found is unknown; the file goes only when forced."""
    apply(root, catalogue())
    (root / RECORD_FILE).unlink()

    with pytest.raises(TuningError, match="stand in its comments"):
        revert(root)
    both = (root / BOOT_FILE, root / MODULE_FILE)
    assert revert(root, force=True, dry_run=True).files == tuple(f"{path} would be removed" for path in both)
    assert all(path.exists() for path in both)
    revert(root, force=True)
    assert not any(path.exists() for path in both)


def test_reverting_nothing_is_fine(root: Path) -> None:
    """As often as one likes."""
    before = snapshot(root)

    assert revert(root) == Report(action="revert", outcomes=())
    assert snapshot(root) == before


def test_an_unreadable_setting_is_kept_in_the_record(root: Path) -> None:
    """It may be readable again."""
    apply(root, catalogue())
    key_file(root, RMEM).unlink()
    key_file(root, RMEM).mkdir()
    report = revert(root)

    assert verdicts(report)[RMEM] is Verdict.UNREADABLE
    assert not report.is_good
    assert [entry.key for entry in load_record(root / RECORD_FILE).entries] == [RMEM]


def test_a_broken_record_stops_everything(root: Path) -> None:
    """Before anything is changed."""
    (root / RECORD_FILE).parent.mkdir(parents=True)
    (root / RECORD_FILE).write_text("{")
    before = snapshot(root)

    for action in (check, apply):
        with pytest.raises(RecordError, match=r"tuning\.json: cannot be read"):
            action(root, catalogue())
    with pytest.raises(RecordError, match=r"tuning\.json: cannot be read"):
        revert(root)
    assert snapshot(root) == before


def test_who_may_not_read_the_record_may_still_look(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user, kept out of the node's directory, is told what that leaves open; only root may change."""
    apply(root, catalogue())

    real = Path.open

    def forbid(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == RECORD_FILE.name:
            raise PermissionError(13, "ignored")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", forbid)
    for report in (check(root, catalogue()), apply(root, catalogue(), dry_run=True)):
        assert set(verdicts(report).values()) == {Verdict.FINE}
        assert report.is_good
        assert not report.has_changed
        assert "tuning.json: cannot be read: Permission denied: whether" in report.files[0]
    with pytest.raises(RecordForbiddenError):
        apply(root, catalogue())


def test_two_runs_do_not_mix(root: Path) -> None:
    """The second is told to wait, and changes nothing."""
    directory = (root / RECORD_FILE).parent
    directory.mkdir(parents=True)
    before = snapshot(root)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(TuningError, match="another antquic-server tune is at work"):
            apply(root, catalogue())
    finally:
        os.close(descriptor)
    assert snapshot(root) == before


def test_the_real_system_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything is looked at for changing."""

    def refuse(*arguments: object) -> None:
        pytest.fail("the machine of the tests would have been changed")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(Kernel, "write", refuse)
    monkeypatch.setattr(actions, "make_directories", refuse)

    with pytest.raises(PrivilegeError, match="tune apply changes settings of the kernel: run it as root"):
        apply(Path("/"), catalogue())
