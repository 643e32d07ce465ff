"""A new password: by a link that is mailed to the registered address, while logged in, or from an administrator.

Whether an account or an address is there is told by nothing: neither by the page, which is the same, nor by its time,
since what depends on it is done after the answer. A link is good once and not for long; each way ends the user's
sessions, tokens, half-done log-ins and other links.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from secrets import token_urlsafe
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Protocol

from smart_auth.models import NO_PASSWORD, Reset, User, digest
from smart_auth.users import set_password, verify_password

if TYPE_CHECKING:
    from smart_auth.service import AuthService

log = logging.getLogger(__name__)

LIFE = timedelta(minutes=30)  # of a link that is mailed
LIFE_HANDED = timedelta(hours=24)  # of one that an administrator hands over
PATH = "/auth/password/new/"
_FREE_BY_ADDRESS, _FREE_BY_USER = 20, 3
_LONGEST_PAUSE, _MEMORY = timedelta(hours=1), timedelta(hours=24)
_WAITING = 100  # requests that the one thread which mails has before it
_NO_ANSWER = "This message has no answer address."


class Mail(Protocol):
    """The practice's mail. Takes a message once however often it comes under one id. Raises when it is not taken."""

    def __call__(self, id: str, to: str, subject: str, body: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Postman:
    """Sends mail after the answer. mail: None where the practice has no mail server."""

    mail: Mail | None = None
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "auth-mail"), repr=False)
    _places: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(_WAITING), repr=False)

    def later(self, work: Callable[[Mail], None]) -> None:
        """Call `work(mail)` soon. Dropped when too much waits, or where there is no mail."""
        if self.mail is not None and self._places.acquire(blocking=False):
            self._pool.submit(self._do, work, self.mail)

    def settle(self) -> None:
        """Return once all that was asked for is done."""
        self._pool.submit(lambda: None).result()

    def _do(self, work: Callable[[Mail], None], mail: Mail) -> None:
        try:
            work(mail)
        except Exception as failure:  # the person sees no mail and asks again; whose it was is nobody's business here
            log.warning("mail about a password was not sent: %s", type(failure).__name__)
        finally:
            self._places.release()


def ask(service: "AuthService", typed: str, address: str) -> None:
    """Have a link mailed to the registered address of the user of that name, or of that e-mail address.

    address: the network address of the browser, which may do so some times an hour. Says nothing about the outcome.
    """
    key = f"reset-address:{digest(address)}"
    if service.store.begin_attempt(key, service.clock(), _FREE_BY_ADDRESS, _LONGEST_PAUSE, _MEMORY):
        service.postman.later(lambda mail: _mail_link(service, mail, typed.strip()))


def hand_over(service: "AuthService", user: User) -> str:
    """A link that an administrator gives to a user, who then chooses a password; the present one stays till then."""
    return _link(service, user, LIFE_HANDED)


def user_of_link(service: "AuthService", token: str) -> User | None:
    """Whose password a link changes; None when it is none of ours, used, too old, or its user may not log in."""
    reset = service.credentials.reset(digest(token)) if 0 < len(token) <= 100 else None
    return _usable(service, reset)


def use_link(service: "AuthService", token: str, password: str) -> User | None:
    """Set the password of whom the link is for, once; None for a link as above.

    Raises ValueError for a password too short or too long, and Busy; the link is still good then.
    """
    with service.passwords.place():
        hashed = service.passwords.hash(password)
        reset = service.credentials.take_reset(digest(token)) if 0 < len(token) <= 100 else None
        user = _usable(service, reset)
        if user is None:
            return None
        service.store.set_user(user.name, password_hash=hashed)
    service.store.forget_attempts(f"name:{digest(user.name)}")
    _tell(service, user)
    return user


def change(service: "AuthService", user: User, present: str, password: str, address: str) -> bool:
    """Change the password of who is logged in and knows the present one; False when it does not fit.

    Raises ValueError for a new one too short or too long, and Busy.
    """
    found = verify_password(
        service.store, service.passwords, user.name, present, address=address, now=service.clock()
    )
    if found is None or found.name != user.name:
        return False
    with service.passwords.place():
        set_password(service.store, service.passwords, user.name, password)
    _tell(service, user)
    return True


def _mail_link(service: "AuthService", mail: Mail, typed: str) -> None:
    user = service.store.user(typed.lower())
    if user is None and "@" in typed and len(typed) <= 254:
        found = service.store.users_by_email(typed)
        user = found[0] if len(found) == 1 else None
    if user is None or not user.email or not may_have_password(user):
        return
    key = f"reset-user:{digest(user.name)}"
    if not service.store.begin_attempt(key, service.clock(), _FREE_BY_USER, _LONGEST_PAUSE, _MEMORY):
        return
    link = _link(service, user, LIFE)
    body = (
        f"Somebody asked for a new password for your log-in at {service.origin}.\n\n"
        f"To choose one, open this within half an hour: {link}\n\n"
        f"If it was not you, there is nothing to do: your password stays as it is.\n\n{_NO_ANSWER}"
    )
    mail(f"password/{digest(link)}", user.email, "Choose a new password", body)


def _tell(service: "AuthService", user: User) -> None:
    """Whoever changed it: the owner of the address shall know."""
    to, id = user.email, f"password-changed/{token_urlsafe(16)}"
    body = (
        f"The password of your log-in at {service.origin} was changed just now.\n\n"
        f"If it was not you, tell the practice at once.\n\n{_NO_ANSWER}"
    )
    if to:
        service.postman.later(lambda mail: mail(id, to, "Your password was changed", body))


def may_have_password(user: User) -> bool:
    """Not who is deactivated, nor who comes from another server and logs in there."""
    return user.active and user.password_hash != NO_PASSWORD


def _link(service: "AuthService", user: User, life: timedelta) -> str:
    token = token_urlsafe(32)
    service.credentials.add_reset(Reset(digest(token), user.name, service.clock() + life))
    return f"{service.origin}{PATH}{token}"


def _usable(service: "AuthService", reset: Reset | None) -> User | None:
    if reset is None or reset.expires <= service.clock():
        return None
    user = service.store.user(reset.user)
    return user if user is not None and may_have_password(user) else None
