"""What gunicorn needs to know of both apps: `gunicorn --config python:radloop.gunicorn wsgi:app`."""

import gc
from typing import Any

from radloop.children import KILL, die_with_parent

loglevel = "warning"
control_socket_disable = True  # it would be opened below the home directory
worker_tmp_dir = "/dev/shm"  # noqa: S108 - of the heartbeat: a slow disk must not look like a dead worker
graceful_timeout = 10
keepalive = 30
timeout = 120


def post_fork(_server: Any, _worker: Any) -> None:
    """A worker whose arbiter was killed would keep the port from the next; what it was at was not acknowledged."""
    die_with_parent(KILL)


def post_worker_init(_worker: Any) -> None:
    """What the app has loaded stays: looked through again at each collection, it took half of a request's time."""
    gc.collect()
    gc.freeze()
