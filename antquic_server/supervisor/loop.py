"""
The supervisor: a node from its start to its end.

Runs in the parent process. Signals and timers only call methods of ``Supervisor``, on the event loop's
thread; the decisions are those of ``fleet`` and ``policy``.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import uvloop

from antquic_server.config.model import LogSettings, Settings, to_plain
from antquic_server.errors import CannotBootError, CertificateError, ConfigurationError, ExitCode
from antquic_server.identity import Identity
from antquic_server.ipc.log_messages import LogLevels
from antquic_server.ipc.messages import CertificateChanged
from antquic_server.keylog import open_key_log
from antquic_server.logs import change_levels, get_logger, settle_repeats
from antquic_server.protocol.relay_channel import channel_secret
from antquic_server.supervisor.admin import AdminServer
from antquic_server.supervisor.boot import (
    WORKER_COMMAND,
    AssignmentWriter,
    Endpoint,
    open_endpoint,
    worker_environment,
)
from antquic_server.supervisor.control import ControlServer
from antquic_server.supervisor.control_socket import ControlSocket, open_control_socket
from antquic_server.supervisor.cpus import usable_cpus
from antquic_server.supervisor.fleet import Fleet, FleetPlan
from antquic_server.supervisor.log_control import LogControl
from antquic_server.supervisor.privileges import drop_privileges
from antquic_server.supervisor.process import WorkerListener, WorkerProcess
from antquic_server.supervisor.qlog_desk import QlogDesk
from antquic_server.supervisor.ready_line import print_ready_line
from antquic_server.supervisor.reload import compare, merge
from antquic_server.supervisor.sd_notify import ServiceManager
from antquic_server.supervisor.statistics import Statistics
from antquic_server.supervisor.status import NodeFacts, NodeStatus
from antquic_server.supervisor.traces import TraceListener

DRAIN_SHARE: Final = 0.6
KILL_SHARE: Final = 0.75
"""Of the shutdown deadline: what workers get to leave, and when those that have not are killed."""

log = get_logger(__name__)


def run_supervisor(
    settings: Settings,
    identity: Identity,
    certificate: tuple[bytes, bytes],
    *,
    echo: bool,
    reload: Callable[[], Settings] | None = None,
    reload_certificate: Callable[[], tuple[bytes, bytes]] | None = None,
    worker_command: Sequence[str] = WORKER_COMMAND,
) -> int:
    """
    Run a node in this process until SIGTERM or SIGINT; returns the exit code.

    Args:
        settings: The whole configuration.
        identity: The node key.
        certificate: X.509 certificate chain and private key for clients without raw public keys, both PEM.
        echo: Whether workers send back what peers send.
        reload: Reads the configuration again, for SIGHUP; raises ConfigurationError. None: SIGHUP changes nothing.
        reload_certificate: Reads ``certificate`` again, for SIGHUP; raises CertificateError. None: it is no file.
        worker_command: Program and arguments of a worker process.

    Raises:
        CannotBootError: A port is taken, an account does not exist, or the workers cannot start.
    """
    service = ServiceManager.from_environment(os.environ, pid=os.getpid())
    cpus = usable_cpus()
    endpoint = open_endpoint(settings, cpus)
    control = None
    try:
        account = drop_privileges(settings.endpoint.user, settings.endpoint.group)
        if account is not None:
            log.info("privileges dropped", user=account.user, uid=account.uid, gid=account.gid)
        if os.geteuid() == 0:
            danger = "whoever takes over a worker has the machine"
            log.warning("serving as root", danger=danger, advice="set endpoint.user")
        # As who we are now, so that the control socket can be removed again and workers can write the key log.
        control = open_control_socket(
            settings.admin.control,
            environment=os.environ,
            pid=os.getpid(),
            on_skipped=lambda problem: log.warning("control socket not opened", problem=problem),
        )
        if settings.log.keylog:
            open_key_log(Path(settings.log.keylog)).close()
            danger = "whoever has this file can read the traffic of every connection"
            log.warning("TLS SECRETS ARE WRITTEN", path=settings.log.keylog, danger=danger)
        assignments = AssignmentWriter(
            settings=settings,
            identity=identity,
            certificate=certificate,
            endpoint=endpoint,
            cpus=cpus,
            echo=echo,
        )
        build = partial(
            Supervisor,
            settings=settings,
            peer_id=identity.peer_id,
            channel_secret=channel_secret(identity.seed),
            reload=reload,
            reload_certificate=reload_certificate,
            endpoint=endpoint,
            control=control,
            assignments=assignments,
            worker_command=worker_command,
            environment=worker_environment(account),
            service=service,
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(build, endpoint, control))
    finally:
        endpoint.close()
        service.close()
        if control is not None:
            control.close()


async def _serve(build: Callable[..., "Supervisor"], endpoint: Endpoint, control: ControlSocket | None) -> int:
    """Serve on the running loop; ``build`` lacks the loop only."""
    loop = asyncio.get_running_loop()
    supervisor = build(loop=loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, partial(supervisor.handle_stop_signal, number))
    loop.add_signal_handler(signal.SIGHUP, supervisor.handle_reload_signal)
    admin = AdminServer(supervisor.status, supervisor.admin_names)
    supervisor.status.admin_refused = lambda: admin.refused
    await admin.start(endpoint.admin)
    owner = ControlServer(supervisor.status, supervisor.levels, supervisor.traces)
    if control is not None:
        await owner.start(control.sock)
    try:
        return await supervisor.run()
    finally:
        await owner.stop()
        await admin.stop()
        supervisor.traces.close()


class Supervisor:
    """
    One node: its fleet of workers, from start to drain.

    ``run`` ends when a stop signal has been obeyed, or raises CannotBootError when the node is hopeless.
    Either way no worker is left then.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        peer_id: bytes,
        channel_secret: bytes,
        reload: Callable[[], Settings] | None,
        reload_certificate: Callable[[], tuple[bytes, bytes]] | None,
        endpoint: Endpoint,
        control: ControlSocket | None,
        assignments: AssignmentWriter,
        worker_command: Sequence[str],
        environment: Mapping[str, str],
        service: ServiceManager,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._settings = settings
        self._peer_id = peer_id
        self._reload = reload
        self._reload_certificate = reload_certificate
        self._assignments = assignments
        self._endpoint = endpoint
        self._loop = loop
        self._worker_command = worker_command
        self._environment = environment
        self._service = service
        self._finished: asyncio.Future[None] = loop.create_future()
        self._exit_code = ExitCode.OK
        self._hopeless: str | None = None
        self._announced = False
        plan = FleetPlan(
            worker_count=endpoint.worker_count,
            standby_workers=settings.endpoint.standby_workers,
            heartbeat_interval_s=settings.endpoint.heartbeat_interval_s,
            heartbeat_timeout_s=settings.endpoint.heartbeat_timeout_s,
            max_connections=settings.endpoint.max_connections,
            start_worker=self._start_worker,
            assignment=assignments,
            nat=settings.nat,
            relay=settings.relay,
            channel_secret=channel_secret,
        )
        self._fleet = Fleet(
            plan,
            clock=loop.time,
            on_ready=self._announce,
            on_hopeless=self._give_up,
            on_empty=self._end,
        )
        self.levels = LogControl(settings.log, self._levels_changed)
        self.traces = QlogDesk(self._fleet.tell_slot, self._fleet.ready_slots, clock=loop.time)
        facts = NodeFacts(
            peer_id=peer_id,
            pid=os.getpid(),
            listen=endpoint.listen,
            steered=all(group.steered for group in endpoint.groups),
            started_s=loop.time(),
            control=None if control is None else str(control.path),
            keylog=settings.log.keylog or None,
        )
        self._statistics: Statistics | None = None
        """From when the node serves."""
        self.status = NodeStatus(facts, self._fleet, clock=loop.time, settings=settings)
        self.admin_names = settings.admin.names

    async def run(self) -> int:
        """Serve until told to stop."""
        self._fleet.start()
        self._tick()
        try:
            await self._finished
        finally:
            # Also when this task is cancelled: a worker must not outlive the sockets' owner.
            self._fleet.kill()
            self._fleet.hub.punches.settle_all()
            self._write_statistics(final=True)
        if self._hopeless is not None:
            raise CannotBootError(self._hopeless)
        return self._exit_code

    def handle_stop_signal(self, number: signal.Signals) -> None:
        """Drain at the first signal, kill at the second."""
        if self._fleet.stopping:
            log.warning("second stop signal: killing workers", signal=number.name)
            self._exit_code = ExitCode.FAILURE
            self._fleet.kill()
            return
        deadline_s = self._settings.endpoint.shutdown_deadline_s
        log.info("draining", signal=number.name, deadline_s=deadline_s)
        self._service.stopping(deadline_s)
        # The timer first: draining an empty fleet ends the node at once.
        self._loop.call_later(deadline_s * KILL_SHARE, self._lose_patience)
        self._fleet.drain(deadline_s * DRAIN_SHARE)

    def handle_reload_signal(self) -> None:
        """Read the configuration again and apply what may change; a wrong one changes nothing."""
        if self._reload is None or self._fleet.stopping:
            log.info("configuration not read again", reason="draining" if self._fleet.stopping else "there is none")
            return
        if self._announced:
            # A node that still starts is not ready again afterwards.
            self._service.reloading(time.clock_gettime(time.CLOCK_MONOTONIC))
        try:
            self._reread(self._reload)
        finally:
            if self._announced:
                self._service.ready(self.status.line())

    def _reread(self, reload: Callable[[], Settings]) -> None:
        try:
            found = reload()
        except ConfigurationError as error:
            log.error("configuration not reloaded", error=str(error))  # noqa: TRY400 - a mistake of the operator's
            return
        changes = compare(self._settings, found)
        applied = [*changes.applied, *self._renew_certificate(found)]
        log.info("configuration reloaded", changed=applied, needs_restart=changes.needs_restart)
        if changes.applied:
            self._settings = merge(self._settings, found)
            self.levels.reconfigure(self._settings.log)
            self._fleet.change_relay(self._settings.relay, to_plain(self._settings))

    def _renew_certificate(self, found: Settings) -> list[str]:
        """Hand a certificate that was renewed in its place to the workers; returns the settings whose files are new."""
        # Other paths wait for a restart, as the log says; until then the old ones may be gone already.
        if self._reload_certificate is None or found.tls != self._settings.tls:
            return []
        try:
            certificate = self._reload_certificate()
        except CertificateError as error:
            log.error("certificate not reloaded", error=str(error))  # noqa: TRY400 - a mistake of the operator's
            return []
        if not self._assignments.renew(certificate):
            return []
        message = CertificateChanged(certificate_pem=certificate[0], certificate_key_pem=certificate[1])
        for worker in self._fleet.workers:
            worker.send(message)
        return ["tls.certificate"]

    def _levels_changed(self, settings: LogSettings) -> None:
        """Let levels hold here, in every worker, and in those that will be assigned a slot."""
        change_levels(settings)
        in_force = replace(self._settings, log=settings)
        self._assignments.change(in_force)
        self.status.settings_changed(in_force)
        message = LogLevels(
            level=settings.level,
            modules=settings.modules,
            repeat_burst=settings.repeat_burst,
            repeat_window_s=settings.repeat_window_s,
        )
        for worker in self._fleet.workers:
            worker.send(message)

    def _start_worker(self, listener: WorkerListener) -> WorkerProcess:
        return WorkerProcess(
            command=self._worker_command,
            environment=self._environment,
            inherited_fds=self._endpoint.inherited_fds,
            loop=self._loop,
            listener=TraceListener(listener, self.traces),
        )

    def _tick(self) -> None:
        if self._finished.done():
            return
        self._loop.call_later(self._settings.endpoint.heartbeat_interval_s, self._tick)
        self._fleet.tick()
        self.traces.tick()
        settle_repeats()
        self.status.tick()
        self._report()

    def _report(self) -> None:
        """Tell the service manager how it goes: nothing about liveness while a slot is forgotten."""
        if not self._service:
            return
        if self._announced and not self._fleet.stopping:
            self._service.status(self.status.line())
        if not self.status.neglected():
            self._service.alive(self._loop.time())

    def _begin_statistics(self) -> None:
        interval_s = self._settings.log.stats_interval_s
        if not interval_s:
            return
        self._statistics = Statistics(self._loop.time())

        def due() -> None:
            if not self._finished.done():
                self._loop.call_later(interval_s, due)
                self._write_statistics(final=False)

        self._loop.call_later(interval_s, due)

    def _write_statistics(self, *, final: bool) -> None:
        if self._statistics is not None:
            line = self._statistics.line(self.status.totals(), self._loop.time())
            log.info("statistics", final=final, **line)

    def _announce(self) -> None:
        """Say that the node serves, to whoever started it."""
        facts = {
            "event": "ready",
            "listen": self._endpoint.listen,
            "peer_id": self._peer_id.hex(),
            "workers": self._endpoint.worker_count,
            "pqc_provider": self.status.pqc_provider(),
            "admin": self._endpoint.admin_url,
        }
        print_ready_line(facts)
        self._begin_statistics()
        self._announced = True
        self._service.ready(self.status.line())
        log.info("serving", listen=self._endpoint.listen, peer_id=self._peer_id, admin=self._endpoint.admin_url)

    def _lose_patience(self) -> None:
        if not self._finished.done():
            left = [worker.pid for worker in self._fleet.workers]
            log.warning("workers did not leave in time: killing them", worker_pids=left)
            self._fleet.kill()

    def _give_up(self, reason: str) -> None:
        self._hopeless = reason
        self._fleet.kill()

    def _end(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)
