"""$expunge: versions are deleted for good, so that not even the history tells of them. For administrators.

It takes what is old or was deleted before, so it passes no rule by: what is current has to be deleted first, as
everybody has to. It cannot undo what already left the store: events that were delivered, mail that was sent, exports,
backups, and pictures, which are deleted where they are kept.
"""

import logging
from functools import partial

import conformance
from fhir_server.access import AUDIT_TRAIL
from fhir_server.errors import BadRequest, Conflict, Forbidden, NotFound
from fhir_server.operation import Operation, OperationRequest
from fhir_server.operations.parameters import Parameters
from fhir_server.repository import Repository

log = logging.getLogger(__name__)

DEFINITION = f"{conformance.CANONICAL}/OperationDefinition/expunge"
OLD, DELETED = "expungePreviousVersions", "expungeDeletedResources"
_KNOWN = {OLD: ("boolean", 1), DELETED: ("boolean", 1)}


def operation(repository: Repository) -> Operation:
    return Operation(
        "expunge",
        DEFINITION,
        None,
        instance=True,
        type_level=False,
        affects_state=True,
        handler=partial(expunge, repository),
    )


def expunge(repository: Repository, request: OperationRequest) -> dict:
    """The number of versions that are gone, as `count`. Raises Forbidden, NotFound, Conflict, BadRequest.

    Whoever may do this needs not see the resource; the answer tells nothing of its content.
    """
    resource_type, id, access = request.resource_type or "", request.id or "", request.access
    if not access.is_administrator:
        raise Forbidden("versions are expunged by administrators and by the practice's own systems")
    access.require("delete", resource_type)
    if resource_type == AUDIT_TRAIL:
        raise Forbidden("nothing is taken out of the audit trail")
    given = Parameters(request, _KNOWN)
    old, deleted = given.value(OLD, False), given.value(DELETED, False)
    if not old and not deleted:
        raise BadRequest(f"{OLD} or {DELETED} has to be true")
    newest = repository.store.newest(resource_type, id)
    if newest is None or not repository.reached(access, "d", newest):
        raise NotFound(f"{resource_type}/{id} is not known here")
    if deleted and not newest.deleted and not old:
        raise Conflict(f"{resource_type}/{id} is not deleted; delete it first")
    everything = deleted and newest.deleted
    # A write that comes in between makes a newer version, which stays.
    up_to = newest.version if everything else newest.version - 1
    count = repository.store.expunge(resource_type, id, up_to, guards=everything)
    log.warning("%s expunged %d versions of one %s", access.subject, count, resource_type)
    return {"resourceType": "Parameters", "parameter": [{"name": "count", "valueInteger": count}]}
