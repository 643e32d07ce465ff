"""Keeps ImagingStudy and stored study in step: images -> ImagingStudy, and who sees it -> who sees the images.

Storing an instance raises the revision of its study in the same transaction, so a study that was not projected yet
can always be found, whatever was killed in between.
"""

import logging
import threading
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, tzinfo

from pymongo.errors import PyMongoError

from dicomweb.imaging_study import MAX_INSTANCES, endpoint, imaging_study, is_withdrawn, withdrawn
from dicomweb.matching import SYSTEM, Match, Matcher, OrderMatcher, identifiers_of, study_attributes
from dicomweb.records import Link, StudyState
from dicomweb.store import DicomStore
from dicomweb.uids import imaging_study_id
from fhir_server.errors import Conflict
from fhir_server.lease import Lease
from fhir_server.repository import Repository
from fhir_server.version import Version

log = logging.getLogger(__name__)

CONSUMER = "dicomweb"  # the name under which `handler` follows the version stream
TYPES = ("ImagingStudy", "ServiceRequest", "Task")  # that the consumer does something about
LEASE = "dicomweb-projection"
POLL_S = 0.1  # one indexed query
PAUSE_S = 0.5  # after an outage, and while another worker holds the lease
BACKOFF_S = (1, 5, 30, 120, 600)  # at a study that cannot be projected
URN = "urn:oid:"


class Projector:
    """Writes the ImagingStudy of each study that has changed. One worker at a time does it."""

    def __init__(
        self, store: DicomStore, repository: Repository, matcher: Matcher | None = None, zone: tzinfo = UTC
    ) -> None:
        self._store = store
        self._repository = repository
        self._match = matcher or OrderMatcher(repository)
        self._zone = zone

    def run(self, stop: threading.Event) -> None:
        """Project until `stop` is set; survives outages of MongoDB."""
        lease = Lease(self._store.database, LEASE)
        while not stop.is_set():
            try:
                if not lease.hold():
                    stop.wait(PAUSE_S)
                elif not self.project_due():
                    stop.wait(POLL_S)
            except PyMongoError as error:
                log.warning("the projection of studies waits for MongoDB: %s", type(error).__name__)
                stop.wait(PAUSE_S)
        try:
            lease.release()
        except PyMongoError:
            log.warning("the projection of studies leaves its lease to run out")

    def project_due(self) -> int:
        """Project what is due now; returns how many studies that were."""
        due = self._store.due()
        for state in due:
            try:
                self.project(state)
            except PyMongoError:
                raise
            except Exception as error:
                # One study that cannot be projected must not hold up the others. Class and lines only: the text of
                # an error may carry patient data.
                lines = "".join(traceback.format_tb(error.__traceback__))
                log.error("study %s: %s\n%s", imaging_study_id(state.uid), type(error).__name__, lines)
                self._store.postpone(state, BACKOFF_S[min(state.failures, len(BACKOFF_S) - 1)])
        return len(due) + self._withdraw()

    def _withdraw(self) -> int:
        """Withdraw the ImagingStudies of deleted studies; returns how many that were."""
        studies = self._store.withdrawn()
        for study in studies:
            if not self._store.is_stored(study):  # else it was sent again, and is projected for itself
                self.withdraw(study)
            self._store.settled(study)
        return len(studies)

    def withdraw(self, study: str) -> None:
        """Delete the ImagingStudy; where another resource refers to it, say that there are no images any more."""
        id = imaging_study_id(study)
        try:
            self._repository.delete(SYSTEM, "ImagingStudy", id)
        except Conflict:
            self._repository.amend(SYSTEM, "ImagingStudy", id, withdrawn)

    def project(self, state: StudyState) -> Version:
        """Write the ImagingStudy of a study as it is now."""
        content = self._store.content(state.uid, MAX_INSTANCES)
        study = study_attributes(state.uid, content.attributes, [series.attributes for series in content.series])
        newest = self._repository.store.newest("ImagingStudy", imaging_study_id(state.uid))
        current = newest if newest is not None and not newest.deleted else None
        # Once complete, a study stays available: later instances are an addition to it.
        status = "available" if state.status == "available" or self._complete(state) else "registered"
        link = content.link
        match = self._match(study) if link is None else _decided(link)
        before = current.resource() if current else None
        if before is not None and state.status is None and is_withdrawn(before):
            before["status"] = "registered"  # its images were deleted, and have been sent again
        resource = imaging_study(study, content, match, status, self._zone, before)
        written = self._repository.update(SYSTEM, resource, if_match=current.version if current else None)
        self._store.set_scope(state.uid, written.version.scope, written.version.version)
        numbers = study.accession_numbers + study.placer_order_numbers
        alone = "basedOn" not in resource
        waits = content.late or (alone and (link is None or link.subject is None))
        self._store.projected(state, status, numbers if alone and link is None else None, waits=waits)
        # The order came just now, when nobody knew that it is looked for.
        if match is None and link is None and self._match(study):
            self._store.look_again(numbers)
        return written.version

    def _complete(self, state: StudyState) -> bool:
        return state.projected > 0 and self._store.is_quiet(state)


def _decided(link: Link) -> Match | None:
    return None if link.subject is None else Match(link.subject, link.based_on)


def together(store: DicomStore) -> Callable[[Sequence[Version]], None]:
    """What `fhir_server.stream.follow` calls for versions that are at hand, under the consumer name `CONSUMER`."""

    def handle(versions: Sequence[Version]) -> None:
        numbers: list[str] = []
        for version in versions:
            if version.resource_type == "ImagingStudy":
                access_of_studies(store, version)
            elif version.resource_type in ("Task", "ServiceRequest") and not version.deleted:
                numbers += identifiers_of(version.resource())
        store.look_again(numbers)  # the order may come after the images

    return handle


def handler(store: DicomStore) -> Callable[[Version], None]:
    """The same for a version that comes alone."""
    handle = together(store)
    return lambda version: handle([version])


def access_of_studies(store: DicomStore, version: Version) -> None:
    """Who sees an ImagingStudy sees its images; once it is deleted, only the practice does."""
    if version.deleted:
        study = store.study_of(version.id)
    else:
        identifiers = identifiers_of(version.resource())
        uids = [value.removeprefix(URN) for value in identifiers if value.startswith(URN)]
        study = next((uid for uid in uids if imaging_study_id(uid) == version.id), None)
    if study is not None:
        store.set_scope(study, () if version.deleted else version.scope, version.version)


def ensure_endpoint(repository: Repository, dicomweb_base: str, *, tells_of_token: bool = False) -> None:
    """The Endpoint that every ImagingStudy names, with this server's address. Called before the server answers."""
    repository.update(SYSTEM, endpoint(dicomweb_base, tells_of_token=tells_of_token))
