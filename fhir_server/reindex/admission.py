"""What a SearchParameter must meet to be stored: that it can be searched by, once it is indexed."""

from fhir_server.admission import Write
from fhir_server.errors import Forbidden, Issue, Unprocessable
from fhir_server.index.custom import rules_of
from fhir_server.reindex.parameters import MAX_PARAMETERS


def can_be_searched_by(write: Write) -> dict | None:
    """The resource as it is. Raises Unprocessable with the elements at fault; Forbidden, as all searches pay for it.

    One that is not active, or is in the specification anyhow, is stored like any other resource.
    """
    if write.after is None:
        return None
    if not (made := rules_of(write.after)):
        return write.after
    if not write.access.is_practice:
        raise Forbidden("a search parameter for all is the practice's to define")
    current = write.repository.parameters.current()
    own = f"{write.after.get('id')}/"
    for type, rule in made.items():
        code = rule.parameter.code
        source = current.of(type).sources_by_code.get(code)
        if source is not None and not source.startswith(own):
            text = f"{type} has another parameter of this code, SearchParameter/{source.partition('/')[0]}"
            raise Unprocessable(text, issues=[Issue("duplicate", text, "SearchParameter.code")])
    sources = {source for added in current.by_type.values() for source in added.sources if not source.startswith(own)}
    if len(sources) >= MAX_PARAMETERS:
        raise Unprocessable(f"there are {MAX_PARAMETERS} search parameters already", "SearchParameter")
    return write.after
