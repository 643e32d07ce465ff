// My referrals, and one of them: its time line from the server's own words, report and images by FHIR and DICOMweb.

import { facts, h, p } from "./dom";
import type { Server } from "./session";

interface Line {
  id: string;
  order: string;
  number: string;
  patient: string;
  birth_date: string;
  exam: string;
  priority: string;
  state: string;
  next_step: string;
  tone: string;
  reason: string;
  sent: string;
  late: boolean;
  appointment: string;
}

interface Entry {
  at: string;
  actor: string;
  what: string;
  text: string;
  reason: string;
  tone: string;
  heard_later: boolean;
}

interface Referral extends Line {
  place: string;
  preparation: string;
  reasons: string[];
  insurance: string[];
  entries: Entry[];
}

interface Bundle<T> {
  entry?: { resource: T; search?: { mode: string } }[];
}

interface Report {
  id: string;
  resourceType: "DiagnosticReport";
  status: string;
  code?: { text?: string };
  conclusion?: string;
}

interface Study {
  id: string;
  resourceType: "ImagingStudy";
  description?: string;
  identifier?: { system?: string; value?: string }[];
  numberOfInstances?: number;
  series?: { uid: string; instance?: { uid: string }[] }[];
}

export async function listView(server: Server, open: (id: string) => void): Promise<HTMLElement> {
  const list = h("ul", { class: "cards" });
  const more = h("button", { type: "button", class: "other", hidden: true }, "Older ones");
  let after: string | null = null;
  async function load(): Promise<void> {
    const query: string = after ? `?after=${encodeURIComponent(after)}` : "";
    const page = await server.get<{ next: string | null; referrals: Line[] }>(`/tracker/referrals${query}`);
    list.append(...page.referrals.map((line) => card(line, open)));
    after = page.next;
    more.hidden = after === null;
  }
  more.addEventListener("click", () => void load());
  await load();
  return h("section", {}, h("h1", { tabindex: "-1" }, "My referrals"),
    list.childElementCount ? list : p("There is none yet."), more);
}

function card(line: Line, open: (id: string) => void): HTMLElement {
  return h("li", { class: `panel ${line.tone}` },
    h("h2", {}, h("button", { type: "button", class: "link", id: `open-${line.id}`, click: () => open(line.id) },
      line.exam || "Exam")),
    p(`${line.patient}, ${line.birth_date}`),
    p(line.state, "words"),
    line.appointment ? p(line.appointment) : null,
    p(`${line.number} · ${line.priority} · sent ${line.sent}`, "quiet"));
}

export async function oneView(server: Server, id: string): Promise<HTMLElement> {
  const referral = await server.get<Referral>(`/tracker/referrals/${encodeURIComponent(id)}`);
  const [reports, studies] = await Promise.all([
    found<Report>(server, `DiagnosticReport?based-on=${referral.order}`),
    found<Study>(server, `ImagingStudy?basedon=${referral.order}&status=available`),
  ]);
  return h("section", {},
    h("h1", { tabindex: "-1" }, referral.exam || "Referral"),
    h("div", { class: `panel ${referral.tone}` },
      p(referral.state, "words"),
      referral.appointment ? h("p", {}, h("strong", {}, referral.appointment), referral.place ? `, ${referral.place}` : "") : null,
      referral.reason ? p(referral.reason) : null,
      referral.preparation ? p(`Preparation: ${referral.preparation}`) : null,
      referral.next_step ? p(`Next: ${referral.next_step}`) : null,
      referral.late ? p("Waiting longer than it should.", "problem") : null),
    ...reports.map(reportPanel),
    ...studies.map((study) => studyPanel(server, study)),
    h("div", { class: "panel" }, h("h2", {}, "The order"), facts([
      ["Number", referral.number],
      ["Patient", server.session.banner ? `${referral.patient}, ${referral.birth_date}` : ""],
      ["Reason", referral.reasons.join("; ")], ["Insurance", referral.insurance.join("; ")],
      ["Priority", referral.priority], ["Sent", referral.sent],
    ])),
    h("div", { class: "panel" }, h("h2", {}, "What happened"), h("ol", { class: "line" }, ...referral.entries.map(entry))));
}

async function found<T extends { resourceType: string }>(server: Server, query: string): Promise<T[]> {
  const bundle = await server.fhir.request<Bundle<T>>(query);
  return (bundle.entry ?? []).filter((one) => one.search?.mode !== "outcome").map((one) => one.resource);
}

function reportPanel(report: Report): HTMLElement {
  return h("div", { class: "panel good" }, h("h2", {}, report.code?.text ?? "Report"), p(report.status, "quiet"),
    h("details", { open: true }, h("summary", {}, "Text"),
      p(report.conclusion ?? "The report has no text of its own here.", "report")));
}

function studyPanel(server: Server, study: Study): HTMLElement {
  const uid = study.identifier?.find((one) => one.system === "urn:dicom:uid")?.value?.replace("urn:oid:", "");
  const shown = h("div", { class: "pictures" });
  const button = h("button", { type: "button", class: "other" }, "Show images");
  button.addEventListener("click", () => void show());

  async function show(): Promise<void> {
    button.disabled = true;
    try {
      for (const [index, series] of (study.series ?? []).entries()) {
        const middle = series.instance?.[Math.floor(series.instance.length / 2)];
        const path = `/dicomweb/studies/${uid}/series/${series.uid}`;
        const address = await server.picture(middle ? `${path}/instances/${middle.uid}/rendered` : `${path}/thumbnail`);
        shown.append(h("img", { src: address, alt: `Series ${index + 1} of ${study.description ?? "the study"}` }));
      }
      button.remove();
    } catch (refusal) {
      shown.replaceChildren(p(refusal instanceof Error ? refusal.message : "The picture did not come.", "problem"));
      button.disabled = false;
    }
  }

  return h("div", { class: "panel" }, h("h2", {}, "Images"),
    p(`${study.description ?? "Study"}: ${study.numberOfInstances ?? 0} images`), uid ? button : null, shown);
}

function entry(told: Entry): HTMLElement {
  return h("li", told.tone ? { class: told.tone } : {},
    p(`${told.at} · ${told.actor}`, "quiet"),
    p(`${told.what}${told.heard_later ? " (heard later)" : ""}`, "what"),
    told.text ? p(told.text) : null,
    told.reason ? p(told.reason) : null);
}
