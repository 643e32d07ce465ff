"""`radloop dicom`: what the images take, and how those that are older than the practice keeps them go."""

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime

import click

from dicomweb.audit import data_of
from dicomweb.retention import OldStudy, Use, older, retire, size_of, uses
from dicomweb.store import DicomStore
from fhir_server.access import Access
from fhir_server.audit.event import Actor, Event
from fhir_server.errors import FhirError, Gone, NotFound, PreconditionFailed
from fhir_server.repository import Repository
from radloop.commands.common import settings
from radloop.parts import create_parts
from referral.states import TASK_OPEN

STAFF = Access.system("retention")
_ORDER_OPEN = frozenset({"draft", "active", "on-hold", "unknown"})


@click.group()
def dicom() -> None:
    """Look after the store of images."""


@dicom.command()
def usage() -> None:
    """Studies, images and bytes by the year of the study, and what is left of the quota."""
    parts = create_parts(settings())
    rows, quota = uses(parts.imaging.store), parts.imaging.quota
    parts.close()
    for line in lines_of(rows, quota.limit if quota else None):
        click.echo(line)


def lines_of(rows: Sequence[Use], limit: int | None) -> Iterator[str]:
    """What is printed of the years. limit: bytes of the quota."""
    studies, instances, size = (sum(getattr(row, name) for row in rows) for name in ("studies", "instances", "size"))
    for row in (*rows, Use("all", studies, instances, size)):
        yield f"{row.year:4}  {row.studies:>8,} studies  {row.instances:>10,} images  {row.size / 2**20:>12,.1f} MB"
    if limit:
        left = max(0, limit - size)
        yield f"quota {limit / 2**20:,.1f} MB: {size / limit:.1%} taken, {left / 2**20:,.1f} MB left"


@dicom.command("retire")
@click.option("--before", type=click.DateTime(["%Y-%m-%d"]), required=True, help="Studies of days before this one.")
@click.option("--apply", is_flag=True, help="Delete them; without it they are only listed.")
def retire_studies(before: datetime, apply: bool) -> None:
    """Delete studies that are older than the practice keeps them.

    Kept are those of a referral that is open, those that wait for a person at the desk, and those without a date.
    Exit status 1 when one could not be deleted.
    """
    parts = create_parts(settings())
    store, gone, freed, failed = parts.imaging.store, 0, 0, 0
    try:
        for study in older(store, before.date()):
            if reason := "; ".join(reasons_to_keep(parts.repository, study)):
                click.echo(f"{study.day}  {study.reference}  kept: {reason}")
                continue
            images, size = size_of(store, study.uid)
            try:
                if apply:
                    parts.audit.trail.record(deletion(store, study))
                    retire(store, parts.imaging.blobs, study)
            except (PreconditionFailed, NotFound, Gone) as error:
                click.echo(f"{study.day}  {study.reference}  kept: {error.diagnostics}")
            except FhirError as error:
                failed += 1
                click.echo(f"{study.day}  {study.reference}  NOT DELETED: {error.diagnostics}")
            else:
                gone, freed = gone + 1, freed + size
                click.echo(f"{study.day}  {study.reference}  {images} images, {size / 2**20:,.1f} MB")
    finally:
        parts.close()
    word = "deleted" if apply else "would be deleted (see --apply)"
    click.echo(f"{gone} studies, {freed / 2**20:,.1f} MB {word}")
    if failed:
        sys.exit(1)


def deletion(store: DicomStore, study: OldStudy) -> Event:
    """What the audit trail is told, before it is done."""
    data = data_of(store.patients([study.uid]))
    return Event("images-delete", Actor(STAFF.subject), data=data, description="images older than they are kept")


def reasons_to_keep(repository: Repository, study: OldStudy) -> Iterator[str]:
    """Why a study stays, however old it is."""
    if study.waits:
        yield "it waits at the desk"
    resource_type, _, id = study.reference.partition("/")
    version = repository.store.newest(resource_type, id)
    based_on = version.resource().get("basedOn", ()) if version and not version.deleted else ()
    for order in sorted({one.get("reference", "") for one in based_on}):
        if order.startswith("ServiceRequest/") and _is_open(repository, order):
            yield f"{order} is open"


def _is_open(repository: Repository, order: str) -> bool:
    version = repository.store.newest(*order.split("/"))
    if version is None or version.deleted:
        return False
    tasks = repository.search(STAFF, "Task", [("focus", order), ("_count", "100")], strict=True).matches
    statuses = {task.resource()["status"] for task in tasks}
    # The referral says more than the order, which is often left active when all is done.
    return bool(statuses & TASK_OPEN) if statuses else version.resource()["status"] in _ORDER_OPEN
