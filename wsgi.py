"""What gunicorn serves: `wsgi:app` answers requests, `wsgi:live` holds websockets. Made when asked for."""

import logging
import os
from typing import Any

from radloop.live import create_live
from radloop.parts import create_parts
from radloop.settings import Settings
from radloop.web import create_app

MAKERS = {"app": create_app, "live": create_live}


def __getattr__(name: str) -> Any:
    if name not in MAKERS:
        raise AttributeError(name)
    logging.basicConfig(level=os.environ.get("RADLOOP_LOG_LEVEL", "WARNING").upper())
    return MAKERS[name](create_parts(Settings.from_env(os.environ)))
