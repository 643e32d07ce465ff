"""The proof that the trail is whole: every link follows the one before, and holds what it held when it was stored."""

from dataclasses import dataclass, field

from fhir_server.audit.store import START, AuditStore, link_hash
from fhir_server.findings import Finding


@dataclass(slots=True)
class Report:
    """links, events: how many. head: number and hash of the last link, to be noted elsewhere. notes: no faults."""

    links: int = 0
    events: int = 0
    head: str = f"0:{START}"
    notes: list[Finding] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)


def check(store: AuditStore, expected: str = "") -> Report:
    """Look at all of it. expected: a head as an earlier report told it, which must still be in the chain.

    Whoever can write the database can make a chain anew; only a head that was noted elsewhere shows that.
    """
    report, previous, heads = Report(), START, {f"0:{START}"}
    for link in store.links():
        name = f"link {link.number} of {link.at:%Y-%m-%d %H:%M:%S}"
        if link.number != report.links + 1:
            report.faults.append(Finding(name, f"{link.number - report.links - 1} links before it are missing"))
        elif link.previous != previous:
            report.faults.append(Finding(name, "does not follow from the one before"))
        bodies = store.bodies(link)
        missing = [number for number in link.numbers if number not in bodies]
        if missing:
            report.faults.append(Finding(name, f"{len(missing)} of {len(link.numbers)} AuditEvents are missing"))
        elif link_hash(link.previous, (bodies[number] for number in link.numbers)) != link.hash:
            report.faults.append(Finding(name, f"its {len(link.numbers)} AuditEvents are not what was stored"))
        report.links, report.events = link.number, report.events + len(link.numbers)
        report.head, previous = f"{link.number}:{link.hash}", link.hash
        heads.add(report.head)
    if (stored := store.count()) > report.events:
        report.faults.append(Finding("the store", f"{stored - report.events} versions are in no link"))
    if expected and expected not in heads:
        report.faults.append(Finding("the chain", f"does not have {expected}, which was noted as its end"))
    for lost in store.lost():
        where = Finding(f"{lost.spool} at {lost.offset}", f"{len(lost.text)} bytes made no AuditEvent")
        if lost.torn:  # its request was not answered: the line is written before
            report.notes.append(Finding(where.subject, f"{where.text}: their writer was killed before it answered"))
        else:
            report.faults.append(where)
    return report
