"""The prebuilt OHIF viewer of npm, unmodified, on an origin of its own: for tests and pictures.

Only `app-config.js` is ours, as it is for everybody who installs OHIF: see docs/guides/viewers.md. `MENDS` is the
part of it that is the same everywhere.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Flask, Response, send_from_directory
from werkzeug.serving import WSGIRequestHandler, make_server

from radloop.settings import Settings

VERSION = "3.13.2"
DIST = Path(__file__).parents[1] / ".cache" / "ohif" / VERSION / "package" / "dist"
MENDS = Path(__file__).parent / "examples" / "ohif-mends.js"
CLIENT_ID = "ohif"
SCOPE = "openid user/ImagingStudy.rs"


def config(settings: Settings) -> dict:
    """What OHIF is told of the server, `window.config`."""
    root = settings.dicomweb_base
    return {
        "routerBasename": None,
        "extensions": [],
        "modes": [],
        "showStudyList": True,
        "defaultDataSourceName": "radloop",
        "oidc": [
            {
                "authority": settings.fhir_base,
                "client_id": CLIENT_ID,
                "redirect_uri": "/callback",
                "post_logout_redirect_uri": "/",
                "response_type": "code",
                "scope": SCOPE,
                "loadUserInfo": False,
                "extraQueryParams": {"aud": settings.fhir_base},  # as SMART wants it
            }
        ],
        "dataSources": [
            {
                "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
                "sourceName": "radloop",
                "configuration": {
                    "friendlyName": "Radloop",
                    "name": "radloop",
                    "qidoRoot": root,
                    "wadoRoot": root,
                    "wadoUriRoot": f"{settings.origin}/wado",
                    "qidoSupportsIncludeField": True,
                    "imageRendering": "wadors",
                    "thumbnailRendering": "thumbnail",
                    "thumbnailRequestStrategy": "fetch",
                    "enableStudyLazyLoad": True,
                    "supportsFuzzyMatching": True,
                    "supportsWildcard": True,
                    "singlepart": "bulkdata,video,pdf",
                    "bulkDataURI": {"enabled": True},
                    "omitQuotationForMultipartRequest": True,
                },
            }
        ],
    }


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        """Say nothing: a view takes a hundred files."""


@contextmanager
def served(port: int, settings: Settings) -> Iterator[str]:
    """OHIF at the root of its origin, which is yielded. Raises FileNotFoundError, saying how to get it."""
    if not (DIST / "index.html").is_file():
        raise FileNotFoundError("there is no OHIF: make ohif")
    app = Flask("ohif", static_folder=None)
    told = f"window.config = {json.dumps(config(settings))};\n{MENDS.read_text()}"

    @app.get("/", defaults={"path": "index.html"})
    @app.get("/<path:path>")
    def file(path: str) -> Response:
        if path == "app-config.js":
            return Response(told, content_type="text/javascript")
        known = path if (DIST / path).is_file() else "index.html"  # the addresses of its views are files nowhere
        return send_from_directory(DIST, known)

    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
