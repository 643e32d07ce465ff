"""What is stored before a server answers: our own definitions, and in a demonstration the practice and its people."""

from collections.abc import Callable

from dicomweb.projection import ensure_endpoint
from radloop import loading
from radloop.clock import real_clock
from radloop.parts import Parts
from radloop.progress import bar


def set_up(parts: Parts) -> None:
    """Our own definitions, in the version of this release."""
    loading.load_definitions(parts.repository)
    ensure_endpoint(parts.repository, parts.settings.dicomweb_base)


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
