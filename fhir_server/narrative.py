"""The narrative of a resource that was patched. https://hl7.org/fhir/R4/http.html#patch

A patch changes data below a text that was written for the data before it; read as it stands, that text would be
wrong. One that was made from the data is taken away, to be made anew; one that says more than the data has to be
patched as well.
"""

from fhir_server.errors import Unprocessable

_APART = ("text", "meta", "id")
_MADE_FROM_DATA = ("generated", "extensions", "empty")


def safe_narrative(before: dict, patched: dict) -> dict:
    """The patched resource with no narrative that speaks of what was before.

    Raises Unprocessable when the narrative says more than the data, and the patch leaves it as it was.
    """
    text = patched.get("text")
    if not isinstance(text, dict) or text != before.get("text") or _content(before) == _content(patched):
        return patched
    if text.get("status") in _MADE_FROM_DATA:
        return {name: value for name, value in patched.items() if name not in ("text", "_text")}
    raise Unprocessable(
        "the narrative says more than the data and would speak of what was before; patch it as well",
        f"{patched['resourceType']}.text",
    )


def _content(resource: dict) -> dict:
    return {name: value for name, value in resource.items() if name not in _APART}
