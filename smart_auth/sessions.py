"""Log-ins of browsers. The cookie holds a random id; the store holds its digest, so a stolen copy opens nothing."""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import token_urlsafe

from smart_auth.models import Session, User, digest
from smart_auth.store import AuthStore

IDLE = timedelta(minutes=15)
ABSOLUTE = timedelta(hours=12)
_TOUCH_EVERY = timedelta(seconds=30)  # not each request of a page writes


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A session that stands, with its active user."""

    session: Session
    user: User


@dataclass(frozen=True, slots=True)
class Sessions:
    """Begins, finds and ends sessions. `secure`: the public address is https."""

    store: AuthStore
    clock: Callable[[], datetime]
    secure: bool
    idle: timedelta = IDLE
    absolute: timedelta = ABSOLUTE

    @property
    def cookie_name(self) -> str:
        """With https the prefix has browsers refuse one set by a neighbouring host (RFC 6265bis section 4.1.3.2)."""
        return "__Host-radloop" if self.secure else "radloop"

    def begin(self, user: User) -> tuple[str, Session]:
        """A new session: the cookie's value, and what we keep. Never the id of an earlier one (session fixation)."""
        now = self.clock()
        id = token_urlsafe(32)
        session = Session(digest(id), user.name, token_urlsafe(32), now, now, now + min(self.idle, self.absolute))
        self.store.add_session(session)
        return id, session

    def find(self, cookies: Mapping[str, str], *, background: bool = False) -> LoggedIn | None:
        """The session of these cookies while it lasts and its user is active.

        background: a page asks by itself, with nobody at it; that is no sign of life, and the session may run out.
        """
        id = cookies.get(self.cookie_name)
        if not id or len(id) > 100:
            return None
        session = self.store.session(digest(id))
        now = self.clock()
        if session is None or not self._lasts(session, now):
            return None
        user = self.store.user(session.user)
        if user is None or not user.active:
            return None
        if not background and now - session.last_seen >= _TOUCH_EVERY:
            expires = min(now + self.idle, session.created + self.absolute)
            self.store.touch_session(session.digest, now, expires)
        return LoggedIn(session, user)

    def stands(self, session_digest: str) -> bool:
        """Whether the log-in of that digest lasts."""
        session = self.store.session(session_digest)
        return session is not None and self._lasts(session, self.clock())

    def end(self, cookies: Mapping[str, str]) -> None:
        """End the session of these cookies, if there is one."""
        if id := cookies.get(self.cookie_name):
            self.store.end_session(digest(id))

    def _lasts(self, session: Session, now: datetime) -> bool:
        return now < session.expires and now < session.created + self.absolute


def csrf_matches(session: Session, given: str | None) -> bool:
    """Whether a form or header carries the session's CSRF token."""
    return given is not None and hmac.compare_digest(session.csrf.encode(), given.encode())
