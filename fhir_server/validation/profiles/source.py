"""Where profiles come from, compiled: R4's own and ours as they are shipped, and StructureDefinitions in the store.

What is shipped goes before: whoever may write a StructureDefinition cannot change what R4 means.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, TypeVar

from conformance.profiles import shipped_profile
from conformance.structures import extension, row, value_set
from fhir_server.store import VersionStore
from fhir_server.terminology.source import Terminology
from fhir_server.terminology.value_set import CannotExpand, Composer
from fhir_server.validation.profiles.tree import Element, Unusable, build

DEFINED = "http://hl7.org/fhir/StructureDefinition/"
MAX_CHAIN = 20  # profiles based on one another
_KEPT_ELEMENTS = 50_000  # of profiles kept; about 40 MB
_KEPT_CODES = 100_000  # of value sets kept; about 15 MB
_UNKNOWN = 100  # elements or codes that what is not known counts for
_FOUND = 500  # codes asked for one by one, of a value set
_DRAWN_ON = ("StructureDefinition", "ValueSet", "CodeSystem")
_MINUTE = 60_000_000 << 12  # in write numbers: longer than any commit takes


@dataclass(frozen=True, slots=True)
class Profile:
    """root: what it demands beyond the R4 type; None when that is nothing, or told by other checks."""

    url: str
    type: str
    root: Element | None
    size: int = 1


class Codes:
    """The codes of a value set, as far as they can be told."""

    def __init__(
        self, listed: Mapping[str, frozenset[str]] | None, definition: dict | None, terminology: Terminology
    ):
        self._listed = listed
        self._all = frozenset().union(*listed.values()) if listed is not None else frozenset()
        self._definition = definition
        self._terminology = terminology
        self._found: OrderedDict[tuple[str, str], bool | None] = OrderedDict()

    @property
    def size(self) -> int:
        return len(self._all) + _UNKNOWN

    def has(self, system: str | None, code: str) -> bool | None:
        """system: None for a code whose type has none. None when nobody here can tell."""
        if self._listed is not None:
            return code in self._all if system is None else code in self._listed.get(system, ())
        if system is None or self._definition is None:
            return None
        if (system, code) not in self._found:
            try:
                self._found[system, code] = (
                    Composer(self._terminology).find(self._definition, system, code) is not None
                )
            except CannotExpand:
                self._found[system, code] = None
            if len(self._found) > _FOUND:
                self._found.popitem(last=False)
        return self._found.get((system, code))


Made = TypeVar("Made", Profile, Codes)


class Kept(Generic[Made]):
    """What was made last, and that there is nothing to make, up to a size. Thread safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._made: OrderedDict[str, Made | None] = OrderedDict()
        self._size = 0

    def __contains__(self, name: str) -> bool:
        return name in self._made

    def get(self, name: str, make: Callable[[], Made | None]) -> Made | None:
        with self._lock:
            if name in self._made:
                self._made.move_to_end(name)
                return self._made[name]
        found = make()
        with self._lock:
            if name not in self._made:
                self._made[name] = found
                self._size += _size(found)
            while self._size > self._most and len(self._made) > 1:
                self._size -= _size(self._made.popitem(last=False)[1])
        return found


def _size(found: Profile | Codes | None) -> int:
    return _UNKNOWN if found is None else found.size


class Source:
    """Compiled profiles and value sets. Thread safe.

    What came from the store is dropped once a definition in it was written, by whatever process; `refresh` asks.
    """

    def __init__(self, store: VersionStore, terminology: Terminology) -> None:
        self._store = store
        self._terminology = terminology
        self._lock = Lock()
        self._shipped: dict[str, Profile | None] = {}
        self._stored: Kept[Profile] = Kept(_KEPT_ELEMENTS)
        self._codes: Kept[Codes] = Kept(_KEPT_CODES)
        self._since = 0
        self._seen: tuple[int, ...] = ()

    def refresh(self) -> None:
        """Forget what came from the store if any definition was written since it was read.

        Write numbers are made before a commit, so that one may appear below others that are there already; that is
        why those of the last minute before are watched too.
        """
        seen = self._store.numbers_since(_DRAWN_ON, self._since)
        if seen == self._seen and self._since:
            return
        with self._lock:
            self._since = self._store.numbers.next() - _MINUTE
            self._seen = self._store.numbers_since(_DRAWN_ON, self._since)
            self._stored, self._codes = Kept(_KEPT_ELEMENTS), Kept(_KEPT_CODES)

    def is_shipped(self, url: str) -> bool:
        return self._shipped_profile(url.partition("|")[0]) is not None

    def profile(self, canonical: str) -> Profile | None:
        """The profile; None when there is none here, or none that can be used."""
        url, _, version = canonical.partition("|")
        shipped = self._shipped_profile(url)
        if shipped is not None:
            return shipped
        return self._stored.get(canonical, lambda: self._made(url, version or None))

    def has_profile(self, canonical: str) -> bool:
        """Whether it is at hand, so that asking for it costs nothing."""
        return canonical in self._stored or self.is_shipped(canonical)

    def codes(self, canonical: str) -> Codes | None:
        return self._codes.get(canonical, lambda: self._made_codes(canonical))

    def has_codes(self, canonical: str) -> bool:
        return canonical in self._codes

    def _made_codes(self, canonical: str) -> Codes | None:
        listed = value_set(canonical.partition("|")[0])
        if listed is not None:
            return Codes(listed, None, self._terminology)
        definition = self._terminology.value_set(canonical)
        if definition is None:
            return None
        try:
            members = Composer(self._terminology).expand(definition)
        except CannotExpand:
            return Codes(None, definition, self._terminology)
        systems: dict[str, set[str]] = {}
        for member in members:
            systems.setdefault(member.system, set()).add(member.code)
        return Codes({system: frozenset(codes) for system, codes in systems.items()}, None, self._terminology)

    def _shipped_profile(self, url: str) -> Profile | None:
        if url not in self._shipped:
            found = _of_r4(url)
            if found is None and shipped_profile(url) is not None:
                found = self._made(url, None)
            if found is None:
                return None
            self._shipped[url] = found
        return self._shipped[url]

    def _made(self, url: str, version: str | None) -> Profile | None:
        definition = self._definition(url, version)
        if definition is None:
            return None
        try:
            chain = self._chain(definition)
            return Profile(url, definition["type"], build(definition["type"], chain), sum(map(len, chain)))
        except Unusable:
            return None

    def _chain(self, definition: dict) -> list[list[dict]]:
        """The differentials from the profile nearest to R4 to this one; a snapshot for those that are not known."""
        chain: list[list[dict]] = []
        seen: set[str] = set()
        current: dict | None = definition
        while current is not None:
            url, base = current.get("url", ""), current.get("baseDefinition", "").partition("|")[0]
            if url in seen or len(seen) >= MAX_CHAIN:
                raise Unusable("profiles are based on one another in a circle, or too many of them")
            seen.add(url)
            if current["type"] != definition["type"] or current.get("derivation") != "constraint":
                raise Unusable("a profile is a constraint of a type")
            differential = current.get("differential", {}).get("element")
            of_type = base == DEFINED + current["type"]
            known = of_type or self._definition(base, None) is not None
            if differential is None or not known:
                differential, of_type = current.get("snapshot", {}).get("element"), True
            if differential is None:
                raise Unusable("its base is not known, and it has no snapshot")
            chain.append(differential)
            current = None if of_type else self._definition(base, None)
        return chain[::-1]

    def _definition(self, url: str, version: str | None) -> dict | None:
        found: dict[str, Any] | None = shipped_profile(url)
        return found if found is not None else self._terminology.structure_definition(url, version)


def _of_r4(url: str) -> Profile | None:
    """A type of R4, or one of its extensions: nothing to check here, since every resource is checked against them."""
    name = url.removeprefix(DEFINED)
    if name == url:
        return None
    if name.isalnum():
        found = row(name)
        if isinstance(found, dict) and "kind" in found:
            return Profile(url, name, None)
    if extension(url) is None:
        return None
    slice = Element("Extension", "Extension")
    slice.children["url"] = Element("url", "uri", fixed=url)
    return Profile(url, "Extension", slice)
