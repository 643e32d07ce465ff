"""From the answer to a write until its event arrives at a listener."""

import time

from radloop import practice
from radloop.demo.oauth import BackendToken
from radloop.demo.players import OFFICE, Ehr
from radloop.demo.receivers import HookListener
from radloop.demo.stage import Caller, wait_for
from radloop.settings import Settings


def event_latencies(settings: Settings, credentials: dict, count: int) -> list[float]:
    """Milliseconds for `count` events of one rest-hook Subscription, one after the other."""
    client = credentials["clients"]["demo-ehr"]
    token = BackendToken(settings.origin, client["client_id"], client["key"], client["scope"])
    listener = HookListener()
    ehr = Ehr(Caller(settings.fhir_base, token), listener.endpoint, listener.secret)
    subscription = ehr.subscribe("referral-order", f"ServiceRequest?requester={OFFICE}")
    wait_for("handshake", lambda: subscription in listener.inbox.handshakes)
    patient = ehr.caller.create({k: v for k, v in practice.patients()[2].items() if k != "id"})
    times = []
    for number in range(1, count + 1):
        order = {
            "resourceType": "ServiceRequest",
            "status": "draft",
            "intent": "order",
            "subject": {"reference": f"Patient/{patient['id']}"},
            "requester": {"reference": OFFICE},
        }
        ehr.caller.create(order)
        answered = time.perf_counter()
        while len(listener.inbox.foci(subscription)) < number:
            time.sleep(0.0005)
            if time.perf_counter() - answered > 30:
                raise RuntimeError("an event did not arrive within 30 s")
        times.append((time.perf_counter() - answered) * 1000)
    listener.close()
    return times
