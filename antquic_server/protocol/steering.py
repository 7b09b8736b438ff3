"""
The packet filter with which the kernel picks the socket of a slot.

A classic BPF program is attached to the group of sockets that share a port (``SO_ATTACH_REUSEPORT_CBPF``);
its result is the index of the socket, in the order in which the sockets were bound. It sees the UDP payload
and needs no privilege. In words::

    load byte 0                            form bit set: long header (RFC 8999, section 5.1)
    load byte 9 if long, else byte 4       steering byte of the destination connection ID
    modulo the number of workers
    return it

A load behind the end of the datagram ends a classic program with the result 0: slot 0 gets what is too
short to steer. ``routing.owner_slot`` computes the same; a test holds the two together.
"""

from collections.abc import Sequence

__all__ = [
    "LONG_HEADER_CONNECTION_ID_OFFSET",
    "LONG_HEADER_FORM_BIT",
    "LONG_HEADER_STEERING_OFFSET",
    "MAX_WORKER_COUNT",
    "SHORT_HEADER_CONNECTION_ID_OFFSET",
    "SHORT_HEADER_STEERING_OFFSET",
    "STEERING_BYTE_INDEX",
    "Instruction",
    "run_program",
    "steering_program",
]

STEERING_BYTE_INDEX = 3
"""Index, inside a connection ID, of the byte that names the slot."""

MAX_WORKER_COUNT = 64
"""At 64 slots each still owns four values of the steering byte; the least even split (52 to 63) is 5 to 4."""

LONG_HEADER_FORM_BIT = 0x80
LONG_HEADER_CONNECTION_ID_OFFSET = 6
SHORT_HEADER_CONNECTION_ID_OFFSET = 1

LONG_HEADER_STEERING_OFFSET = LONG_HEADER_CONNECTION_ID_OFFSET + STEERING_BYTE_INDEX
SHORT_HEADER_STEERING_OFFSET = SHORT_HEADER_CONNECTION_ID_OFFSET + STEERING_BYTE_INDEX

Instruction = tuple[int, int, int, int]
"""Operation code, jump if true, jump if false, operand: the fields of ``struct sock_filter``."""

# Operation codes of classic BPF, as the kernel composes them in linux/filter.h.
_LOAD_BYTE = 0x30  # BPF_LD | BPF_B | BPF_ABS
_JUMP_IF_BITS = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_MODULO = 0x94  # BPF_ALU | BPF_MOD | BPF_K
_RETURN_ACCUMULATOR = 0x16  # BPF_RET | BPF_A


def steering_program(worker_count: int) -> list[Instruction]:
    """Write the program for a group of ``worker_count`` sockets, 1 to 64."""
    if not 1 <= worker_count <= MAX_WORKER_COUNT:
        raise ValueError(f"worker_count is {worker_count}, expected 1 to {MAX_WORKER_COUNT}")
    return [
        (_LOAD_BYTE, 0, 0, 0),
        (_JUMP_IF_BITS, 0, 3, LONG_HEADER_FORM_BIT),
        (_LOAD_BYTE, 0, 0, LONG_HEADER_STEERING_OFFSET),
        (_MODULO, 0, 0, worker_count),
        (_RETURN_ACCUMULATOR, 0, 0, 0),
        (_LOAD_BYTE, 0, 0, SHORT_HEADER_STEERING_OFFSET),
        (_MODULO, 0, 0, worker_count),
        (_RETURN_ACCUMULATOR, 0, 0, 0),
    ]


def run_program(program: Sequence[Instruction], datagram: bytes | memoryview) -> int:
    """
    Do what the kernel does with a program, for the operations used here.

    Meant for tests and for a node that explains itself, not for the data path. Raises ``ValueError`` for a
    program the kernel would refuse: an unknown operation, or no return at the end.
    """
    accumulator = 0
    position = 0
    while position < len(program):
        code, jump_if_true, jump_if_false, operand = program[position]
        position += 1
        if code == _LOAD_BYTE:
            if operand >= len(datagram):
                return 0
            accumulator = datagram[operand]
        elif code == _JUMP_IF_BITS:
            position += jump_if_true if accumulator & operand else jump_if_false
        elif code == _MODULO:
            accumulator %= operand
        elif code == _RETURN_ACCUMULATOR:
            return accumulator
        else:
            raise ValueError(f"operation {code:#x} is not one of a steering program")
    raise ValueError("the program does not return")
