"""`_list`: what a List names. https://hl7.org/fhir/R4/search.html#list"""

from fhir_server.index.encode import normal
from fhir_server.references import RELATIVE
from fhir_server.search.sight import Sight
from fhir_server.search.terms import Condition, having
from fhir_server.search.values import UnknownParameter, alternatives, bad_value, unescape
from fhir_server.validation import ID


def listed(sight: Sight, resource_type: str, value: str, base_url: str) -> Condition:
    """To be an entry of one of these lists. A list that the caller cannot see has none.

    Raises Forbidden where the caller may search no lists.
    """
    sight.require("List")
    ids = [unescape(one).removeprefix("List/") for one in alternatives("_list", value)]
    if any(id.startswith("$") for id in ids):
        raise UnknownParameter("_list takes ids; which list is current for somebody ($current-...) is not kept here")
    if not all(map(ID.fullmatch, ids)):
        raise bad_value("_list", "ids of lists")
    found = []
    for version in sight.current([("List", id) for id in dict.fromkeys(ids)]):
        entries = version.resource().get("entry", [])
        references = [entry.get("item", {}).get("reference", "") for entry in entries if not entry.get("deleted")]
        targets = [match for one in references if (match := RELATIVE.fullmatch(normal(one, base_url)))]
        found += [f"_id={target[2]}" for target in targets if target[1] == resource_type]
    return having(found)
