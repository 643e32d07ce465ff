"""Where the description is served: `[base]/openapi.json`, made and packed once."""

import gzip
import hashlib

from flask import Blueprint, Response, request

from fhir_server import fhir_json

PATH = "/openapi.json"


def create_blueprint(description: dict) -> Blueprint:
    """The one view; mount it at the FHIR base. Whoever has it already is told so with a 304."""
    content = fhir_json.dumps(description)
    packed = gzip.compress(content, mtime=0)
    tag = hashlib.sha256(content).hexdigest()[:32]
    openapi = Blueprint("openapi", __name__)

    @openapi.get(PATH)
    def document() -> Response:
        if request.if_none_match.contains_weak(tag):
            answer = Response(status=304)
        elif request.accept_encodings["gzip"]:
            answer = Response(packed, content_type="application/json", headers={"Content-Encoding": "gzip"})
        else:
            answer = Response(content, content_type="application/json")
        answer.set_etag(tag, weak=True)  # the same for both forms
        answer.vary.add("Accept-Encoding")
        answer.cache_control.public = True
        answer.cache_control.no_cache = True
        return answer

    return openapi
