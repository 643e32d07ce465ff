"""Resources against the profiles that they name. https://hl7.org/fhir/R4/profiling.html

Checked are: cardinality, types, fixed values and patterns, codes, lengths, rules written in FHIRPath, slices, and
profiles of types and of references. A profile that is not known here is no fault of the resource.
"""

from collections.abc import Sequence

from fhir_server.errors import Issue
from fhir_server.fhirpath.evaluate import TooCostly, Work
from fhir_server.fhirpath.nodes import resource_node
from fhir_server.store import VersionStore
from fhir_server.terminology.source import Terminology
from fhir_server.validation.profiles.advice import advise
from fhir_server.validation.profiles.check import check_profile
from fhir_server.validation.profiles.judgement import Judgement
from fhir_server.validation.profiles.source import Source
from fhir_server.validation.run import Profiled

MAX_PROFILES = 20  # that one write is checked against

__all__ = ["MAX_PROFILES", "Profiles"]


class Profiles:
    """The profiles of this server."""

    def __init__(self, store: VersionStore, terminology: Terminology) -> None:
        self._source = Source(store, terminology)

    def issues(self, named: Sequence[Profiled]) -> list[Issue]:
        """What is found of each resource against each profile named; severities below error refuse nothing."""
        pairs = [(one, url) for one in named for url in one.profiles]
        if not all(self._source.is_shipped(url) for _, url in pairs):
            self._source.refresh()
        work = Work()
        found: dict[Issue, None] = {}
        for one, url in pairs[:MAX_PROFILES]:
            node = resource_node(one.resource, one.path)
            root = resource_node(*one.root)
            run = Judgement(self._source, root, node, work)
            try:
                if check_profile(node, url, run) is None:
                    run.unknown(url, f"{one.path}.meta.profile")
            except (TooCostly, RecursionError):
                text = f"the profile {url[:200]} takes more work than one validation may do"
                run.tell("too-costly", text, one.path, "warning")
            found |= run.issues
        if len(pairs) > MAX_PROFILES:
            text = f"only the first {MAX_PROFILES} profiles were looked at"
            found[Issue("incomplete", text, severity="information")] = None
        return list(found)

    def advice(self, resource: dict) -> list[Issue]:
        """Warnings of codes that R4 would rather have from another value set."""
        self._source.refresh()
        node = resource_node(resource, resource["resourceType"])
        run = Judgement(self._source, node, node, Work())
        try:
            advise(node, run)
        except TooCostly:
            run.tell("too-costly", "not all codes were looked at: there are too many", node.path, "information")
        return list(run.issues)

    def knows(self, url: str) -> bool:
        """Whether resources can be checked against the profile."""
        self._source.refresh()
        return self._source.profile(url) is not None
