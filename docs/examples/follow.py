"""Prints the events of a topic as they come by websocket. Needs Python 3.11, `pip install requests websockets`.

FHIR_SERVER=https://radiology.example/fhir FHIR_TOKEN=... python follow.py referral-status 'Task?status=accepted'
"""

import json
import os
import sys

import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

SERVER = os.environ["FHIR_SERVER"]
TOPICS = "https://radloop.example/fhir/SubscriptionTopic"
BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"


def call(method, path, body=None):
    headers = {"Authorization": f"Bearer {os.environ['FHIR_TOKEN']}", "Content-Type": "application/fhir+json"}
    answer = requests.request(method, f"{SERVER}/{path}", json=body, headers=headers, timeout=30)
    if not answer.ok:
        sys.exit(f"{method} {path}: {answer.status_code} {answer.text}")
    return answer.json()


def subscribe(topic, search):
    level = {"url": f"{BACKPORT}/backport-payload-content", "valueCode": "id-only"}
    return call(
        "POST",
        "Subscription",
        {
            "resourceType": "Subscription",
            "meta": {"profile": [f"{BACKPORT}/backport-subscription"]},
            "status": "requested",
            "reason": "to try it out",
            "criteria": f"{TOPICS}/{topic}",
            "_criteria": {"extension": [{"url": f"{BACKPORT}/backport-filter-criteria", "valueString": search}]},
            "channel": {
                "type": "websocket",
                "payload": "application/fhir+json",
                "_payload": {"extension": [level]},
            },
        },
    )["id"]


def events(bundle):
    """(number, focus) of each event that a notification tells."""
    for parameter in bundle["entry"][0]["resource"]["parameter"]:
        if parameter["name"] == "notification-event":
            part = {one["name"]: one for one in parameter["part"]}
            focus = part.get("focus", {}).get("valueReference", {}).get("reference")
            yield int(part["event-number"]["valueString"]), focus


def main():
    id, last = subscribe(*sys.argv[1:3]), 0
    while True:  # a token lives for 30 minutes, a connection as long as the network
        parameters = call("GET", f"Subscription/{id}/$get-ws-binding-token")["parameter"]
        said = {one["name"]: one for one in parameters}
        try:
            with connect(said["websocket-url"]["valueUrl"], max_size=None) as socket:
                token = said["token"]["valueString"]
                socket.send(json.dumps({"type": "bind-with-token", "payload": {"token": token}}))
                for message in socket:
                    for number, focus in events(json.loads(message)):
                        if number > last:  # the same number again is the same event again
                            last = number
                            print(number, focus, flush=True)
        except ConnectionClosed as end:
            print(f"closed: {end}", file=sys.stderr)


main()
