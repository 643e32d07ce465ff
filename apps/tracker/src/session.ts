// What the server put into the page, and requests with the page's own token. The token stays in this page's memory.

import FHIR from "fhirclient";

export interface Session {
  token: string;
  expires_in: number;
  scope: string;
  fhir: string;
  ehr: string;
  phone: string;
  banner: boolean;
  colours: Record<string, string>;
  priorities: Record<string, string>;
  genders: Record<string, string>;
  once: string;
}

/** A refusal, in words for the person. */
export class Refusal extends Error {
  constructor(readonly status: number, message: string, readonly faults: Record<string, string> = {}) {
    super(message);
  }
}

export type Json = Record<string, unknown>;

const WORDS: Record<number, string> = {
  401: "This session has ended. Please open the app again from your EHR.",
  403: "This is not yours to do.",
  404: "There is nothing here.",
  422: "Please look at the fields that are marked.",
};

export class Server {
  readonly fhir;

  constructor(readonly session: Session) {
    this.fhir = FHIR.client({
      serverUrl: session.fhir,
      tokenResponse: { access_token: session.token, token_type: "Bearer", scope: session.scope },
    });
  }

  get<T>(path: string): Promise<T> {
    return this.ask<T>(path);
  }

  post<T>(path: string, body: Json = {}): Promise<T> {
    return this.ask<T>(path, { method: "POST", body: JSON.stringify(body) });
  }

  /** The picture at an address of ours, as an address that an <img> can show. */
  async picture(path: string): Promise<string> {
    const answer = await fetch(path, { headers: { ...this.bearer(), Accept: "image/jpeg" } });
    if (!answer.ok) throw new Refusal(answer.status, WORDS[answer.status] ?? "The picture did not come.");
    return URL.createObjectURL(await answer.blob());
  }

  private async ask<T>(path: string, options: RequestInit = {}): Promise<T> {
    let answer: Response;
    try {
      answer = await fetch(path, {
        ...options,
        headers: { ...this.bearer(), Accept: "application/json", "Content-Type": "application/json" },
      });
    } catch {
      throw new Refusal(0, "The practice cannot be reached just now. Please try again in a moment.");
    }
    if (answer.ok) return (answer.status === 204 ? undefined : await answer.json()) as T;
    const told = (await answer.json().catch(() => ({}))) as { faults?: Record<string, string> };
    throw new Refusal(answer.status, WORDS[answer.status] ?? "This did not work. Please try again.", told.faults);
  }

  private bearer(): Record<string, string> {
    return { Authorization: `Bearer ${this.session.token}` };
  }
}

export function readSession(): Session {
  const element = document.getElementById("session");
  if (!element?.textContent) throw new Error("the page has no session");
  const session = JSON.parse(element.textContent) as Session;
  element.remove();
  history.replaceState(null, "", location.pathname); // the code is of no more use, and nobody's to see
  return session;
}
