"""An R4 Subscription, of the Backport profile or by plain criteria, read into a value, or refused with every fault
named. http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-subscription
http://hl7.org/fhir/R4/subscription.html
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from conformance import Topic
from fhir_server.errors import Issue, Unprocessable
from fhir_server.formats import FHIR_JSON as FORMAT_JSON
from fhir_server.formats import FHIR_XML as FORMAT_XML
from subscriptions import criteria, filters, outgoing, profile, reach
from subscriptions.filters import BadFilter, Clause
from subscriptions.outgoing import OutgoingRefused
from subscriptions.reach import Reach

EMPTY, ID_ONLY, FULL_RESOURCE = "empty", "id-only", "full-resource"
REST_HOOK, WEBSOCKET, EMAIL, FAX = "rest-hook", "websocket", "email", "fax"

# Which content each channel may carry: mail and fax are read on the way, so they never hold a resource.
CHANNELS: Mapping[str, tuple[str, ...]] = {
    REST_HOOK: (EMPTY, ID_ONLY, FULL_RESOURCE),
    WEBSOCKET: (EMPTY, ID_ONLY, FULL_RESOURCE),
    EMAIL: (EMPTY, ID_ONLY),
    FAX: (EMPTY, ID_ONLY),
}
PDF = "application/pdf"
FHIR_JSON = re.compile(r"application/fhir\+json(\s*;\s*fhirVersion=4\.0)?", re.IGNORECASE)
MAIL = re.compile(r"text/(plain|html)(\s*;\s*charset=utf-8)?(\s*;\s*attach=application/fhir\+json)?", re.IGNORECASE)
MAILTO = re.compile(r"mailto:[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+", re.IGNORECASE)

TEL = re.compile(r"tel:\+[1-9][0-9]{6,14}")

MAX_FILTERS = 20
MAX_HEADERS = 20
TIMEOUT_S = 20  # where the Subscription asks for none
MAX_TIMEOUT_S = 120
MAX_COUNT = 20  # events in one notification, where the Subscription allows as many
MAX_HEARTBEAT_S = 2_592_000


@dataclass(frozen=True, slots=True)
class SubscriptionDefinition:
    """What a Subscription asks for. timeout_s: longest wait for one delivery; heartbeat_s: silence after which
    a heartbeat is sent, None for never; max_count: most events in one notification. plain: by R4 criteria, so its
    topic is made of them, and what is sent has R4's form instead of the guide's. reach: how far the token went
    that it was made through."""

    topic: Topic
    status: str
    channel: str
    content: str
    endpoint: str | None
    mime: str
    clauses: tuple[Clause, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    heartbeat_s: int | None = None
    timeout_s: int = TIMEOUT_S
    max_count: int = MAX_COUNT
    end: datetime | None = None
    plain: bool = False
    reach: Reach | None = None

    @property
    def attaches(self) -> bool:
        """Whether mail is to bring the notification itself with it."""
        return self.channel == EMAIL and "attach=" in self.mime.lower()

    def ended(self, now: datetime) -> bool:
        return self.end is not None and self.end <= now


def parse(resource: dict, topics: Mapping[str, Topic], base_url: str) -> SubscriptionDefinition:
    """Read a Subscription. Raises Unprocessable with an issue for each fault; endpoints are not resolved here."""
    return _Reader(resource, topics, base_url).read()


def topic_of(canonical: str, topics: Mapping[str, Topic]) -> Topic | None:
    """The topic that a canonical names, by its URL alone or with the version that it has."""
    url, bar, version = canonical.partition("|")
    return topics.get(url) if not bar or version == profile.TOPIC_VERSION else None


class _Reader:
    def __init__(self, resource: dict, topics: Mapping[str, Topic], base_url: str) -> None:
        self._resource = resource
        self._channel = _object(resource.get("channel"))
        self._topics = topics
        self._base_url = base_url
        self._plain = _is_plain(resource)
        self._issues: list[Issue] = []

    def read(self) -> SubscriptionDefinition:
        self._foreign_extensions()
        if self._plain:
            topic, clauses = self._criteria()
        else:
            topic = self._topic()
            clauses = self._clauses(topic) if topic else ()
        channel = self._channel_type()
        content = self._plain_content() if self._plain else self._content(channel)
        headers = self._headers()
        endpoint, mime = self._endpoint(channel), self._mime(channel)
        if self._plain and any(True for _ in _of_url(self._channel, profile.HEARTBEAT_PERIOD)):
            self._refuse("not-supported", "Subscription.channel.extension", "plain criteria know no heartbeats")
        heartbeat = self._number(profile.HEARTBEAT_PERIOD, "valueUnsignedInt", 0, MAX_HEARTBEAT_S)
        timeout = self._number(profile.TIMEOUT, "valueUnsignedInt", 1, MAX_TIMEOUT_S)
        count = self._number(profile.MAX_COUNT, "valuePositiveInt", 1, 2**31 - 1)
        end = self._end()
        if self._issues or topic is None:
            first = self._issues[0]
            raise Unprocessable(first.diagnostics, first.expression, self._issues)
        return SubscriptionDefinition(
            topic,
            str(self._resource.get("status")),
            channel,
            content,
            endpoint,
            mime,
            clauses,
            headers,
            heartbeat or None,
            timeout or TIMEOUT_S,
            1 if self._plain else min(count or MAX_COUNT, MAX_COUNT),  # R4 sends one resource at a time
            end,
            self._plain,
            reach.kept(self._resource),
        )

    def _refuse(self, code: str, expression: str, text: str) -> None:
        self._issues.append(Issue(code, text, expression))

    def _foreign_extensions(self) -> None:
        for path, name, extension in _extensions(self._resource, "Subscription"):
            url = str(extension.get("url", ""))
            if name == "modifierExtension":
                self._refuse("not-supported", path, f"this server does not know the modifier extension {url}")
            elif url.startswith(profile.R5) and url != profile.R5_IDENTIFIER:
                self._refuse("not-supported", path, f"say this by R4 elements and Backport extensions, not by {url}")

    def _criteria(self) -> tuple[Topic | None, tuple[Clause, ...]]:
        try:
            topic, clauses = criteria.parse(self._resource["criteria"], self._base_url)
        except BadFilter as fault:
            self._refuse("not-supported", "Subscription.criteria", str(fault))
            return None, ()
        return topic, tuple(clauses)

    def _topic(self) -> Topic | None:
        asked = self._resource.get("criteria")
        topic = topic_of(asked, self._topics) if isinstance(asked, str) else None
        if topic is None:
            known = ", ".join(sorted(self._topics))
            self._refuse("value", "Subscription.criteria", f"this is no topic of this server, which has {known}")
        return topic

    def _clauses(self, topic: Topic) -> tuple[Clause, ...]:
        clauses: list[Clause] = []
        found = list(_of_url(self._resource.get("_criteria"), profile.FILTER_CRITERIA))
        if len(found) > MAX_FILTERS:
            self._refuse("too-costly", "Subscription.criteria", f"at most {MAX_FILTERS} filters are allowed")
            return ()
        for index, extension in found:
            path = f"Subscription.criteria.extension[{index}].value"
            text = extension.get("valueString")
            if not isinstance(text, str):
                self._refuse("required", path, "a filter is a valueString")
                continue
            try:
                clauses += filters.parse(text, topic, self._base_url)
            except BadFilter as fault:
                self._refuse("value", path, str(fault))
        return tuple(clauses)

    def _channel_type(self) -> str:
        for index, extension in _of_url(self._channel.get("_type"), profile.CHANNEL_TYPE):
            coding = _object(extension.get("valueCoding"))
            if (coding.get("system"), coding.get("code")) == (profile.CHANNEL_SYSTEM, FAX):
                return FAX
            path = f"Subscription.channel.type.extension[{index}].value"
            text = f"the only channel besides R4's is {profile.CHANNEL_SYSTEM}|{FAX}"
            self._refuse("not-supported", path, text)
        channel = self._channel.get("type")
        if channel not in CHANNELS or channel == FAX:
            text = f"the channel is not offered here; there are {', '.join(CHANNELS)}"
            self._refuse("not-supported", "Subscription.channel.type", text)
            return ""
        return str(channel)

    def _content(self, channel: str) -> str:
        path = "Subscription.channel.payload.extension"
        found = list(_of_url(self._channel.get("_payload"), profile.PAYLOAD_CONTENT))
        if len(found) != 1:
            text = f"exactly one extension {profile.PAYLOAD_CONTENT} is needed"
            self._refuse("required" if not found else "invariant", path, text)
            return ""
        index, extension = found[0]
        content = extension.get("valueCode")
        if content not in (EMPTY, ID_ONLY, FULL_RESOURCE):
            text = f"the content is one of {EMPTY}, {ID_ONLY}, {FULL_RESOURCE}"
            self._refuse("value", f"{path}[{index}].value", text)
        elif channel and content not in CHANNELS[channel]:
            text = f"the channel {channel} carries no {content} content, just {' or '.join(CHANNELS[channel])}"
            self._refuse("not-supported", f"{path}[{index}].value", text)
        return str(content)

    def _plain_content(self) -> str:
        """R4 says by the MIME type alone whether a resource comes along."""
        if "payload" in self._channel and self._channel.get("type") != EMAIL:
            return FULL_RESOURCE
        return ID_ONLY if self._channel.get("type") == WEBSOCKET else EMPTY

    def _mime(self, channel: str) -> str:
        path = "Subscription.channel.payload"
        if channel == FAX:
            mime = self._channel.get("payload", PDF)
            if mime != PDF:
                self._refuse("not-supported", path, f"a fax is sent as {PDF}")
        elif channel == EMAIL:
            mime = self._channel.get("payload", "text/plain")
            if not isinstance(mime, str) or not MAIL.fullmatch(mime):
                text = f"mail is sent as text/plain or text/html, with ;attach={FORMAT_JSON} where that is wanted too"
                self._refuse("not-supported", path, text)
        elif self._plain:
            mime = self._channel.get("payload", "")
            if not isinstance(mime, str) or (mime and mime not in (FORMAT_JSON, FORMAT_XML)):
                self._refuse("not-supported", path, f"resources are sent as {FORMAT_JSON} or {FORMAT_XML}")
        else:
            mime = self._channel.get("payload", FORMAT_JSON)
            if not isinstance(mime, str) or not FHIR_JSON.fullmatch(mime):
                self._refuse("not-supported", path, "notifications are sent as application/fhir+json")
        return str(mime)

    def _endpoint(self, channel: str) -> str | None:
        path = "Subscription.channel.endpoint"
        endpoint = self._channel.get("endpoint")
        if channel not in (REST_HOOK, EMAIL, FAX):
            return None
        if not isinstance(endpoint, str):
            self._refuse("required", path, f"the channel {channel} needs an endpoint")
            return None
        if channel == FAX:
            if not TEL.fullmatch(endpoint):
                self._refuse("value", path, "the endpoint of a fax reads tel:+ and 7 to 15 digits")
            return endpoint
        if channel == EMAIL:
            if not MAILTO.fullmatch(endpoint):
                self._refuse("value", path, "the endpoint of mail reads mailto:name@host, nothing more")
            return endpoint
        try:
            outgoing.parse(endpoint)
        except OutgoingRefused as refusal:
            self._refuse("value", path, str(refusal))
        return endpoint

    def _headers(self) -> tuple[tuple[str, str], ...]:
        lines = self._channel.get("header", [])
        if not isinstance(lines, list) or len(lines) > MAX_HEADERS:
            self._refuse("too-long", "Subscription.channel.header", f"at most {MAX_HEADERS} headers are allowed")
            return ()
        headers = []
        for index, line in enumerate(lines):
            try:
                headers.append(outgoing.check_header(line if isinstance(line, str) else ""))
            except OutgoingRefused as refusal:
                self._refuse("value", f"Subscription.channel.header[{index}]", str(refusal))
        return tuple(headers)

    def _number(self, url: str, name: str, low: int, high: int) -> int | None:
        found = list(_of_url(self._channel, url))
        for index, extension in found:
            value = extension.get(name)
            path = f"Subscription.channel.extension[{index}].value"
            if len(found) > 1:
                self._refuse("invariant", path, f"the extension {url} may stand there once")
            elif not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                self._refuse("value", path, f"{name} must be a whole number from {low} to {high}")
            else:
                return value
        return None

    def _end(self) -> datetime | None:
        text = self._resource.get("end")
        if text is None:
            return None
        try:
            end = datetime.fromisoformat(text)
        except (TypeError, ValueError):
            end = None
        if end is None or end.tzinfo is None:
            self._refuse("value", "Subscription.end", "the end is an instant with its offset from UTC")
            return None
        return end


def _is_plain(resource: dict) -> bool:
    """Whether its criteria are a search, and nothing in it speaks of the Backport guide."""
    profiles = _object(resource.get("meta")).get("profile")
    if isinstance(profiles, list) and profile.SUBSCRIPTION_PROFILE in profiles:
        return False
    payload = _object(resource.get("channel")).get("_payload")
    guided = [
        *_of_url(resource.get("_criteria"), profile.FILTER_CRITERIA),
        *_of_url(payload, profile.PAYLOAD_CONTENT),
    ]
    return criteria.is_plain(resource.get("criteria")) and not guided


def _object(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _of_url(element: Any, url: str) -> Iterator[tuple[int, dict]]:
    """The extensions of that url of an element, with their indexes."""
    extensions = _object(element).get("extension")
    for index, extension in enumerate(extensions if isinstance(extensions, list) else ()):
        if isinstance(extension, dict) and extension.get("url") == url:
            yield index, extension


def _extensions(element: Any, path: str) -> Iterator[tuple[str, str, dict]]:
    """Path, element name (`extension` or `modifierExtension`) and content of every extension below an element."""
    if isinstance(element, list):
        for index, child in enumerate(element):
            yield from _extensions(child, f"{path}[{index}]")
    elif isinstance(element, dict):
        for name, child in element.items():
            below = f"{path}.{name.removeprefix('_')}"  # extensions of a primitive stand at `_name`
            if name in ("extension", "modifierExtension") and isinstance(child, list):
                yield from ((f"{below}[{i}]", name, one) for i, one in enumerate(child) if isinstance(one, dict))
            yield from _extensions(child, below)
