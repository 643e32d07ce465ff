"""`radloop check`: proofs over the whole store."""

import sys

import click

import conformance
from fhir_server import stream
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


def _lines(report: Report) -> list[str]:
    lines = [f"{report.referrals} referrals, {report.orders} active orders"]
    lines += [f"  {count:>6} {state}" for state, count in sorted(report.states.items())]
    lines.append(
        f"{report.events} events for {report.subscriptions} Subscriptions, {report.delivered} of them delivered"
    )
    for title, findings in (("known, with the reason", report.notes), ("FAULTS", report.faults)):
        if findings:
            lines.append(f"{title}:")
            lines += [f"  {finding.subject}: {finding.text}" for finding in findings[:SHOWN]]
            if len(findings) > SHOWN:
                lines.append(f"  ... and {len(findings) - SHOWN} more")
    lines.append("no referral is silent" if not report.faults else f"{len(report.faults)} faults")
    return lines
