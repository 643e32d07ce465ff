"""What benchmarks of a demonstration server begin with: the token of its app, reads as a measure, a study to show."""

from pydicom.dataset import Dataset

from bench.load import Connection, Figures, run
from radloop import practice
from radloop.demo.oauth import AppToken, BackendToken
from radloop.demo.play import load_credentials
from radloop.demo.players import Modality
from radloop.settings import Settings


def app_headers(settings: Settings, scope: str) -> dict[str, str]:
    """Of requests by the app, used at the front desk."""
    credentials = load_credentials(settings.data_path)
    app, password = credentials["clients"]["demo-app"], credentials["users"]["frontdesk"]
    token = AppToken(settings.origin, app["client_id"], app["redirect_uri"], "frontdesk", password, scope)()
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/fhir+json"}


def reads(settings: Settings, headers: dict[str, str], seconds: float, readers: int) -> Figures:
    """FHIR reads of one small resource by so many clients, as fast as they are answered."""
    path = f"/fhir/{settings.practice_organization}"

    def read(connection: Connection, _number: int) -> None:
        connection.request("GET", path, headers=headers)

    return run(read, lambda: Connection(settings.host, settings.port), seconds, readers)


def a_study(settings: Settings) -> tuple[str, list[Dataset]]:
    """Store a CT study; its UID and slices."""
    client = load_credentials(settings.data_path)["clients"]["demo-modality"]
    token = BackendToken(settings.origin, client["client_id"], client["key"], client["scope"])
    modality = Modality(token, settings.dicomweb_base)
    study, slices = modality.scan(practice.patients()[0], "BENCH1")
    modality.store(study, slices)
    return study, slices
