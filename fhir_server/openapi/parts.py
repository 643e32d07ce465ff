"""The pieces that an OpenAPI description repeats, as short references to its components."""

from collections.abc import Iterable

SUCCESS = {
    "Created": "201",
    "Deleted": "204",
    "NotModified": "304",
    "Accepted": "202",
    "Working": "202",
}


def ref(kind: str, name: str) -> dict[str, str]:
    """A reference to one of the components."""
    return {"$ref": f"#/components/{kind}/{name}"}


def parameters(*names: str) -> list[dict]:
    return [ref("parameters", name) for name in names]


def body(name: str) -> dict:
    """What is sent."""
    return {"requestBody": ref("requestBodies", name)}


def action(
    id: str,
    summary: str,
    *answers: str,
    query: Iterable[str] = (),
    headers: Iterable[str] = (),
    public: bool = False,
) -> dict:
    """One method of one address. answers: names of responses, the others being those of every address."""
    made: dict = {
        "operationId": id,
        "summary": summary,
        "responses": {SUCCESS.get(name, "200"): ref("responses", name) for name in answers}
        | {"default": ref("responses", "Refused")},
    }
    if found := parameters(*query, *headers):
        made["parameters"] = found
    if public:
        made["security"] = []
    return made
