"""What a proof over the whole store finds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """subject: what it is about, such as the reference of a resource. No patient data in either."""

    subject: str
    text: str
