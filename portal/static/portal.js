// Keeps one region of the page up to date: hears by websocket that there is news, fetches the region anew from the
// server, and swaps what changed. What somebody is typing, where the focus is and how far the page is scrolled stay.
// Without this script every page works the same, and shows the news when it is loaded again.

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;
const SETTLE_MS = 150; // several events of one commit are one fetch
const PING_MS = 25_000;
const TICK_MS = 60_000; // time alone makes a referral overdue, without any event
const EXPIRED = 4401;

class LiveRegion {
  constructor(element) {
    this.element = element;
    this.sent = new Map(); // key of an item -> its markup as the server sent it
    this.pause = FIRST_PAUSE_MS;
    this.touched = false;
    this.fetching = false;
    this.again = false;
    this.remember();
    for (const kind of ["pointermove", "pointerdown", "keydown", "wheel"]) {
      document.addEventListener(kind, () => { this.touched = true; }, { passive: true });
    }
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.refresh(); });
    setInterval(() => this.refresh(), TICK_MS);
  }

  // Hearing of news

  async connect() {
    this.show("connecting", "Connecting …");
    let binding;
    try {
      binding = await this.ask();
    } catch {
      this.connectLater();
      return;
    }
    if (binding === null) {
      this.show("off", "Not live: load the page again for news");
      return;
    }
    const socket = new WebSocket(binding.url);
    let answered = true;
    let bound = false;
    const heartbeat = setInterval(() => {
      if (!answered) {
        socket.close();
      } else if (socket.readyState === WebSocket.OPEN) {
        answered = false;
        socket.send(JSON.stringify({ type: "ping" }));
      }
    }, PING_MS);
    socket.addEventListener("open", () => {
      socket.send(JSON.stringify({ type: "bind-with-token", payload: { token: binding.token } }));
    });
    socket.addEventListener("message", (message) => {
      answered = true;
      const kind = kindOf(message.data);
      if (kind === "handshake" && !bound) {
        bound = true;
        this.pause = FIRST_PAUSE_MS;
        this.show("live", "Live");
        this.refreshSoon(); // what happened before the binding was not heard
      } else if (kind === "event-notification") {
        this.refreshSoon();
      }
    });
    socket.addEventListener("close", (closing) => {
      clearInterval(heartbeat);
      if (bound && closing.code === EXPIRED) {
        this.connect();
      } else {
        this.connectLater();
      }
    });
  }

  connectLater() {
    this.show("connecting", "Connection lost, trying again …");
    setTimeout(() => this.connect(), this.pause * (0.5 + Math.random() / 2));
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE_MS);
  }

  // The websocket's address and a token for it; null where this user hears no events.
  async ask() {
    const answer = await fetch(this.element.dataset.live, {
      method: "POST",
      headers: { "X-CSRF-Token": this.element.dataset.csrf, ...this.background() },
    });
    if (answer.status === 401) location.reload(); // logged out: the page that asks to log in
    if (answer.status === 403) return null;
    if (!answer.ok) throw new Error(`no binding: ${answer.status}`);
    return answer.json();
  }

  // Fetching the region

  refreshSoon() {
    clearTimeout(this.settle);
    this.settle = setTimeout(() => this.refresh(), SETTLE_MS);
  }

  async refresh() {
    if (this.fetching) {
      this.again = true;
      return;
    }
    this.fetching = true;
    try {
      const answer = await fetch(this.element.dataset.part, {
        headers: { Accept: "text/html", ...this.background() },
      });
      if (answer.status === 401) location.reload();
      if (answer.ok) this.swap(await answer.text());
    } catch {
      // The server is away for a moment; the socket tells when it is back, and the region is fetched then.
    } finally {
      this.fetching = false;
    }
    if (this.again) {
      this.again = false;
      this.refreshSoon();
    }
  }

  // Nobody touched the page since the last fetch: this one shall not keep the log-in alive.
  background() {
    const headers = this.touched ? {} : { "X-Background": "1" };
    this.touched = false;
    return headers;
  }

  // Swapping

  swap(markup) {
    const fresh = new DOMParser().parseFromString(markup, "text/html").querySelector("[data-region]");
    if (fresh === null) return;
    const focus = new Focus(this.element);
    const anchor = new Anchor(this.element);
    const now = new Map(items(fresh).map((item) => [item.dataset.key, item.outerHTML]));
    const old = new Map(items(this.element).map((item) => [item.dataset.key, item]));
    for (const item of items(fresh)) {
      const key = item.dataset.key;
      const before = old.get(key);
      if (before === undefined) continue;
      if (this.sent.get(key) === now.get(key)) {
        item.replaceWith(before);
      } else if (isEdited(before)) {
        item.replaceWith(before);
        now.set(key, this.sent.get(key)); // compared again at the next fetch
      }
    }
    const news = fresh.dataset.summary;
    this.element.replaceChildren(...fresh.childNodes);
    this.sent = now;
    anchor.restore();
    focus.restore();
    if (news !== this.element.dataset.summary) {
      this.element.dataset.summary = news;
      document.getElementById("news").textContent = news;
    }
  }

  remember() {
    this.sent = new Map(items(this.element).map((item) => [item.dataset.key, item.outerHTML]));
  }

  show(state, text) {
    const shown = document.getElementById("live");
    shown.hidden = false;
    shown.dataset.state = state;
    shown.textContent = text;
  }
}

// Where the focus is, so that it can be put back: on the same control, else on the heading of its list.
class Focus {
  constructor(region) {
    const at = document.activeElement;
    if (!at || !region.contains(at) || at === region) return;
    this.at = at;
    this.id = at.id;
    this.heading = at.closest("section")?.querySelector("h2")?.id;
    if (typeof at.selectionStart === "number") this.selection = [at.selectionStart, at.selectionEnd];
  }

  restore() {
    if (!this.at) return;
    const target = this.at.isConnected ? this.at : document.getElementById(this.id || this.heading) ??
      document.getElementById(this.heading);
    target?.focus({ preventScroll: true });
    if (this.selection && target === this.at) target.setSelectionRange(...this.selection);
  }
}

// The first item in sight stays where it is on the screen, whatever comes or goes above it.
class Anchor {
  constructor(region) {
    const seen = items(region).find((item) => item.getBoundingClientRect().bottom > 0);
    if (!seen || scrollY === 0) return;
    this.key = seen.dataset.key;
    this.top = seen.getBoundingClientRect().top;
    this.region = region;
  }

  restore() {
    const item = this.key && items(this.region).find((one) => one.dataset.key === this.key);
    if (item) scrollBy(0, item.getBoundingClientRect().top - this.top);
  }
}

function items(region) {
  return [...region.querySelectorAll("[data-key]")];
}

// Whether somebody has opened something in the item, or has filled in a field of it.
function isEdited(item) {
  if (item.querySelector("details[open]")) return true;
  return [...item.querySelectorAll("input, textarea")].some((field) => field.value !== field.defaultValue);
}

// The type of a notification (handshake, event-notification ...); null for any other message.
function kindOf(data) {
  const message = JSON.parse(data);
  const status = message.resourceType === "Bundle" ? message.entry?.[0]?.resource : null;
  return status?.parameter?.find((parameter) => parameter.name === "type")?.valueCode ?? null;
}

const region = document.querySelector("[data-live]");
if (region) new LiveRegion(region).connect();
