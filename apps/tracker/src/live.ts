// News by websocket: the server keeps Subscriptions for this user and binds the socket to them. They say that there is
// news and nothing more; what is shown is then fetched anew.

import { Refusal, type Server } from "./session";

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;
const SETTLE_MS = 150; // several events of one commit are one fetch
const PING_MS = 25_000;

export type State = "connecting" | "live" | "ended";

export class Live {
  private pause = FIRST_PAUSE_MS;
  private settle: ReturnType<typeof setTimeout> | undefined;
  private socket: WebSocket | undefined;
  private stopped = false;

  constructor(
    private readonly server: Server,
    private readonly news: () => void,
    private readonly show: (state: State) => void,
  ) {}

  /** For good. */
  stop(): void {
    this.stopped = true;
    clearTimeout(this.settle);
    this.socket?.close();
    this.show("ended");
  }

  async connect(): Promise<void> {
    if (this.stopped) return;
    this.show("connecting");
    let binding: { url: string; token: string };
    try {
      binding = await this.server.post("/live");
    } catch (refusal) {
      if (refusal instanceof Refusal && (refusal.status === 401 || refusal.status === 403)) this.show("ended");
      else this.later();
      return;
    }
    if (this.stopped) return; // while it was asked for
    const socket = new WebSocket(binding.url);
    this.socket = socket;
    let answered = true;
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
    socket.addEventListener("message", (message: MessageEvent<string>) => {
      answered = true;
      const kind = kindOf(message.data);
      if (kind === "handshake") {
        this.pause = FIRST_PAUSE_MS;
        this.show("live");
      }
      if (kind === "handshake" || kind === "event-notification") this.soon(); // also what came before the binding
    });
    socket.addEventListener("close", () => {
      clearInterval(heartbeat);
      this.later();
    });
  }

  private later(): void {
    if (this.stopped) return;
    this.show("connecting");
    setTimeout(() => void this.connect(), this.pause * (0.5 + Math.random() / 2));
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE_MS);
  }

  private soon(): void {
    clearTimeout(this.settle);
    this.settle = setTimeout(this.news, SETTLE_MS);
  }
}

interface Notification {
  resourceType?: string;
  entry?: { resource?: { parameter?: { name: string; valueCode?: string }[] } }[];
}

/** The type of a notification (handshake, event-notification ...). */
function kindOf(data: string): string | undefined {
  const message = JSON.parse(data) as Notification;
  return message.entry?.[0]?.resource?.parameter?.find((one) => one.name === "type")?.valueCode;
}
