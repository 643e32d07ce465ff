"""All parts of a server, made once a process from its settings. web, live, worker and the commands each use some."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pymongo.database import Database

import conformance
from fhir_server.admission import Admission
from fhir_server.audit.service import Audit, create_audit
from fhir_server.bulk.service import Bulk, create_bulk
from fhir_server.questionnaire import fits_its_questionnaire
from fhir_server.reindex.admission import can_be_searched_by
from fhir_server.reindex.worker import Reindexer
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from fhir_server.terminology.vocabulary import add_vocabulary
from fhir_server.validation.profiles.admission import by_the_practice
from radloop.clock import Clock, DemoClock, real_clock
from radloop.connection import connect
from radloop.demo import ehr_sim
from radloop.imaging import Imaging, create_imaging
from radloop.practice import OFFICES, PRACTICE_PHONE
from radloop.settings import Settings
from referral.admission import ADMISSIONS
from referral.context import Practice
from referral.messages import referral_number
from referral.policy import Policy
from smart_auth.access import access_of_subject, accesses_of_subjects
from smart_auth.new_password import Mail
from smart_auth.outside.servers import EHR, Server, Servers, read_servers
from smart_auth.service import AuthService
from smart_auth.service import create_service as create_auth
from subscriptions.admission import SubscriptionAdmission
from subscriptions.fax import FaxGateway
from subscriptions.mail import Message
from subscriptions.mail_store import Outbox
from subscriptions.masking import masked
from subscriptions.outgoing import Outgoing
from subscriptions.service import SubscriptionService
from subscriptions.service import create_service as create_subscriptions
from subscriptions.smtp import SmtpSender, SmtpServer

# Dates that clients sort long lists by; each costs an index.
SORTED = {
    "Appointment": ("date",),
    "AuditEvent": ("date",),
    "DiagnosticReport": ("date", "issued"),
    "ImagingStudy": ("started",),
    "ServiceRequest": ("authored",),
    "Slot": ("start",),
    "Task": ("authored-on", "modified"),
}


@dataclass(frozen=True, slots=True)
class Parts:
    """clock: the practice's time, which a demonstration can move; tokens, leases and versions go by the real one."""

    settings: Settings
    database: Database
    clock: Clock
    repository: Repository
    auth: AuthService
    practice: Practice
    subscriptions: SubscriptionService
    imaging: Imaging
    bulk: Bulk
    reindexer: Reindexer
    audit: Audit

    def close(self) -> None:
        self.audit.trail.close()
        self.imaging.close()
        self.database.client.close()


def create_parts(settings: Settings, database: Database | None = None) -> Parts:
    """Put the parts together. database: as connected to already. Raises NotRunning when there is none."""
    database = connect(settings) if database is None else database
    clock: Clock = DemoClock(database) if settings.demo else real_clock
    topics = conformance.topics()
    outgoing = Outgoing(settings.allowed_outgoing)
    admissions: dict[str, tuple[Admission, ...]] = {name: tuple(found) for name, found in ADMISSIONS.items()}
    admissions["QuestionnaireResponse"] = (*admissions["QuestionnaireResponse"], fits_its_questionnaire)
    for name in ("CodeSystem", "StructureDefinition", "ValueSet"):  # they decide what others may write
        admissions[name] = (by_the_practice,)
    admissions["SearchParameter"] = (*admissions.get("SearchParameter", ()), can_be_searched_by)
    admissions["Subscription"] = (SubscriptionAdmission(topics, outgoing, clock),)
    repository = Repository(
        VersionStore(database, SORTED),
        settings.fhir_base,
        real_clock,
        admissions,
        views={"Subscription": masked},
        deletes_at_once=settings.conditional_delete_limit,
    )
    add_vocabulary(repository)
    auth = create_auth(
        database,
        real_clock,
        settings.origin,
        second_factor_required=settings.second_factor_required,
        outside=outside_servers(settings),
        mail=mail_of(settings, database),
        registration=settings.client_registration,
        imaging_access=settings.smart_imaging_access,
    )
    audit = create_audit(repository, settings.data_path / "audit")
    return Parts(
        settings=settings,
        database=database,
        clock=clock,
        repository=repository,
        auth=auth,
        practice=Practice(repository, policy_of(settings), clock),
        subscriptions=create_subscriptions(
            database,
            repository,
            topics,
            lambda subject: access_of_subject(auth.store, subject),
            outgoing,
            public_url=settings.origin,
            live_url=settings.live_url,
            referral_number=referral_number,
            clock=clock,
            trail=audit.trail,
            smtp=smtp_of(settings),
            fax=fax_of(settings),
            keep=timedelta(days=settings.event_retention_days),
            accesses_of=lambda subjects: accesses_of_subjects(auth.store, subjects),
        ),
        imaging=create_imaging(database, repository, settings),
        bulk=create_bulk(database, repository, settings.data_path / "bulk", settings.max_body_mb * 2**20),
        reindexer=Reindexer(repository.store, repository.parameters, settings.fhir_base),
        audit=audit,
    )


def smtp_of(settings: Settings) -> SmtpServer | None:
    """The practice's mail server; None where there is none."""
    if not settings.smtp_host:
        return None
    return SmtpServer(
        settings.smtp_host,
        settings.smtp_port,
        settings.smtp_from,
        settings.smtp_security,
        settings.smtp_user,
        settings.smtp_password_file,
    )


def mail_of(settings: Settings, database: Database) -> Mail | None:
    """How people are written to about their log-in. None without a mail server: in the outbox, which the front desk
    reads, a link for a new password would be anybody's."""
    server = smtp_of(settings)
    if server is None:
        return None
    sender = SmtpSender(server, Outbox(database))

    def send(id: str, to: str, subject: str, body: str) -> None:
        sender.deliver(Message(id, "", 0, to, subject, body, real_clock()))

    return send


def fax_of(settings: Settings) -> FaxGateway | None:
    """The practice's fax gateway; None where there is none."""
    return FaxGateway(settings.fax_gateway_url, settings.fax_gateway_token_file) if settings.fax_gateway_url else None


def outside_servers(settings: Settings) -> Servers:
    """Those that are set up; a demonstration knows the EHR simulator of this machine as well."""
    found = read_servers(Path(settings.outside_servers) if settings.outside_servers else None)
    if not settings.demo or found:
        return found
    simulator = Server(
        "ehr-sim",
        EHR,
        "EHR simulator",
        f"http://127.0.0.1:{ehr_sim.PORT}/fhir",
        ehr_sim.CLIENT_ID,
        ehr_sim.SCOPES,
        f"Organization/{OFFICES[0].key}",
        frozenset({"referrer"}),
    )
    return {simulator.name: simulator}


def policy_of(settings: Settings) -> Policy:
    """The practice's own rules."""
    return Policy(
        practice=settings.practice_organization,
        phone=settings.practice_phone or (PRACTICE_PHONE if settings.demo else ""),
        time_zone=settings.time_zone,
        grace=timedelta(minutes=settings.noshow_grace_minutes),
        correction=timedelta(minutes=settings.noshow_correction_minutes),
        hold=timedelta(minutes=settings.hold_minutes),
    )
