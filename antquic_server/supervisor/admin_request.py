"""
What a client of the admin endpoint may send: by which name it may call the node, and what a question may contain.

A web page of a stranger can make a browser send requests here by letting a name of its own point to this machine (DNS
rebinding); what comes back then counts as that page's own. The browser still says which name it was told, in ``Host``,
so that only names that nobody else can own are answered: addresses, loopback names, and those of ``admin.names``.
"""

import math
import re
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qs

__all__ = ["after_untrusted", "names_us_untrusted", "split_target_untrusted"]

MAX_QUERY_FIELDS: Final = 8

_HOST: Final = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<name>[^:\[\]]+))(?::[0-9]*)?")
"""RFC 3986, section 3.2.2; what is between the brackets is looked at separately."""

_ABSOLUTE: Final = re.compile(r"http://(?P<authority>[^/?]*)(?P<path>[^?]*)(?P<query>.*)", re.IGNORECASE | re.DOTALL)
"""RFC 9112, section 3.2.2."""

_LOOPBACK_NAME: Final = "localhost"
"""It and all names below it never leave the machine (RFC 6761, section 6.3)."""


def names_us_untrusted(host: str, names: Collection[str]) -> bool:
    """
    Tell whether a ``Host`` field may be answered: ``name`` or ``name:port``, an IPv6 address in brackets.

    ``names`` are those of ``admin.names``, in lower case.
    """
    match = _HOST.fullmatch(host.strip().lower())
    if match is None:
        return False
    if match["v6"] is not None:
        return _is_address(match["v6"], 6)
    name = match["name"].removesuffix(".")
    loopback = name == _LOOPBACK_NAME or name.endswith("." + _LOOPBACK_NAME)
    return loopback or name in names or _is_address(name, 4)


def split_target_untrusted(target: str) -> tuple[str | None, str]:
    """
    Return the authority of a request target and the rest of it.

    The authority is None in the usual form, a path with or without a query; proxies send a whole URL.
    """
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        return None, target
    return match["authority"], (match["path"] or "/") + match["query"]


def after_untrusted(query: str) -> float | None:
    """Return the seconds of ``after=`` in a query, 0 if there is none, None if it is not a number."""
    try:
        values = parse_qs(query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS).get("after", ["0"])
        after_s = float(values[-1])
    except ValueError:
        return None
    return after_s if math.isfinite(after_s) else None


def _is_address(text: str, version: int) -> bool:
    try:
        return ip_address(text).version == version
    except ValueError:
        return False
