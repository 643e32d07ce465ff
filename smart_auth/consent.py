"""What a user can agree to on the consent page, and what they chose. No Flask here."""

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import parse_qsl

from fhir_server.access import Clause
from fhir_server.search.values import split, unescape
from smart_auth import scopes
from smart_auth.access import SEE_PATIENTS, patient_context, rights_of_user
from smart_auth.models import Context, Launch, User

_LETTER_WORDS = {"c": "create", "r": "read", "u": "change", "d": "delete", "s": "search"}
_WHOSE = {"user": "all you may see yourself", "patient": "one patient", "system": "the whole system"}
_PARAMETERS = {"_id": "id", "_profile": "profile", "_security": "security label", "_source": "source", "_tag": "tag"}
_WORDS = {
    "openid": "Know that it is you who logged in",
    "fhirUser": "Know your entry in the directory",
    "profile": "Know your entry in the directory",
    "launch": "Know what you have in view here: the patient, the referral, the images",
    "launch/patient": "Know which patient you chose",
    "launch/encounter": "Know which visit you have in view",
    "launch/imagingstudy": "Know which images you have in view",
    "online_access": "Keep this access until you log out here",
    "offline_access": "Keep this access also when you are not there, for months, until you take it back",
}


@dataclass(frozen=True, slots=True)
class Offer:
    """The scopes a user could grant to a request, each with the words the page shows; the context they are about."""

    choices: tuple[tuple[str, str], ...]
    context: Context

    @property
    def patient(self) -> str | None:
        return self.context.patient

    @property
    def lasting(self) -> bool:
        """Whether one of the scopes lets the app keep its access."""
        return any(scope in scopes.REFRESH for scope, _ in self.choices)

    def chosen(self, words: Collection[str]) -> str:
        """Of the scopes offered, those with a check mark."""
        return " ".join(scope for scope, _ in self.choices if scope in words)

    def context_for(self, scope: str) -> Context:
        """The context that a token with these scopes tells: none to an app that shall not know it."""
        tells = scopes.words(scope).intersection(scopes.LAUNCH) or _about_patient(scope)
        return self.context if tells else Context()


def offer(asked: str, user: User, launch: Launch | None = None, picked: str | None = None) -> Offer:
    """What of the scopes asked (already met with the client's registration) this user has to give.

    launch: of an EHR launch. picked: the `Patient/<id>` that the user chose. `patient/` scopes need a patient in
    context; without one they are dropped.
    """
    context = launch.context if launch is not None else Context(patient=picked or patient_context(user))
    rights = [scopes.Granted(str(right), right) for right in rights_of_user(user, context.patient)]
    words = {*scopes.IDENTITY, *scopes.REFRESH}
    words |= {"launch"} if launch is not None else set()
    words |= {f"launch/{kind}" for kind in _in_context(context)}
    granted = scopes.restrict(scopes.parse(asked), [*rights, *(scopes.Granted(word) for word in sorted(words))])
    return Offer(tuple((str(item), describe(item)) for item in granted), context)


def _in_context(context: Context) -> set[str]:
    """What of `launch/patient` and the like there is to tell; there is a choice of patients, and of nothing else."""
    told = {"patient": context.patient is not None, "encounter": context.encounter is not None}
    told["imagingstudy"] = any(reference.startswith("ImagingStudy/") for reference in context.fhir_context)
    return {kind for kind, there in told.items() if there}


def wants_patient(asked: str, user: User, launch: Launch | None) -> bool:
    """Whether the user has to choose a patient before there is something to agree to."""
    may_choose = bool(user.roles & SEE_PATIENTS) and patient_context(user) is None
    if not may_choose or (launch is not None and launch.context.patient is not None):
        return False
    return "launch/patient" in scopes.words(asked) or _about_patient(asked)


def describe(item: scopes.Granted) -> str:
    """One scope in plain words, e.g. `Read and search Task (all you may see yourself)`."""
    if item.scope is None:
        return _WORDS[item.word]
    verbs = [_LETTER_WORDS[letter] for letter in item.scope.letters]
    doing = verbs[0] if len(verbs) == 1 else f"{', '.join(verbs[:-1])} and {verbs[-1]}"
    what = "all kinds of records" if item.scope.resource_type == "*" else item.scope.resource_type
    which = " and ".join(map(_condition, item.scope.clauses))
    return f"{doing.capitalize()} {what}{f' whose {which}' if which else ''} ({_WHOSE[item.scope.context]})"


def _condition(clause: Clause) -> str:
    """One parameter of a scope in words, e.g. `category is laboratory (http://acme.example/categories)`."""
    ((name, written),) = parse_qsl(clause.text, keep_blank_values=True)
    values = [[unescape(part) for part in split(value, "|")] for value in split(written, ",")]
    told = [_token(*value) if len(value) == 2 else "|".join(value) for value in values]
    return f"{_PARAMETERS.get(name, name.replace('-', ' '))} is {' or '.join(told)}"


def _token(system: str, code: str) -> str:
    if not code:
        return f"any code of {system}"
    return f"{code} ({system})" if system else code


def _about_patient(scope: str) -> bool:
    return any(one.context == "patient" for one in scopes.resource_scopes(scopes.parse(scope)))
