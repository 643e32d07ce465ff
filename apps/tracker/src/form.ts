// The referral form, filled from the EHR as far as that goes.

import { h, p } from "./dom";
import { Refusal, type Server } from "./session";

interface Prefill {
  fields: Record<string, string>;
  missing: string[];
}

const NAMES: Record<string, string> = {
  patient: "the patient", order: "the exam", reason: "a reason", insurance: "the insurance",
};
const PATIENT: [string, string, string][] = [
  ["family", "Family name", "text"], ["given", "Given name", "text"], ["birthdate", "Date of birth", "date"],
];

export async function formView(server: Server, sent: (id: string) => void): Promise<HTMLElement> {
  const { session } = server;
  const prefill = await server.get<Prefill>("/tracker/prefill");
  const { fields } = prefill;
  const banner = session.banner && fields.family
    ? h("p", { class: "banner" }, h("strong", {}, `${fields.family}, ${fields.given ?? ""}`), ` ${fields.birthdate ?? ""}`)
    : null;
  const faults = h("div", { role: "alert" });
  const button = h("button", { type: "submit" }, "Send the referral");
  const form = h(
    "form", { novalidate: true },
    h("fieldset", {}, h("legend", {}, "Patient"),
      ...PATIENT.map(([name, words, kind]) => input(name, words, fields, kind)),
      choice("gender", "Sex", session.genders, fields),
      input("phone", "Phone", fields, "tel")),
    h("fieldset", {}, h("legend", {}, "Exam"),
      input("exam", "Exam, with side and contrast", fields),
      input("reason", "Reason in words: what is the question?", fields, "area"),
      choice("priority", "Priority", session.priorities, fields)),
    h("fieldset", {}, h("legend", {}, "Insurance (may stay empty)"),
      input("payer", "Who pays", fields, "text", false),
      input("insured", "Number of the insured person", fields, "text", false)),
    faults, button,
  );
  let { once } = session;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void send();
  });

  async function send(): Promise<void> {
    button.disabled = true;
    clear(form, faults);
    const values = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, String(value)]));
    try {
      const answer = await server.post<{ id: string; once: string }>("/tracker/refer", { ...values, once });
      once = session.once = answer.once;
      sent(answer.id);
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      faults.append(p(refusal.message, "problem"));
      mark(form, refusal.faults);
    } finally {
      button.disabled = false;
    }
  }

  const missing = prefill.missing.map((name) => NAMES[name] ?? name);
  return h("section", {},
    h("h1", { tabindex: "-1" }, "New referral"), banner,
    missing.length ? p(`${session.ehr} did not give ${missing.join(", ")}; please fill in what is needed.`, "quiet") : null,
    form);
}

function input(name: string, words: string, fields: Record<string, string>, kind = "text", required = true): HTMLElement {
  const more = { id: name, name, required, autocomplete: "off", "aria-describedby": `${name}-fault` };
  const field = kind === "area" ? h("textarea", { ...more, rows: "3" }) : h("input", { ...more, type: kind });
  field.value = fields[name] ?? "";
  return h("div", { class: "field" }, h("label", { for: name }, words), field, h("p", { id: `${name}-fault`, class: "problem" }));
}

function choice(name: string, words: string, options: Record<string, string>, fields: Record<string, string>): HTMLElement {
  const field = h("select", { id: name, name, required: true, "aria-describedby": `${name}-fault` },
    h("option", { value: "" }, "Please choose"),
    ...Object.entries(options).map(([value, text]) => h("option", { value }, text)));
  field.value = fields[name] ?? "";
  if (field.selectedIndex < 0) field.value = "";
  return h("div", { class: "field" }, h("label", { for: name }, words), field, h("p", { id: `${name}-fault`, class: "problem" }));
}

function clear(form: HTMLFormElement, faults: HTMLElement): void {
  faults.replaceChildren();
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  for (const told of form.querySelectorAll(".field .problem")) told.textContent = "";
}

function mark(form: HTMLFormElement, faults: Record<string, string>): void {
  let first: HTMLElement | null = null;
  for (const field of form.querySelectorAll<HTMLInputElement>("input, select, textarea")) {
    const fault = faults[field.name];
    if (!fault) continue;
    field.setAttribute("aria-invalid", "true");
    const told = document.getElementById(`${field.name}-fault`);
    if (told) told.textContent = fault;
    first ??= field;
  }
  first?.focus();
}
