"""A mail server of the outside world: as much of RFC 5321 as a client needs, over real sockets."""

import base64
import socketserver
import ssl
import threading
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path


class MailServer:
    """Keeps the mails that it took. refuse: the code for recipients; certificate: offers STARTTLS with it."""

    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.logins: list[tuple[str, str]] = []
        self.encrypted: list[bool] = []
        self.refuse = 0
        self.arrived = threading.Condition()
        self.context: ssl.SSLContext | None = None
        if certificate is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate, key)
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    outer._serve(self)
                except OSError:
                    pass  # a client that does not like the certificate hangs up

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(poll_interval=0.02), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, link: socketserver.StreamRequestHandler) -> None:
        encrypted = False

        def say(text: str) -> None:
            link.wfile.write(f"{text}\r\n".encode())

        say("220 mail.example")
        while line := link.rfile.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            match verb.upper():
                case "EHLO":
                    offers = [*(["STARTTLS"] if self.context and not encrypted else []), "AUTH PLAIN"]
                    say(
                        "\r\n".join(["250-mail.example", *(f"250-{one}" for one in offers[:-1]), f"250 {offers[-1]}"])
                    )
                case "STARTTLS" if self.context:
                    say("220 go on")
                    secured = self.context.wrap_socket(link.connection, server_side=True)
                    link.rfile, link.wfile, encrypted = secured.makefile("rb"), secured.makefile("wb", 0), True
                case "AUTH":
                    _, user, password = base64.b64decode(rest.split()[1]).decode().split("\0")
                    self.logins.append((user, password))
                    say("235 welcome")
                case "MAIL":
                    say("250 ok")
                case "RCPT":
                    if self.refuse:
                        say(f"{self.refuse} no")
                        continue
                    self.recipients.append(rest[rest.index("<") + 1 : rest.index(">")])
                    say("250 ok")
                case "DATA":
                    say("354 go on")
                    lines = []
                    while (text := link.rfile.readline()) != b".\r\n":
                        lines.append(text.removeprefix(b"."))
                    with self.arrived:
                        self.encrypted.append(encrypted)
                        self.mails.append(message_from_bytes(b"".join(lines), policy=SMTP))
                        self.arrived.notify_all()
                    say("250 taken")
                case "QUIT":
                    say("221 bye")
                    return
                case _:
                    say("250 ok" if verb.upper() in ("RSET", "NOOP") else "502 not known")
