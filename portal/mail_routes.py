"""The page behind the link that confirms a mail address. It needs no log-in: whoever has the link has the address.

To look changes nothing, since mail programs and their guards follow links before people do; the button confirms.
"""

from flask import Blueprint, Response

from portal.page import page
from subscriptions.addresses import PATH, Addresses

HEADERS = {"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}


def add(portal: Blueprint, addresses: Addresses) -> None:
    """Add these pages to the portal."""

    @portal.get(f"{PATH}<token>", endpoint="confirm_address")
    def ask(token: str) -> Response:
        address = addresses.shown(token)
        return _page(200 if address else 404, address=address, confirmed=False)

    @portal.post(f"{PATH}<token>")
    def confirm(token: str) -> Response:
        address = addresses.confirm(token)
        return _page(200 if address else 404, address=address, confirmed=address is not None)


def _page(status: int, **values: object) -> Response:
    response = page("address.html", status, **values)
    response.headers.update(HEADERS)
    return response
