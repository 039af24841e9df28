// The WebSocket to the server, and its return after it was lost.
//
// Speaks the documented Gryt envelope: text frames {"event": "...", "data": {...}}.
// Knows nothing of rooms or media: it hands events over and says when it is up or down.

const BACKOFF_MS = [500, 1000, 2000, 3000, 5000];
const CONNECT_TIMEOUT_MS = 10_000;

/** The close code of a server without free seats. */
export const CLOSE_FULL = 1013;

export class Signaling {
  #url;
  #handlers;
  #socket = null;
  #attempt = 0;
  #timer = 0;
  #stopped = true;
  #hurry = () => {
    if (document.visibilityState !== 'hidden') this.retryNow();
  };

  /** `handlers`: onUp(), onEvent(name, data), onDown({ code, delayMs }). */
  constructor(url, handlers) {
    this.#url = url;
    this.#handlers = handlers;
  }

  /** Connects, and stays connected until `stop`. */
  start() {
    this.#stopped = false;
    // A laptop that wakes or a phone that finds its network need not wait for the timer.
    window.addEventListener('online', this.#hurry);
    document.addEventListener('visibilitychange', this.#hurry);
    this.#connect();
  }

  /** Ends the connection for good. */
  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    window.removeEventListener('online', this.#hurry);
    document.removeEventListener('visibilitychange', this.#hurry);
    this.#drop();
  }

  /** Gives the present connection up and makes a new one. */
  restart() {
    if (this.#stopped) return;
    this.#drop();
    this.#schedule(0);
  }

  /** Ends the wait before the next attempt. */
  retryNow() {
    if (this.#stopped || this.#socket) return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  /** The server took us in: the next loss starts with the shortest wait again. */
  settled() {
    this.#attempt = 0;
  }

  /** Sends an event; dropped while the connection is down, since a new join starts from nothing. */
  send(event, data = {}) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ event, data }));
  }

  #connect() {
    const socket = new WebSocket(this.#url);
    const timeout = setTimeout(() => socket.close(), CONNECT_TIMEOUT_MS);
    this.#socket = socket;
    socket.onopen = () => {
      clearTimeout(timeout);
      this.#handlers.onUp();
    };
    socket.onmessage = ({ data }) => {
      if (this.#socket === socket) this.#receive(data);
    };
    socket.onclose = ({ code }) => {
      clearTimeout(timeout);
      if (this.#socket !== socket) return;
      this.#socket = null;
      if (!this.#stopped) this.#schedule(code);
    };
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  #schedule(code) {
    const base = BACKOFF_MS[Math.min(this.#attempt, BACKOFF_MS.length - 1)];
    // Spread over time, so that a restarted server does not meet all its clients in one instant.
    const delayMs = Math.round(base * (0.75 + Math.random() / 2));
    this.#attempt += 1;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), delayMs);
    this.#handlers.onDown({ code, delayMs });
  }

  #receive(frame) {
    let message;
    try {
      message = JSON.parse(frame);
      if (typeof message.data === 'string' && message.data) message.data = JSON.parse(message.data);
    } catch {
      if (!message?.event) return; // not ours; plain-text data stays the string it is
    }
    this.#handlers.onEvent(message.event, message.data ?? {});
  }
}
