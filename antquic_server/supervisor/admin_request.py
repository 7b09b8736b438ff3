"""
What a client of the admin endpoint may send: by which name it may call the node, and what a question may contain.

A web page of a stranger can make a browser send requests here by letting a name of its own point to this machine (DNS
rebinding); what comes back then counts as that page's own. The browser still says which name it was told, in ``Host``,
so that only names that nobody else can own are answered: addresses, loopback names, and those of ``admin.names``.
"""

import math
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qs

__all__ = ["after_untrusted", "names_us_untrusted"]

MAX_QUERY_FIELDS: Final = 8

_LOOPBACK_NAME: Final = "localhost"
"""It and all names below it never leave the machine (RFC 6761, section 6.3)."""


def names_us_untrusted(host: str, names: Collection[str]) -> bool:
    """
    Tell whether a ``Host`` field may be answered: ``name`` or ``name:port``, an IPv6 address in brackets.

    ``names`` are those of ``admin.names``, in lower case.
    """
    name = _without_port(host.strip().lower())
    if name is None:
        return False
    name = name.removesuffix(".")
    if name == _LOOPBACK_NAME or name.endswith("." + _LOOPBACK_NAME) or name in names:
        return True
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return name.startswith("[") == (":" in name)


def after_untrusted(query: str) -> float | None:
    """Return the seconds of ``after=`` in a query, 0 if there is none, None if it is not a number."""
    try:
        values = parse_qs(query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS).get("after", ["0"])
        after_s = float(values[-1])
    except ValueError:
        return None
    return after_s if math.isfinite(after_s) else None


def _without_port(host: str) -> str | None:
    """The name alone; None where what follows its colon is no port."""
    if host.startswith("["):
        name, bracket, rest = host.partition("]")
        name += bracket
    else:
        name, colon, rest = host.partition(":")
        rest = colon + rest
    if rest and not (rest.startswith(":") and rest[1:].isascii() and rest[1:].isdigit()):
        return None
    return name or None
