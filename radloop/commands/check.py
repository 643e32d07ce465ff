"""`radloop check`: proofs over the whole store."""

import sys
from collections.abc import Iterable, Iterator, Sequence

import click

import conformance
from dicomweb.blobs import ABANDONED_S
from dicomweb.check import check as check_images
from fhir_server import stream
from fhir_server.audit.check import check as check_audit
from fhir_server.findings import Finding
from radloop.commands.common import settings
from radloop.parts import create_parts
from radloop.settings import Settings
from referral.check import Report, settled
from referral.check import check as look_over
from smart_auth.access import access_of_subject

SHOWN = 50  # findings of a kind


@click.group()
def check() -> None:
    """Prove what must always hold."""


@check.command()
@click.option("--wait", "wait_s", default=10.0, show_default=True, help="Seconds that events in flight may take.")
def loop(wait_s: float) -> None:
    """Every referral in a known state, every event delivered or listed with the reason, none silent.

    Exit status 1 when there is a fault.
    """
    if not report_on_loop(settings(), wait_s):
        sys.exit(1)


@check.command()
@click.option("--checksums/--no-checksums", default=True, show_default=True, help="Read every object.")
@click.option("--remove-orphans", is_flag=True, help="Delete objects that no instance in the index has.")
@click.option(
    "--older", "older_s", default=ABANDONED_S, show_default=True, help="Seconds until an object is an orphan."
)
def dicom(checksums: bool, remove_orphans: bool, older_s: float) -> None:
    """Every instance has its object, unchanged, and every ImagingStudy tells of the images that are stored.

    Objects that no instance has are left by a server that was killed while it stored. Exit status 1 when there is a
    fault.
    """
    parts = create_parts(settings())
    imaging = parts.imaging
    report = check_images(imaging.store, imaging.blobs, parts.repository, checksums=checksums, older_s=older_s)
    if remove_orphans:
        imaging.blobs.sweep()
        for key in report.orphans:
            imaging.blobs.delete(key)
    parts.close()
    lines = [f"{report.studies} studies, {report.instances} instances, {report.bytes / 2**20:,.0f} MB"]
    if report.orphans:
        lines.append(f"{len(report.orphans)} orphans {'removed' if remove_orphans else '(see --remove-orphans)'}")
    _end([*lines, *_concluded(report.notes, report.faults, "all images are in order")], report.faults)


@check.command()
@click.option("--expect", default="", help="An end of the chain as printed before, which must still be in it.")
def audit(expect: str) -> None:
    """No AuditEvent is missing, changed, or added by hand, and none waits for long.

    Prints the end of the chain: noted elsewhere and given again by --expect, it shows whether the chain was made
    anew. Exit status 1 when there is a fault.
    """
    parts = create_parts(settings())
    parts.audit.ingester.catch_up()
    report = check_audit(parts.audit.store, expect)
    if behind := parts.audit.ingester.behind():
        report.notes.append(Finding("this machine", f"{behind:,} bytes of lines are not stored yet"))
    parts.close()
    lines = [f"{report.events} AuditEvents in {report.links} links, the end of which is", f"  {report.head}"]
    _end([*lines, *_concluded(report.notes, report.faults, "the audit trail is whole")], report.faults)


def report_on_loop(found: Settings, wait_s: float) -> bool:
    """Print what the whole store shows; whether the promise is kept."""
    parts = create_parts(found)

    def look() -> Report:
        return look_over(
            parts.practice,
            parts.subscriptions.store,
            conformance.topics(),
            lambda subject: access_of_subject(parts.auth.store, subject),
            stream.failures(parts.database),
        )

    report = settled(look, wait_s)
    parts.close()
    click.echo("\n".join(_lines(report)))
    return not report.faults


def _end(lines: Iterable[str], faults: Sequence[Finding]) -> None:
    """Print the lines; exit status 1 when there is a fault."""
    click.echo("\n".join(lines))
    if faults:
        sys.exit(1)


def _concluded(notes: Sequence[Finding], faults: Sequence[Finding], all_right: str) -> Iterator[str]:
    """What was found, and the last line of a report."""
    for title, findings in (("known, with the reason", notes), ("FAULTS", faults)):
        if findings:
            yield f"{title}:"
            yield from (f"  {finding.subject}: {finding.text}" for finding in findings[:SHOWN])
            if len(findings) > SHOWN:
                yield f"  ... and {len(findings) - SHOWN} more"
    yield f"{len(faults)} faults" if faults else all_right


def _lines(report: Report) -> list[str]:
    lines = [f"{report.referrals} referrals, {report.orders} active orders"]
    lines += [f"  {count:>6} {state}" for state, count in sorted(report.states.items())]
    lines.append(
        f"{report.events} events for {report.subscriptions} Subscriptions, {report.delivered} of them delivered"
    )
    return [*lines, *_concluded(report.notes, report.faults, "no referral is silent")]
