"""The values of `channel.header` are secrets of an endpoint: only the Subscription's owner sees them."""

from dataclasses import replace
from typing import Any

from fhir_server import fhir_json
from fhir_server.access import Access
from fhir_server.errors import Unprocessable
from fhir_server.version import Version
from subscriptions.rights import owner_of
from subscriptions.status import SERVER

MASK = "***"


def masked(access: Access, version: Version) -> Version:
    """A version of a Subscription as this caller may see it: to others than its owner, headers without values."""
    if version.deleted or access.subject in (owner_of(version), SERVER.subject):
        return version
    subscription = version.resource()
    channel = subscription.get("channel", {})
    if "header" not in channel:
        return version
    channel["header"] = [f"{_name(line)}: {MASK}" for line in channel["header"]]
    return replace(version, body=fhir_json.dumps(subscription))


def restored(after: dict, before: dict | None) -> dict:
    """The Subscription with its own values where masked ones come back from a caller who read it masked.

    Raises Unprocessable where the endpoint changes along: a secret goes to nobody it was not meant for.
    """
    headers, channel = _headers(after), after.get("channel")
    if not isinstance(channel, dict) or not any(_is_masked(line) for line in headers):
        return after
    known = _headers(before or {})
    lines = []
    for index, line in enumerate(headers):
        if _is_masked(line):
            values = [old for old in known if _name(old).lower() == _name(line).lower()]
            if not values or (before or {})["channel"].get("endpoint") != channel.get("endpoint"):
                text = f"{MASK} stands for a value that this server shows to the owner only; say it anew"
                raise Unprocessable(text, f"Subscription.channel.header[{index}]")
            line = values[0]
        lines.append(line)
    return after | {"channel": channel | {"header": lines}}


def _headers(subscription: dict) -> list[Any]:
    channel = subscription.get("channel")
    lines = channel.get("header") if isinstance(channel, dict) else None
    return lines if isinstance(lines, list) else []


def _name(line: object) -> str:
    return str(line).partition(":")[0].strip()


def _is_masked(line: object) -> bool:
    return isinstance(line, str) and line.partition(":")[2].strip() == MASK
