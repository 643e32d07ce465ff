"""The app that answers requests."""

from functools import lru_cache

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

import dicomweb.audit
import dicomweb.capability
import fhir_server.audit.rest
import fhir_server.http
import fhir_server.openapi
import fhir_server.routes
import portal.admin_audit
import portal.referral_routes
import portal.routes
import portal.tracker_routes
import smart_auth.audit
import smart_auth.routes
from fhir_server.capability import capability_statement
from fhir_server.index import searchable
from fhir_server.index.active import ParameterSet
from fhir_server.operations import standard
from portal.studies import Imaging, account
from radloop import __version__, demo_routes, health, metrics
from radloop.clock import DemoClock, real_clock
from radloop.parts import Parts
from referral.scheduling import operations as scheduling
from smart_auth import guard
from smart_auth.discovery import oauth_uris
from subscriptions.addresses import PATH as CONFIRM
from subscriptions.live import PATH


def create_app(parts: Parts) -> Flask:
    """Everything below one origin, behind one guard."""
    settings, auth = parts.settings, parts.auth
    app = Flask("radloop", static_folder=None)
    if settings.proxies:  # log-ins are counted by address; host and scheme are never taken from a request
        app.wsgi_app = ProxyFix(app.wsgi_app, settings.proxies, 0, 0, 0, 0)  # type: ignore[method-assign]
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_mb * 2**20
    fhir_server.http.install(app)
    fhir_server.audit.rest.install(app, parts.audit.trail)
    dicomweb.audit.install(app, parts.audit.trail, parts.imaging.store, portal.referral_routes.IMAGES)
    smart_auth.audit.install(app, parts.audit.trail, auth, portal.admin_audit.ENDPOINTS)
    guard.install(
        app,
        auth,
        public_paths=portal.tracker_routes.PUBLIC_PATHS,
        public_prefixes=(CONFIRM,),
        open_access=settings.open,
    )
    operations = [
        *standard.operations(parts.repository),
        *parts.subscriptions.operations,
        *scheduling.operations(parts.practice),
    ]
    started = real_clock()

    @lru_cache(maxsize=1)
    def statement(found: ParameterSet) -> dict:
        with found.applied():
            return capability_statement(
                settings.fhir_base,
                started,
                __version__,
                operations,
                oauth_uris(auth),
                searchable,
                [
                    parts.subscriptions.capability,
                    dicomweb.capability.capability(settings.dicomweb_base),
                    parts.bulk.capability,
                ],
                settings.conditional_delete_limit,
            )

    app.register_blueprint(
        fhir_server.routes.create_blueprint(
            parts.repository, operations, lambda: statement(parts.repository.parameters.current())
        ),
        url_prefix="/fhir",
    )
    app.register_blueprint(parts.bulk.blueprint, url_prefix="/fhir")
    description = fhir_server.openapi.describe(statement(ParameterSet()), operations, [parts.bulk.paths])
    app.register_blueprint(fhir_server.openapi.create_blueprint(description), url_prefix="/fhir")
    app.register_blueprint(smart_auth.routes.create_blueprint(auth, parts.repository, settings.practice_organization))
    for blueprint in parts.imaging.blueprints():
        app.register_blueprint(blueprint)
    app.register_blueprint(
        portal.routes.create_blueprint(
            parts.practice,
            auth,
            parts.subscriptions.bindings,
            parts.subscriptions.outbox,
            f"{settings.live_url}{PATH}",
            parts.subscriptions.addresses,
            parts.subscriptions.desk,
            parts.imaging.attachments(parts.clock),
            Imaging(
                parts.imaging.store,
                parts.imaging.corrections(parts.clock, account(parts.audit.trail, parts.repository)),
                parts.imaging.attached_files(),
            ),
        )
    )
    app.register_blueprint(portal.tracker_routes.create_blueprint(parts.practice, auth, f"{settings.live_url}{PATH}"))
    app.register_blueprint(health.create_blueprint(parts.database))
    app.register_blueprint(metrics.create_blueprint(parts.database, parts.subscriptions.store))
    if isinstance(parts.clock, DemoClock):
        app.register_blueprint(demo_routes.create_blueprint(parts.clock))
    return app
