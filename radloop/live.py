"""The app that holds websockets."""

from flask import Flask

from radloop.parts import Parts


def create_live(parts: Parts) -> Flask:
    """Pages of this server, and of origins that clients registered, may connect; programs too."""
    own = frozenset({parts.settings.origin})
    verifier = parts.auth.verifier
    return parts.subscriptions.live_app(
        lambda: own | parts.auth.store.origins(), lambda token: verifier.access(token).subject
    )
