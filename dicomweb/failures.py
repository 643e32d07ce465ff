"""Why one instance of a STOW request was not stored. PS3.18 Table I.2-2, with PS3.7 Annex C for duplicates."""

OUT_OF_RESOURCES = 0xA700
NOT_THIS_SOP_CLASS = 0xA900  # the data set lacks what every composite instance has
OTHER_STUDY = 0xA901  # A9xx as well: it belongs to another study than the address names
CANNOT_UNDERSTAND = 0xC000
SYNTAX_NOT_SUPPORTED = 0xC122
SOP_CLASS_NOT_SUPPORTED = 0x0122
PROCESSING = 0x0110  # the request itself does not hold what is needed
# Warning Reason (0008,1196): stored, but not all is told as it was sent. PS3.18 table I.2-1.
COERCED = 0xB000
# "Duplicate SOP Instance" (PS3.7 C.5.4): this SOP Instance UID is stored already, with other bytes. The stored
# object stays as it is: a UID names one object for ever (PS3.5 section 9), and whoever saw the first one must find
# it again. The same bytes sent again are a success.
DUPLICATE_SOP_INSTANCE = 0x0111


class StoreFailure(Exception):
    """This instance is not stored. reason: Failure Reason (0008,1197); the text carries no patient data."""

    def __init__(self, reason: int, text: str, sop_class: str | None = None, sop_instance: str | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.sop_class = sop_class
        self.sop_instance = sop_instance


def cannot_understand(text: str) -> StoreFailure:
    return StoreFailure(CANNOT_UNDERSTAND, text)


def no_room() -> StoreFailure:
    return StoreFailure(OUT_OF_RESOURCES, "there is no room to store this instance")
