"""The status of a Subscription, as this server itself sets it: by a new version, like everybody's changes."""

from fhir_server.access import Access
from fhir_server.errors import Gone, NotFound
from fhir_server.repository import Repository

SERVER = Access.system("subscriptions")  # the one that may say `active` and `error`


def set_status(repository: Repository, id: str, seen: int, status: str, error: str | None = None) -> None:
    """Set status and error text, unless the Subscription was changed since version `seen`, or deleted."""

    def change(subscription: dict) -> dict | None:
        if subscription["meta"]["versionId"] != str(seen):
            return None
        subscription["status"] = status
        subscription.pop("error", None)
        return subscription | ({"error": error} if error else {})

    try:
        repository.amend(SERVER, "Subscription", id, change)
    except (NotFound, Gone):
        pass  # deleted meanwhile: nothing is left to say
