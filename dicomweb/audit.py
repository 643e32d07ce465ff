"""Who saw, stored and deleted which studies, in the audit trail before it is answered. DICOM PS3.15 section A.5.3."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial
from http import HTTPStatus

from flask import Flask, Response, g, request

from dicomweb.store import DicomStore
from dicomweb.uids import imaging_study_id, is_uid
from fhir_server.audit.event import Datum, Event
from fhir_server.audit.rest import actor, audited, by_caller, failed, query
from fhir_server.audit.trail import Trail
from fhir_server.errors import Unavailable

BLUEPRINTS = frozenset({"dicomweb", "wado_uri"})
_LEVELS = ("study", "series", "instance")
_MAX_DESCRIPTION = 250
Studies = dict[str, tuple[str, ...]]  # with their patients


def install(app: Flask, trail: Trail, store: DicomStore, pages: Collection[str] = ()) -> None:
    """Audit DICOMweb and WADO-URI. Install it behind `http.install`, before whatever may refuse a request.

    pages: endpoints elsewhere that show images, of the `study` in their address.
    """

    def is_audited() -> bool:
        return request.blueprint in BLUEPRINTS or request.endpoint in pages

    @app.before_request
    def begin() -> None:
        if is_audited():
            trail.ready()

    @app.after_request
    def record(response: Response) -> Response:
        if not is_audited() or request.method == "OPTIONS":
            return response
        tell = partial(_record, trail, store, response.status_code)
        return audited(response, lambda: by_caller(trail, response, tell))


def about(store: DicomStore, studies: Iterable[str]) -> None:
    """This request is about these studies: whose they are is looked up now, as after a deletion nobody knows."""
    g.studies = store.patients(dict.fromkeys(studies))


def _record(trail: Trail, store: DicomStore, status: int) -> None:
    named = _study()
    match request.method:
        case "POST":
            trail.record(*(_outcome(event, status) for event in _writes(store, "images-create", named, status)))
        case "DELETE":
            trail.record(*(_outcome(event, status) for event in _writes(store, "images-delete", named, status)))
        case _ if named is None and request.blueprint == "dicomweb":
            sent, said = query()
            trail.record(
                _outcome(_event("images-search", g.get("studies", {}), query=sent, description=said), status)
            )
        case _:
            _record_read(trail, store, named, status)


def _record_read(trail: Trail, store: DicomStore, study: str | None, status: int) -> None:
    """A viewer asks for each frame: once a minute for who it is, what for, and what became of it."""
    who, result = actor(), str(status) if status >= HTTPStatus.BAD_REQUEST else ""
    event = _event("images-read", {}, description=f"study {study}" if study else request.path)
    trail.record_once(
        _outcome(event, status),
        *(who.subject, who.client or "", who.address, study or "", result),
        complete=lambda event: replace(event, data=data_of(_whose(store, study, status))),
    )


def _writes(store: DicomStore, kind: str, named: str | None, status: int) -> list[Event]:
    """One for each study; one for what was refused before any was known."""
    given = request.view_args or {}
    where = ", ".join(f"{level} {given[level]}" for level in _LEVELS if given.get(level))
    studies = g.get("studies") or _whose(store, named, status)
    if not studies:
        return [_event(kind, {}, description=f"{request.method} {request.path}")]
    return [_event(kind, {uid: patients}, description=where or f"study {uid}") for uid, patients in studies.items()]


def _whose(store: DicomStore, study: str | None, status: int) -> Studies:
    """The study with its patients. Raises Unavailable; what is refused is recorded without them then."""
    try:
        return store.patients([study] if study else [])
    except Unavailable:
        if study and status >= HTTPStatus.BAD_REQUEST:
            return {study: ()}
        raise


def _event(kind: str, studies: Studies, *, description: str, query: str = "") -> Event:
    said = {"query": query, "description": description[:_MAX_DESCRIPTION], "request": g.get("request_id", "")}
    return Event(kind, actor(), data=data_of(studies), **said)


def data_of(studies: Studies) -> tuple[Datum, ...]:
    """The ImagingStudies with whose they are."""
    return tuple(Datum(f"ImagingStudy/{imaging_study_id(uid)}", patients) for uid, patients in studies.items())


def _outcome(event: Event, status: int) -> Event:
    return event if status < HTTPStatus.BAD_REQUEST else failed(event, status)


def _study() -> str | None:
    """The study that the address names; None for none, and for what is no UID."""
    given = request.args.get("studyUID", "").strip() if request.blueprint == "wado_uri" else ""
    uid = given or (request.view_args or {}).get("study")
    return uid if is_uid(uid) else None
