"""With which settings does the node run that answers ``/status``?"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath

from antquic_server.config.model import Settings, rules_of, section_types
from antquic_server.config.rules import PathText, Rule, split_listen_address
from antquic_server.errors import ConfigurationError

__all__ = ["settings_in_force"]

_SOURCE = "/status"


def settings_in_force(status: Mapping[str, object], admin_port: int) -> Settings | None:
    """
    Return the settings that ``configuration`` of ``/status`` tells, None if it tells none.

    A node of another version may have other keys: what is unknown or out of its limits here is left at its default, as
    are relative paths, which begin where the node was started. Ports that the node was to choose are those it has:
    ``admin_port`` is the one at which it has answered.
    """
    told = status.get("configuration")
    if not isinstance(told, dict):
        return None
    settings = Settings()
    for name in section_types():
        values = told.get(name)
        if not isinstance(values, dict):
            continue
        accepted = {
            key: value
            for key, rule in rules_of(name).items()
            if key in values and (value := _accepted(rule, f"{name}.{key}", values[key])) is not _REFUSED
        }
        settings = replace(settings, **{name: replace(getattr(settings, name), **accepted)})
    return _with_chosen_ports(settings, status, admin_port)


_REFUSED = object()


def _accepted(rule: Rule, key: str, value: object) -> object:
    """Return the value as the model keeps it, or ``_REFUSED``."""
    if isinstance(rule, PathText) and isinstance(value, str) and value and not PurePath(value).is_absolute():
        return _REFUSED
    try:
        # None stands for an absent account, which files write as an empty string.
        return rule.accept(_SOURCE, key, "" if value is None else value)
    except ConfigurationError:
        return _REFUSED


def _with_chosen_ports(settings: Settings, status: Mapping[str, object], admin_port: int) -> Settings:
    """Put the ports that the node has in the place of zeros."""
    if any(_port(address) == 0 for address in settings.endpoint.listen):
        node = status.get("node")
        listen = node.get("listen") if isinstance(node, dict) else None
        addresses = _accepted(rules_of("endpoint")["listen"], "endpoint.listen", listen)
        if addresses is not _REFUSED:
            endpoint = replace(settings.endpoint, listen=addresses)  # type: ignore[arg-type]  # accepted by its rule
            settings = replace(settings, endpoint=endpoint)
    if _port(settings.admin.listen) == 0:
        host = settings.admin.listen.rpartition(":")[0]
        settings = replace(settings, admin=replace(settings.admin, listen=f"{host}:{admin_port}"))
    return settings


def _port(address: str) -> int:
    return split_listen_address(_SOURCE, "listen", address)[1]
