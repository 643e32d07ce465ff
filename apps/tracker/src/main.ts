// Our app inside an EHR: a referral filled from the chart, my referrals, and each one as it moves.

import "./style.css";
import { h, p } from "./dom";
import { formView } from "./form";
import { Live, type State } from "./live";
import { listView, oneView } from "./referrals";
import { readSession, Refusal, Server } from "./session";

type View = { name: "form" } | { name: "list" } | { name: "one"; id: string };

const LIVE_WORDS: Record<State, string> = {
  connecting: "Connecting …",
  live: "Live",
  ended: "This session has ended. Please open the app again from your EHR.",
};

const session = readSession();
const server = new Server(session);
const main = document.querySelector("main")!;
const live = h("p", { id: "live", role: "status" });
const news = h("p", { id: "news", role: "status", class: "apart" });
const tabs = {
  form: h("button", { type: "button", click: () => void go({ name: "form" }) }, "New referral"),
  list: h("button", { type: "button", click: () => void go({ name: "list" }) }, "My referrals"),
};
const end = h("button", { type: "button", class: "other", click: () => void finish() }, "End");
let view: View = { name: "form" };
let turn = 0; // of two fetches at once, the later one is shown

dress();
main.before(h("header", {}, h("nav", { "aria-label": "Views" }, tabs.form, tabs.list), live, end, news));
const hearing = new Live(server, () => void refresh(), (state) => {
  live.dataset.state = state;
  live.textContent = LIVE_WORDS[state];
});
void go(view);
void hearing.connect();

/** Nobody who sits down at this screen later shall read on. */
async function finish(): Promise<void> {
  turn++;
  hearing.stop();
  main.replaceChildren(h("h1", { tabindex: "-1" }, "Goodbye"), p("To come back, open the app again from your EHR."));
  for (const button of [tabs.form, tabs.list, end]) button.remove();
  main.querySelector("h1")?.focus();
  try {
    await server.post("/tracker/end");
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
    // It had ended already, or ends by itself within the hour.
  }
}

let arriving = false; // at a view whose heading has not had the focus yet

async function go(to: View): Promise<void> {
  view = to;
  tabs.form.setAttribute("aria-current", String(to.name === "form"));
  tabs.list.setAttribute("aria-current", String(to.name === "list"));
  arriving = true;
  if (await render()) arrive();
}

/** The heading gets the focus once its view is there, whoever fetched it: news may have come in between. */
function arrive(): void {
  arriving = false;
  scrollTo(0, 0);
  main.querySelector<HTMLElement>("h1")?.focus({ preventScroll: true });
}

/** There is news: what is shown is fetched anew, but for a form that somebody fills in. */
async function refresh(): Promise<void> {
  if (view.name === "form") return;
  const focused = document.activeElement?.id;
  const onHeading = document.activeElement?.tagName === "H1";
  const words = main.querySelector(".words")?.textContent;
  const at = scrollY;
  if (!(await render())) return;
  if (arriving || onHeading) arrive();
  scrollTo(0, at);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  const now = main.querySelector(".words")?.textContent ?? "";
  if (view.name === "one" && now !== words) news.textContent = now;
}

async function render(): Promise<boolean> {
  const mine = ++turn;
  let shown: HTMLElement;
  try {
    shown = await built(view);
  } catch (refusal) {
    const text = refusal instanceof Refusal ? refusal.message : "This did not work. Please try again.";
    shown = h("section", {}, h("h1", { tabindex: "-1" }, "That did not work"), h("p", { role: "alert" }, text),
      session.phone ? p(`The practice: ${session.phone}`) : null);
  }
  if (mine !== turn) return false;
  for (const picture of main.querySelectorAll("img")) URL.revokeObjectURL(picture.src);
  main.replaceChildren(shown);
  return true;
}

function built(wanted: View): Promise<HTMLElement> {
  if (wanted.name === "form") return formView(server, (id) => void go({ name: "one", id }));
  if (wanted.name === "list") return listView(server, (id) => void go({ name: "one", id }));
  return oneView(server, wanted.id);
}

/** The colours that the EHR asks for; the server let through only those that can be read. */
function dress(): void {
  const { page, text, accent } = session.colours;
  if (!page || !text || !accent) return;
  const style = document.documentElement.style;
  const colours = { page, surface: page, text, muted: text, accent, "on-accent": page };
  for (const [name, value] of Object.entries(colours)) style.setProperty(`--${name}`, value);
  style.setProperty("color-scheme", "light");
}
