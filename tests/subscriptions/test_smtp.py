"""Mail over a real mail server: who it is from and to, in which forms, and never in the open unasked."""

import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pymongo.database import Database

from fhir_server import fhir_json
from subscriptions.courier import RetryPolicy
from subscriptions.mail import MailUnavailable, Message
from subscriptions.mail_store import Outbox
from subscriptions.smtp import SmtpSender, SmtpServer, written
from tests.subscriptions.conftest import ORIGIN, PRACTICE, World, a_subscription, eventually, make_world
from tests.subscriptions.hook_listener import status_of
from tests.subscriptions.smtp_server import MailServer

FROM, TO = "radiology@practice.example", "office@lakeside.example"
MESSAGE = Message(
    "s/1", "s", 1, TO, "There is news on referral LK-12", "Please log in.", datetime(2026, 3, 1, 8, tzinfo=UTC)
)


@pytest.fixture
def server() -> Iterator[MailServer]:
    server = MailServer()
    yield server
    server.close()


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database)


def plain(server: MailServer, **more: str) -> SmtpServer:
    return replace(SmtpServer("127.0.0.1", server.port, FROM, "none"), **more)


class TestSending:
    def test_hands_over_one_mail_with_its_headers(self, server: MailServer, outbox: Outbox) -> None:
        SmtpSender(plain(server), outbox).deliver(MESSAGE)
        (mail,) = server.mails
        assert (mail["From"], mail["To"], mail["Subject"]) == (FROM, TO, MESSAGE.subject)
        assert mail["Auto-Submitted"] == "auto-generated"
        assert mail.get_content_type() == "text/plain"
        assert mail.get_content().strip() == MESSAGE.body
        assert server.recipients == [TO]

    def test_what_went_out_goes_out_once_and_is_kept_without_its_text(
        self, server: MailServer, outbox: Outbox
    ) -> None:
        sender = SmtpSender(plain(server), outbox)
        sender.deliver(MESSAGE)
        sender.deliver(MESSAGE)
        assert len(server.mails) == 1
        assert [(message.subject, message.body) for message in outbox.list()] == [(MESSAGE.subject, "")]

    def test_the_same_event_has_the_same_message_id(self) -> None:
        assert written(MESSAGE, FROM)["Message-ID"] == written(replace(MESSAGE, body="again"), FROM)["Message-ID"]
        assert written(MESSAGE, FROM)["Message-ID"] != written(replace(MESSAGE, id="s/2"), FROM)["Message-ID"]

    def test_in_both_forms_where_html_is_wanted(self, server: MailServer, outbox: Outbox) -> None:
        SmtpSender(plain(server), outbox).deliver(replace(MESSAGE, html="<p>Please log in.</p>"))
        (mail,) = server.mails
        assert [part.get_content_type() for part in mail.walk()] == [
            "multipart/alternative",
            "text/plain",
            "text/html",
        ]

    @pytest.mark.parametrize("changes", [
        {"subject": "a\r\nBcc: x@y.example"}, {"to": "a@b.example\r\nBcc: x@y.example"}, {"subject": "a\nb"},
    ])  # fmt: skip
    def test_a_header_of_two_lines_is_refused(self, server: MailServer, outbox: Outbox, changes: dict) -> None:
        with pytest.raises(MailUnavailable):
            SmtpSender(plain(server), outbox).deliver(replace(MESSAGE, **changes))
        assert server.mails == []

    def test_a_refusal_is_told_without_the_servers_words(self, server: MailServer, outbox: Outbox) -> None:
        server.refuse = 550
        with pytest.raises(MailUnavailable, match="550"):
            SmtpSender(plain(server), outbox).deliver(MESSAGE)
        assert outbox.list() == []

    def test_a_server_that_is_not_there_is_told(self, server: MailServer, outbox: Outbox) -> None:
        settings = plain(server)
        server.close()
        with pytest.raises(MailUnavailable):
            SmtpSender(settings, outbox).deliver(MESSAGE)


class TestSecurity:
    def test_nothing_is_sent_in_the_open_where_starttls_is_not_offered(
        self, server: MailServer, outbox: Outbox
    ) -> None:
        with pytest.raises(MailUnavailable):
            SmtpSender(plain(server, security="starttls"), outbox).deliver(MESSAGE)
        assert server.mails == []

    def test_starttls_then_the_password_from_its_file(self, tmp_path: Path, outbox: Outbox) -> None:
        certificate, key = a_certificate(tmp_path)
        (tmp_path / "password").write_text("s3cret\n")
        server = MailServer(certificate, key)
        try:
            settings = plain(
                server,
                host="localhost",
                security="starttls",
                user="radloop",
                password_file=str(tmp_path / "password"),
            )
            trusting = lambda: ssl.create_default_context(cafile=str(certificate))  # noqa: E731
            SmtpSender(settings, outbox, trusting).deliver(MESSAGE)
            assert (server.encrypted, server.logins) == ([True], [("radloop", "s3cret")])
            with pytest.raises(MailUnavailable):  # by default the system's authorities decide, and this is none
                SmtpSender(settings, outbox).deliver(replace(MESSAGE, id="s/2"))
        finally:
            server.close()


class TestSubscription:
    @pytest.mark.parametrize("mime, types", [
        ("text/plain", ["text/plain"]), ("text/html", ["multipart/alternative", "text/plain", "text/html"]),
        ("text/plain;attach=application/fhir+json", ["multipart/mixed", "text/plain", "application/fhir+json"]),
    ])  # fmt: skip
    def test_events_arrive_at_the_mail_server_and_name_no_patient(
        self, database: Database, server: MailServer, mime: str, types: list[str]
    ) -> None:
        world = make_world(database, {}, smtp=plain(server))
        channel = {"type": "email", "endpoint": f"mailto:{TO}", "payload": mime}
        id = world.subscribe(a_subscription(channel=channel), PRACTICE)
        world.start()
        try:
            eventually(lambda: world.status(id) == "active")
            patient = {"reference": "Patient/p-1", "display": "Ernestine Quackenbush"}
            task = world.task(**{"for": patient}, identifier=[{"value": "LK-12"}])
            eventually(lambda: len(server.mails) == 1)
            (mail,) = server.mails
            assert [part.get_content_type() for part in mail.walk()] == types
            assert f"{ORIGIN}/referrals/{task.split('/')[1]}" in mail.as_string().replace("=\r\n", "")
            assert not any(word in mail.as_string() for word in ("Ernestine", "Quackenbush", "p-1"))
        finally:
            world.stop()

    def test_what_is_attached_is_the_notification_with_its_number_and_nothing_else(
        self, database: Database, server: MailServer
    ) -> None:
        world = make_world(database, {}, smtp=plain(server))
        mime = "text/html; charset=utf-8; attach=application/fhir+json"
        channel = {"type": "email", "endpoint": f"mailto:{TO}", "payload": mime}
        id = world.subscribe(a_subscription(channel=channel), PRACTICE)
        world.start()
        try:
            eventually(lambda: world.status(id) == "active")
            world.task()
            eventually(lambda: len(server.mails) == 1)
            (attached,) = server.mails[0].iter_attachments()
            bundle = fhir_json.loads(attached.get_content())
            (entry,) = bundle["entry"]
            event = next(one for one in entry["resource"]["parameter"] if one["name"] == "notification-event")
            assert [part["name"] for part in event["part"]] == ["event-number", "timestamp"]
            assert status_of(bundle)["type"] == "event-notification"
            eventually(lambda: len(world.service.outbox.list()) == 1)
            assert world.service.outbox.list()[0].attached == ""  # it is kept that it went out, not what
        finally:
            world.stop()

    def test_a_mail_server_that_refuses_is_tried_again(self, world_with_mail: World, server: MailServer) -> None:
        channel = {"type": "email", "endpoint": f"mailto:{TO}", "payload": "text/plain"}
        id = world_with_mail.subscribe(a_subscription(channel=channel), PRACTICE)
        eventually(lambda: world_with_mail.status(id) == "active")
        server.refuse = 451
        world_with_mail.task()
        eventually(lambda: world_with_mail.store.state(id).failures > 0)
        server.refuse = 0
        eventually(lambda: len(server.mails) == 1)


@pytest.fixture
def world_with_mail(database: Database, server: MailServer) -> Iterator[World]:
    world = make_world(database, {}, RetryPolicy(delays_s=(0.05,), give_up_after_s=3600), smtp=plain(server))
    world.start()
    yield world
    world.stop()


def a_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "certificate.pem", folder / "key.pem"
