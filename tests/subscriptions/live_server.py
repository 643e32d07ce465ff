"""The live process of the tests, for gunicorn: its database is the one that the environment names."""

import os

import pymongo

from tests.subscriptions.conftest import LAKESIDE, ORIGIN, make_world

_client: pymongo.MongoClient = pymongo.MongoClient(os.environ["TEST_MONGODB_URI"], tz_aware=True)
_world = make_world(_client[os.environ["TEST_DATABASE"]], {LAKESIDE.subject: LAKESIDE})
app = _world.service.live_app(lambda: {ORIGIN})
