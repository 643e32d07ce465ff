"""The app that holds websockets."""

from flask import Flask

from radloop.parts import Parts


def create_live(parts: Parts) -> Flask:
    """Pages of this server, and of origins that clients registered, may connect; programs too."""
    own = frozenset({parts.settings.origin})
    verifier = parts.auth.verifier

    def subject_of(token: str) -> str | None:
        access = verifier.access(token)
        return None if access.is_narrowed else access.subject

    return parts.subscriptions.live_app(lambda: own | parts.auth.store.origins(), subject_of)
