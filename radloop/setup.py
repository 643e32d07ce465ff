"""What is stored before a server answers: our own definitions, and in a demonstration the practice and its people."""

from collections.abc import Callable

from dicomweb.projection import ensure_endpoint
from fhir_server.reindex.state import IndexState
from radloop import loading
from radloop.clock import real_clock
from radloop.parts import Parts
from radloop.progress import bar


def set_up(parts: Parts, say: Callable[[str], None]) -> None:
    """Our own definitions, in the version of this release. Raises NewerLayout for a store of a later one."""
    older = IndexState(parts.database).open(parts.repository.store.types())
    if older:
        say(f"the store is indexed as an earlier version did; the worker does it anew: {', '.join(older)}")
        say("searches of these types wait for it; `radloop reindex` shows how far it is")
    parts.repository.parameters.forget()
    loading.load_definitions(parts.repository)
    ensure_endpoint(
        parts.repository, parts.settings.dicomweb_base, tells_of_token=parts.settings.smart_imaging_access
    )


def set_up_demo(parts: Parts, say: Callable[[str], None]) -> dict:
    """The demonstration practice, its users and clients; what is there already stays. Returns the credentials."""
    now = real_clock()
    if not loading.demo_is_loaded(parts.database):
        say("loading the demonstration practice")
    loading.load_practice(parts.repository, parts.settings, now, bar("  rooms, services and times"))
    loading.load_mail_subscriptions(parts.repository)
    credentials = loading.load_people(parts.auth, parts.settings.data_path)
    loading.mark_demo_loaded(parts.database, now)
    return credentials
