"""What a worker does: consumers of the stream, deliveries and timers, a thread each, each under a lease."""

import logging
import threading
import traceback
from collections.abc import Callable

from fhir_server import stream
from radloop.parts import Parts
from referral import rules, timers

log = logging.getLogger(__name__)

PAUSE_S = 1.0

Job = Callable[[threading.Event], None]


def run(parts: Parts, stop: threading.Event) -> None:
    """Do all jobs until `stop` is set."""
    threads = [threading.Thread(target=_keep, args=(name, job, stop), name=name) for name, job in jobs(parts).items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def jobs(parts: Parts) -> dict[str, Job]:
    """The jobs by name."""
    database, practice = parts.database, parts.practice
    return {
        "matching": parts.subscriptions.match,
        "delivery": parts.subscriptions.deliver,
        "referral": lambda stop: stream.follow(
            database, rules.CONSUMER, rules.handler(practice), stop, types=rules.TYPES
        ),
        "audit": parts.audit.ingester.run,
        "bulk": parts.bulk.worker.run,
        "reindex": parts.reindexer.run,
        "timers": lambda stop: timers.run(practice, database, stop),
        **parts.imaging.jobs(),
    }


def _keep(name: str, job: Job, stop: threading.Event) -> None:
    """Begin a job again should it ever end by a fault: a worker that looks alive and does nothing is the worst."""
    while not stop.is_set():
        try:
            job(stop)
        except Exception as error:
            lines = "".join(traceback.format_tb(error.__traceback__))
            log.error("job %s begins anew after %s\n%s", name, type(error).__name__, lines)
            stop.wait(PAUSE_S)
