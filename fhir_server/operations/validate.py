"""$validate: whether content would be acceptable, as such or as a create, an update or a delete. Writes nothing.
https://hl7.org/fhir/R4/resource-operation-validate.html
"""

from collections.abc import Callable, Sequence
from functools import partial

from fhir_server import references
from fhir_server.errors import BadRequest, FhirError, Issue, Unprocessable
from fhir_server.operation import Operation, OperationRequest
from fhir_server.operations.parameters import Given, Parameters, below
from fhir_server.prepare import Draft, Preparation
from fhir_server.repository import Repository
from fhir_server.validation.second_reader import second_reading

DEFINITION = "http://hl7.org/fhir/OperationDefinition/Resource-validate"
MODES = ("create", "update", "delete", "profile")
_KNOWN = {"resource": ("Resource", 1), "mode": ("code", 1), "profile": ("uri", 1)}

# Raises an error for what the write would be refused for.
Step = Callable[[], object]


def operation(repository: Repository) -> Operation:
    return Operation(
        "validate",
        DEFINITION,
        None,
        instance=True,
        type_level=True,
        affects_state=False,
        handler=partial(validate, repository),
        takes="resource",
    )


def validate(repository: Repository, request: OperationRequest) -> dict:
    """An OperationOutcome with all that was found, or with one issue that says that nothing was.

    Expressions are those of the resource itself. Raises a FhirError where nothing can be said of the content.
    """
    given = Parameters(request, _KNOWN)
    mode = given.value("mode")
    if mode is not None and mode not in MODES:
        raise BadRequest(f"mode is one of {', '.join(MODES)}", given.required("mode").path)
    if mode in ("update", "delete", "profile") and request.id is None:
        raise BadRequest(f"mode {mode} is about one resource: POST [base]/Type/id/$validate")
    if mode == "create" and request.id is not None:
        raise BadRequest("mode create is about a new resource: POST [base]/Type/$validate")
    if mode == "profile":
        given.required("profile")
    resource = _content(repository, request, given, needed=mode != "delete")
    if mode == "delete":
        return _outcome(_refusals([partial(_dry_run, repository, request, "delete", resource)]))
    profile = given.one("profile")
    if profile is not None:
        _check_profile(repository, resource, profile)
    issues = _found(repository, resource, [] if profile is None else [profile.value])
    if not _refused(issues) and mode in ("create", "update"):
        steps = [
            partial(_dry_run, repository, request, mode, resource),
            partial(_check_references, repository, request, resource),
        ]
        issues += _refusals(steps)
    return _outcome(issues if _refused(issues) else [*issues, *second_reading(resource)])


def _found(repository: Repository, resource: dict, profiles: list[str]) -> list[Issue]:
    """All that there is to say of the content, by R4 and by profiles."""
    try:
        invalid, named = repository.judge(resource, profiles)
    except FhirError as error:  # too deep to be looked at
        return list(below(None, error))
    return list(dict.fromkeys([*invalid, *named, *repository.profiles.advice(resource)]))


def _refused(issues: list[Issue]) -> bool:
    return any(issue.severity == "error" for issue in issues)


def _content(repository: Repository, request: OperationRequest, given: Parameters, needed: bool) -> dict:
    """The resource sent; of a call on an instance without one, the one that is stored."""
    resource_type, sent = request.resource_type or "", given.one("resource")
    if not needed:
        return {"resourceType": resource_type, "id": request.id}
    if sent is None:
        if request.id is None:
            given.required("resource")
        return repository.read(request.access, resource_type, request.id or "").resource()
    resource = sent.value
    if resource["resourceType"] != resource_type:
        raise BadRequest(f"the resource is no {resource_type}", sent.path)
    if request.id is not None and resource.get("id") != request.id:
        raise BadRequest("the id of the resource is not the one of the address", f"{sent.path}.id")
    return resource


def _check_profile(repository: Repository, resource: dict, profile: Given) -> None:
    """Raises Unprocessable unless this server can validate against the profile."""
    if not repository.profiles.knows(profile.value):
        text = (
            f"{profile.value[:200]} is no profile that this server can validate a {resource['resourceType']} against"
        )
        raise Unprocessable(text, profile.path, [Issue("not-supported", text, profile.path)])


def _dry_run(repository: Repository, request: OperationRequest, interaction: str, resource: dict) -> None:
    """Everything that a write goes through, but for the commit."""
    preparation = Preparation(repository, request.access)
    content = {name: value for name, value in resource.items() if interaction != "create" or name != "id"}
    draft = Draft(interaction, content, if_match=request.if_match)
    preparation.place(draft)
    preparation.prepare(draft)
    preparation.check_referrers(repository.store)


def _check_references(repository: Repository, request: OperationRequest, resource: dict) -> None:
    """All dangling references, also where a rule refused the resource before they were looked at."""
    if not repository.check_references:
        return
    itself = {(resource["resourceType"], request.id)}
    dangling = references.missing(
        references.within(resource, repository.base_url),
        lambda targets: (targets & itself) | repository.existing(request.access, targets - itself),
    )
    if dangling:
        issues = [Issue("not-found", f"{reference} is not known here", path) for path, reference in dangling]
        raise Unprocessable("a reference leads nowhere", issues=issues)


def _refusals(steps: Sequence[Step]) -> list[Issue]:
    """The issues of all steps, each once."""
    found: dict[Issue, None] = {}
    for step in steps:
        try:
            step()
        except FhirError as error:
            found |= dict.fromkeys(below(None, error))
    return list(found)


def _outcome(issues: list[Issue]) -> dict:
    issues = issues or [Issue("informational", "nothing is wrong with it", severity="information")]
    return {"resourceType": "OperationOutcome", "issue": [issue.as_fhir() for issue in issues]}
