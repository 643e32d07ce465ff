// Prints the events of a topic as they come by websocket. Needs Node 20 and nothing else (22 without the flag).
//
//   FHIR_SERVER=https://radiology.example/fhir FHIR_TOKEN=... \
//     node --experimental-websocket follow.mjs referral-status 'Task?status=accepted'

const { FHIR_SERVER, FHIR_TOKEN } = process.env;
const TOPICS = "https://radloop.example/fhir/SubscriptionTopic";
const BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition";

async function call(method, path, body) {
  const headers = { Authorization: `Bearer ${FHIR_TOKEN}`, "Content-Type": "application/fhir+json" };
  const answer = await fetch(`${FHIR_SERVER}/${path}`, { method, headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

async function subscribe(topic, search) {
  const extension = (name, value) => ({ extension: [{ url: `${BACKPORT}/${name}`, ...value }] });
  const made = await call("POST", "Subscription", {
    resourceType: "Subscription",
    meta: { profile: [`${BACKPORT}/backport-subscription`] },
    status: "requested",
    reason: "to try it out",
    criteria: `${TOPICS}/${topic}`,
    _criteria: extension("backport-filter-criteria", { valueString: search }),
    channel: {
      type: "websocket",
      payload: "application/fhir+json",
      _payload: extension("backport-payload-content", { valueCode: "id-only" }),
    },
  });
  return made.id;
}

function* events(bundle) {
  for (const { name, part } of bundle.entry[0].resource.parameter) {
    if (name !== "notification-event") continue;
    const said = Object.fromEntries(part.map((one) => [one.name, one]));
    yield [Number(said["event-number"].valueString), said.focus?.valueReference.reference];
  }
}

const id = await subscribe(...process.argv.slice(2, 4));
let last = 0;
for (;;) { // a token lives for 30 minutes, a connection as long as the network
  const { parameter } = await call("GET", `Subscription/${id}/$get-ws-binding-token`);
  const said = Object.fromEntries(parameter.map((one) => [one.name, one]));
  const socket = new WebSocket(said["websocket-url"].valueUrl);
  socket.onopen = () =>
    socket.send(JSON.stringify({ type: "bind-with-token", payload: { token: said.token.valueString } }));
  socket.onmessage = ({ data }) => {
    for (const [number, focus] of events(JSON.parse(data))) {
      if (number <= last) continue; // the same number again is the same event again
      last = number;
      console.log(number, focus);
    }
  };
  await new Promise((resolve) => (socket.onclose = resolve));
}
