"""The operations of this package, as values to be served."""

from fhir_server.operation import Operation
from fhir_server.operations import everything, expunge, lastn, meta, validate
from fhir_server.repository import Repository
from fhir_server.terminology import operations as terminology


def operations(repository: Repository) -> list[Operation]:
    """All of them, over the resources of this repository."""
    return [
        validate.operation(repository),
        *meta.operations(repository),
        *everything.operations(repository),
        lastn.operation(repository),
        expunge.operation(repository),
        *terminology.operations(repository),
    ]
