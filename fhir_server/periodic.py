"""Jobs that come round by the clock: one worker at a time does each, and an outage or a fault ends none of them."""

import logging
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import TypeVar

from pymongo.database import Database
from pymongo.errors import PyMongoError

from fhir_server.lease import DURATION_S, Lease

log = logging.getLogger(__name__)

T = TypeVar("T")


def repeat(database: Database, name: str, job: Callable[[], object], stop: threading.Event, every_s: float) -> None:
    """Do the job at once and then every so many seconds (of the machine's clock) until `stop` is set."""
    lease = Lease(database, name, duration_s=max(DURATION_S, 2 * every_s))
    while not stop.is_set():
        try:
            if lease.hold():
                job()
        except PyMongoError as error:
            log.warning("%s waits for MongoDB: %s", name, type(error).__name__)
        except Exception as error:
            log.error("%s: %s\n%s", name, type(error).__name__, _lines(error))
        stop.wait(every_s)
    try:
        lease.release()
    except PyMongoError:
        log.warning("%s leaves its lease to run out", name)


def each(name: str, items: Iterable[T], act: Callable[[T], bool], called: Callable[[T], str]) -> int:
    """Act on every item; how many times it did something. A fault of one is logged and does not keep the others.

    called: what an item is called in the log. Raises PyMongoError: an outage concerns them all.
    """
    done = 0
    for item in items:
        try:
            done += act(item)
        except PyMongoError:
            raise
        except Exception as error:
            log.error("%s, %s: %s\n%s", name, called(item), type(error).__name__, _lines(error))
    return done


def _lines(error: Exception) -> str:
    """Where it happened; never the error's text, which may carry patient data."""
    return "".join(traceback.format_tb(error.__traceback__))
