"""Mail by the practice's mail server. https://www.rfc-editor.org/rfc/rfc5321"""

import hashlib
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Protocol

from subscriptions.mail import MailSender, MailUnavailable, Message

TIMEOUT_S = 20.0
PLAIN, STARTTLS, TLS = "none", "starttls", "tls"
SECURITIES = (STARTTLS, TLS, PLAIN)


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where mail is handed over. password_file: read anew at each connection, so that it can be changed."""

    host: str
    port: int
    sender: str
    security: str = STARTTLS
    user: str = ""
    password_file: str = ""


class SmtpSender:
    """A MailSender over SMTP. sent: where it is kept what went out, so that nothing goes out twice but after a crash
    between sending and noting; both copies then have the same Message-ID. Thread safe."""

    def __init__(
        self,
        server: SmtpServer,
        sent: "SentMail",
        context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._server = server
        self._sent = sent
        self._context = context

    def deliver(self, message: Message) -> None:
        """Hand a message over, unless it went out before. Raises MailUnavailable."""
        if self._sent.has(message.id):
            return
        try:
            with self._connect() as connection:
                connection.send_message(written(message, self._server.sender))
        except smtplib.SMTPResponseException as refusal:
            raise MailUnavailable(f"the mail server answered {refusal.smtp_code}") from None
        except smtplib.SMTPRecipientsRefused as refusal:
            codes = sorted({code for code, _ in refusal.recipients.values()})
            raise MailUnavailable(f"the mail server refused the address: {', '.join(map(str, codes))}") from None
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise MailUnavailable(f"the mail server did not take it: {type(error).__name__}") from None
        self._sent.deliver(
            replace(message, body="", html="", attached="")
        )  # a link that confirms an address is its owner's

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        if server.security == TLS:
            connection: smtplib.SMTP = smtplib.SMTP_SSL(
                server.host, server.port, timeout=TIMEOUT_S, context=self._context()
            )
        else:
            connection = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_S)
        try:
            if server.security == STARTTLS:
                connection.starttls(context=self._context())  # raises where it is not offered: never in the open
            if server.user:
                connection.login(server.user, Path(server.password_file).read_text().strip())
        except BaseException:
            connection.close()
            raise
        return connection


class SentMail(MailSender, Protocol):
    """Keeps messages by id."""

    def has(self, id: str) -> bool: ...


def written(message: Message, sender: str) -> EmailMessage:
    """A message as it goes over the wire. Raises ValueError for a header of more than one line."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = sender
    mail["To"] = message.to
    mail["Subject"] = message.subject
    mail["Date"] = format_datetime(message.at)
    domain = sender.rpartition("@")[2].rstrip(">")
    mail["Message-ID"] = f"<{hashlib.sha256(message.id.encode()).hexdigest()[:40]}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no absence notes, please
    mail.set_content(message.body)
    if message.html:
        mail.add_alternative(message.html, subtype="html")
    if message.attached:
        content = message.attached.encode()
        mail.add_attachment(content, "application", "fhir+json", filename="notification.json")
    return mail
