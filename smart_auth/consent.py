"""What a user can agree to on the consent page, and what they chose. No Flask here."""

from collections.abc import Collection
from dataclasses import dataclass

from smart_auth import scopes
from smart_auth.access import patient_context, rights_of_user
from smart_auth.models import User

_LETTER_WORDS = {"c": "create", "r": "read", "u": "change", "d": "delete", "s": "search"}
_WHOSE = {"user": "all you may see yourself", "patient": "one patient", "system": "the whole system"}
_WORDS = {"openid": "Know that it is you who logged in", "fhirUser": "Know your entry in the directory"}


@dataclass(frozen=True, slots=True)
class Offer:
    """The scopes a user could grant to a request, each with the words the page shows; the patient they are about."""

    choices: tuple[tuple[str, str], ...]
    patient: str | None

    def chosen(self, words: Collection[str]) -> str:
        """Of the scopes offered, those with a check mark."""
        return " ".join(scope for scope, _ in self.choices if scope in words)


def offer(asked: str, user: User) -> Offer:
    """What of the scopes asked (already met with the client's registration) this user has to give.

    `patient/` scopes need a patient in context; without one they are dropped.
    """
    patient = patient_context(user)
    rights = [scopes.Granted(str(right), right) for right in rights_of_user(user, patient)]
    rights += [scopes.Granted(word) for word in scopes.IDENTITY]
    granted = scopes.restrict(scopes.parse(asked), rights)
    return Offer(tuple((str(item), describe(item)) for item in granted), patient)


def describe(item: scopes.Granted) -> str:
    """One scope in plain words, e.g. `Read and search Task (all you may see yourself)`."""
    if item.scope is None:
        return _WORDS[item.word]
    verbs = [_LETTER_WORDS[letter] for letter in item.scope.letters]
    doing = verbs[0] if len(verbs) == 1 else f"{', '.join(verbs[:-1])} and {verbs[-1]}"
    what = "all kinds of records" if item.scope.resource_type == "*" else item.scope.resource_type
    return f"{doing.capitalize()} {what} ({_WHOSE[item.scope.context]})"
