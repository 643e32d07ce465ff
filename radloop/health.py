"""/health/live: the process answers. /health/ready: the store accepts writes."""

from datetime import UTC, datetime

from flask import Blueprint, Response, jsonify
from pymongo.database import Database
from pymongo.errors import PyMongoError


def create_blueprint(database: Database) -> Blueprint:
    health = Blueprint("health", __name__)

    @health.get("/health/live")
    def live() -> Response:
        return jsonify(status="live")

    @health.get("/health/ready")
    def ready() -> Response:
        """200 once a write reached the store's journal; 503 until then."""
        try:
            database["health"].update_one({"_id": "ready"}, {"$set": {"at": datetime.now(UTC)}}, upsert=True)
        except PyMongoError as error:
            answer = jsonify(status="waiting", store=type(error).__name__)
            answer.status_code = 503
            answer.headers["Retry-After"] = "2"
            return answer
        return jsonify(status="ready")

    return health
