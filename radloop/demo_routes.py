"""What only a demonstration server has: its clock can be moved, to see what happens when time passes."""

from datetime import timedelta

from flask import Blueprint, Response, jsonify, request

from fhir_server.errors import BadRequest, Forbidden
from fhir_server.http import current_access
from radloop.clock import DemoClock

MAX_MINUTES = 60 * 24 * 30


def create_blueprint(clock: DemoClock) -> Blueprint:
    demo = Blueprint("demo", __name__)

    @demo.post("/demo/clock")
    def move() -> Response:
        """Set how many minutes the practice's clock is ahead: `{"minutes": 90}`. For the practice's staff."""
        if not current_access().is_practice:
            raise Forbidden("the practice's staff moves the clock")
        body = request.get_json(silent=True)
        minutes = body.get("minutes") if isinstance(body, dict) else None
        if not isinstance(minutes, int | float) or isinstance(minutes, bool) or not 0 <= minutes <= MAX_MINUTES:
            raise BadRequest(f'send {{"minutes": n}} with n from 0 to {MAX_MINUTES}')
        clock.move(timedelta(minutes=minutes))
        return jsonify(now=clock().isoformat())

    return demo
