// What the pages of publishers and viewers share: the session's life and the words for it.
//
// Fires 'change'. `state`: 'idle', 'connecting', 'live', 'interrupted', 'waiting' (for the next try); `text` says it for
// people, `tone` is 'busy', 'good' or 'bad'.

import { HttpSession } from './http_session.js';

const RETRY_MS = [1000, 2000, 4000, 8000];
const RESTART_MS = 1500; // an interrupted connection often comes back by itself

export const byId = (id) => document.getElementById(id);

export class Broadcast extends EventTarget {
  #open;
  #endpoint;
  #token;
  #tries = 0;
  #timer = 0;

  pc = null;
  session = null;
  state = 'idle';
  text = '';
  tone = 'busy';

  /** `open(pc)` puts tracks on a new connection; `opened(session)`, when it is there, is told of the session. */
  constructor({ open, opened = async () => {} }) {
    super();
    this.#open = open;
    this.opened = opened;
    addEventListener('pagehide', () => this.session?.end());
    addEventListener('online', () => this.#again(0));
  }

  start(endpoint, token) {
    this.#endpoint = endpoint;
    this.#token = token;
    this.#tries = 0;
    return this.#connect();
  }

  /** Begins anew, maybe elsewhere. */
  reconnect(endpoint = this.#endpoint) {
    this.#close();
    return this.start(endpoint, this.#token);
  }

  async stop(text = '') {
    this.#close();
    this.#set('idle', text, text ? 'bad' : 'busy');
  }

  async #connect() {
    clearTimeout(this.#timer);
    this.#set('connecting', 'Connecting …', 'busy');
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    const session = new HttpSession(pc, this.#token);
    [this.pc, this.session] = [pc, session];
    pc.addEventListener('connectionstatechange', () => this.pc === pc && this.#turned(pc));
    try {
      this.#open(pc);
      await session.begin(this.#endpoint);
      if (this.pc !== pc) return session.end();
      return await this.opened(session);
    } catch (error) {
      if (this.pc !== pc) return undefined;
      this.#close();
      // What another try does not change is for the person to change.
      const isFinal = error.status >= 400 && error.status < 500 && !error.retryAfterMs;
      if (isFinal || error.status === undefined) return this.#set('idle', error.message, 'bad');
      return this.#later(error.message, error.retryAfterMs);
    }
  }

  #turned(pc) {
    if (pc.connectionState === 'connected') {
      this.#tries = 0;
      clearTimeout(this.#timer);
      this.#set('live', 'Live', 'good');
    } else if (pc.connectionState === 'disconnected') {
      this.#set('interrupted', 'Interrupted. Looking for another way …', 'busy');
      this.#timer = setTimeout(() => this.#restart(pc), RESTART_MS);
    } else if (pc.connectionState === 'failed' || pc.connectionState === 'closed') {
      this.#close();
      this.#later('The connection is lost.');
    }
  }

  async #restart(pc) {
    try {
      if (this.pc === pc) await this.session.restart();
    } catch (error) {
      // 404: the server has given the session up. Everything else may come right by itself, or fails in a moment.
      if (this.pc === pc && error.status === 404) this.reconnect();
    }
  }

  #later(why, wishedMs) {
    const waitMs = wishedMs ?? RETRY_MS[Math.min(this.#tries, RETRY_MS.length - 1)];
    this.#tries += 1;
    this.#set('waiting', `${why} Trying again in ${Math.round(waitMs / 1000)} s.`, 'bad');
    this.#again(waitMs);
  }

  #again(waitMs) {
    if (this.state !== 'waiting') return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), waitMs);
  }

  #close() {
    clearTimeout(this.#timer);
    this.session?.end();
    this.pc?.close();
    [this.pc, this.session] = [null, null];
  }

  #set(state, text, tone) {
    Object.assign(this, { state, text, tone });
    this.dispatchEvent(new Event('change'));
  }
}

/** What the address asks for: `?room=`, `#token=` (out of logs), `autostart=1` and so on. */
export function settings() {
  const params = new URLSearchParams(location.search);
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) params.set(key, value);
  return params;
}

/** The address of another page for this room. */
export function pageFor(name, room) {
  const url = new URL(name, location.href);
  url.search = room ? new URLSearchParams({ room }) : '';
  url.hash = '';
  return url.href;
}

/** `/whip/…` or `/whep/…` of this server. */
export function endpointFor(kind, room) {
  return new URL(`../${kind}/${encodeURIComponent(room)}`, location.href).href;
}

/** The state beside the name of the room. */
export function drawStatus(broadcast) {
  byId('status').dataset.tone = broadcast.tone;
  if (byId('status-text').textContent !== broadcast.text) byId('status-text').textContent = broadcast.text;
}

/** Copies a link and says so on the button for a moment. */
export async function copyTo(button, link) {
  const word = button.textContent;
  try {
    await navigator.clipboard.writeText(link);
    button.textContent = 'Copied';
  } catch {
    prompt('Copy this link:', link);
  }
  setTimeout(() => {
    button.textContent = word;
  }, 2000);
}
