"""
Passes introductions between workers.

Initiator and target of a hole punch are usually on different workers. The worker that is asked knows only its own
peers, so it asks the hub; the hub looks the target up and passes the question to the worker that has it, and the answer
back. Nothing is remembered in between: messages carry all that is needed, and one that gets lost with its worker ends
in the initiator's own timeout.
"""

from collections.abc import Callable
from dataclasses import replace

from antquic_server.ipc.messages import Introduce, Introduced, Message
from antquic_server.protocol.coordination import RejectionReason
from antquic_server.supervisor.directory import Directory


class Hub:
    """``tell_slot`` sends a message to the worker of a slot; False if there is none or its queue is full."""

    def __init__(self, directory: Directory, tell_slot: Callable[[int, Message], bool]) -> None:
        self._directory = directory
        self._tell_slot = tell_slot

    def introduce(self, slot: int, message: Introduce) -> None:
        """Pass a question of the worker of ``slot`` on, or answer that the target is not here."""
        question = self._readable_from(replace(message, slot=slot))
        target = self._directory.newest(message.target)
        if target is None:
            self.introduced(question.answer(reason=RejectionReason.UNKNOWN_TARGET.value))
            return
        question = replace(question, target_connection=target.connection)
        if not self._tell_slot(target.slot, question):
            self.introduced(question.answer(reason=RejectionReason.INTERNAL_ERROR.value))

    def introduced(self, message: Introduced) -> None:
        """Pass an answer back to the worker that asked; if it is gone, so is its peer's connection."""
        self._tell_slot(message.slot, message)

    def _readable_from(self, question: Introduce) -> Introduce:
        """
        Return the question with the connection on which the initiator reads the answer.

        That is the one it asked on, unless a peer dialled that one only to ask, and listens on another.
        """
        asked = (question.slot, question.connection)
        for each in self._directory.find(question.initiator):
            if (each.slot, each.connection) == asked and not each.readable:
                reader = self._directory.newest(question.initiator)
                if reader is not None:
                    return replace(question, slot=reader.slot, connection=reader.connection)
        return question
