"""Receives notifications by rest-hook and prints their events. Needs Python 3.11 and nothing else.

    HOOK_SECRET=a-secret-of-yours python receive.py 8090

Its `channel.header` is then `Authorization: Bearer a-secret-of-yours`. Put https before it by a proxy.
"""

import hmac
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = f"Bearer {os.environ['HOOK_SECRET']}"
seen = {}  # last event number by Subscription; keep it where it outlives the program


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not hmac.compare_digest(self.headers.get("Authorization", ""), SECRET):
            self.send_error(401)
            return
        for subscription, number, focus in events(json.loads(body)):
            if number > seen.get(subscription, 0):  # the same number again is the same event again
                seen[subscription] = number
                print(number, focus, flush=True)
        self.send_response(200)  # only now: what is not answered 2xx comes again
        self.send_header("Content-Length", "0")
        self.end_headers()


def events(bundle):
    said = bundle["entry"][0]["resource"]["parameter"]
    subscription = next(one["valueReference"]["reference"] for one in said if one["name"] == "subscription")
    for parameter in said:
        if parameter["name"] == "notification-event":
            part = {one["name"]: one for one in parameter["part"]}
            focus = part.get("focus", {}).get("valueReference", {}).get("reference")
            yield subscription, int(part["event-number"]["valueString"]), focus


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Hook)
print(f"listening at http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
