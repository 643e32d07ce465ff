// @medplum/core's SubscriptionManager against a server of ours: subscribes to the criteria given, and prints what it
// hears, one JSON line each. Its addresses begin with fhir/R4; the fetch that it is given knows ours.
const { MedplumClient, SubscriptionManager } = require("@medplum/core");

globalThis.WebSocket = require("ws");
const [base, live, criteria] = process.argv.slice(2);
const medplum = new MedplumClient({
  baseUrl: base,
  fetch: (url, options) => fetch(String(url).replace("/fhir/R4/", "/fhir/"), options),
});
medplum.getProfile = () => ({ resourceType: "Practitioner", id: "somebody" }); // nobody logs in here
const manager = new SubscriptionManager(medplum, live);
const say = (event) => console.log(JSON.stringify({ type: event.type, payload: event.payload }));
const heard = manager.addCriteria(criteria);
for (const type of ["connect", "message", "error"]) heard.addEventListener(type, say);
manager.getMasterEmitter().addEventListener("heartbeat", say);
