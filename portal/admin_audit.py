"""What administrators do to log-ins and programs, as the audit trail tells it."""

from smart_auth.audit import CLIENT, USER, Audited

ENDPOINTS = {
    "portal.end_user": Audited(USER, "log-in of {name} ended", ends=True),
    "portal.begin_user": Audited(USER, "log-in of {name} begun again"),
    "portal.end_second_factor": Audited(USER, "second factor of {name} taken away"),
    "portal.password_link": Audited(USER, "link for a new password of {name} made"),
    "portal.new_client": Audited(CLIENT, "program {client_id} registered"),
    "portal.change_client": Audited(CLIENT, "program {client_id}: {move}"),
    "portal.registration_token": Audited(CLIENT, "token made, by which programs register themselves"),
}
