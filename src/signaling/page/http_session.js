// One WHIP or WHEP session (RFC 9725, draft-ietf-wish-whep): an offer by POST, ICE restarts by PATCH, the end by DELETE.
//
// Candidates need not trickle: the server is ICE-lite and learns our addresses from our checks.

const SDP = 'application/sdp';
const FRAGMENT = 'application/trickle-ice-sdpfrag';
const EXTENSION = 'urn:ietf:params:whep:ext:core:';

/** A request that was refused, in words for people. `retryAfterMs` where the server said when to come again. */
export class Refusal extends Error {
  constructor(status, sentence, retryAfterMs) {
    super(sentence);
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }
}

export class HttpSession {
  #pc;
  #token;
  #url = null;
  #tag = null;
  #links = [];

  constructor(pc, token) {
    this.#pc = pc;
    this.#token = token;
  }

  /** Offers what the connection has and takes the answer. */
  async begin(endpoint) {
    await this.#pc.setLocalDescription(await this.#pc.createOffer());
    const response = await this.#ask(endpoint, { method: 'POST', headers: { 'Content-Type': SDP }, body: this.#pc.localDescription.sdp });
    this.#url = new URL(response.headers.get('Location'), response.url).href;
    this.#tag = response.headers.get('ETag');
    this.#links = parseLinks(response.headers.get('Link') ?? '', response.url);
    await this.#pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });
  }

  /** Finds the way anew after the network changed; media goes on over the old one as long as that lives. */
  async restart() {
    const answer = this.#pc.remoteDescription.sdp;
    await this.#pc.setLocalDescription(await this.#pc.createOffer({ iceRestart: true }));
    const { sdp } = this.#pc.localDescription;
    const first = sdp.slice(sdp.indexOf('\nm=') + 1);
    const body = [/^m=.*$/m, /^a=mid:.*$/m, /^a=ice-ufrag:.*$/m, /^a=ice-pwd:.*$/m].map((line) => line.exec(first)[0]).join('\r\n');
    const headers = { 'Content-Type': FRAGMENT, 'If-Match': '"*"' };
    try {
      const response = await this.#ask(this.#url, { method: 'PATCH', headers, body: `${body}\r\n` });
      this.#tag = response.headers.get('ETag') ?? this.#tag;
      await this.#pc.setRemoteDescription({ type: 'answer', sdp: restarted(answer, await response.text()) });
    } catch (error) {
      // The connection is as it was before.
      if (this.#pc.signalingState === 'have-local-offer') await this.#pc.setLocalDescription({ type: 'rollback' });
      throw error;
    }
  }

  /** Asks for a layer of a picture (WHEP): { mediaId, rid, maxSpatialLayerId, … }; only mediaId leaves it to the server. */
  async choose(layer) {
    await this.#ask(this.#link('layer'), { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(layer) });
  }

  /** The events of a WHEP session as an EventSource. */
  async events(names) {
    const headers = { 'Content-Type': 'application/json' };
    const response = await this.#ask(this.#link('server-sent-events'), { method: 'POST', headers, body: JSON.stringify(names) });
    return new EventSource(new URL(response.headers.get('Location'), response.url));
  }

  /** Ends the session; also while the page goes away. */
  async end() {
    if (this.#url) await this.#ask(this.#url, { method: 'DELETE', keepalive: true }).catch(() => {});
    this.#url = null;
  }

  #link(name) {
    return this.#links.find(({ rel }) => rel === EXTENSION + name)?.url;
  }

  async #ask(url, { headers = {}, ...request }) {
    const authorization = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
    const response = await fetch(url, { ...request, headers: { ...headers, ...authorization } }).catch(() => null);
    if (!response) throw new Refusal(0, 'The server does not answer.');
    if (response.ok) return response;
    const seconds = Number(response.headers.get('Retry-After'));
    const told = await response.json().catch(() => ({}));
    throw new Refusal(response.status, sentence(response.status, told.error), seconds > 0 ? seconds * 1000 : undefined);
  }
}

function sentence(status, told) {
  const why = told ? ` (${told})` : '';
  switch (status) {
    case 401:
      return `This room wants a token${why}.`;
    case 403:
      return `The server does not let you in${why}.`;
    case 404:
      return `There is nothing here${why}.`;
    case 409:
      return `Not now${why}.`;
    case 429:
    case 503:
      return `The server is busy${why}.`;
    default:
      return `The server refused (${status})${why || '.'}`;
  }
}

/** `<url>; rel="…"` and so on, several in one header. */
function parseLinks(header, base) {
  return [...header.matchAll(/<([^>]*)>([^<]*)/g)].map(([, url, rest]) => ({
    url: /^[a-z]+:/i.test(url) ? url : new URL(url, base).href,
    rel: /rel="([^"]*)"/.exec(rest)?.[1],
  }));
}

/** The old answer with what a fragment has new: credentials everywhere, candidates on the first m-line. */
function restarted(answer, fragment) {
  const value = (name) => new RegExp(`^a=${name}:(.*)$`, 'm').exec(fragment)[1].trim();
  const candidates = fragment.split(/\r?\n/).filter((line) => /^a=(candidate:|end-of-candidates)/.test(line));
  const kept = answer.split('\r\n').filter((line) => !/^a=(candidate:|end-of-candidates)/.test(line));
  let isFirst = true;
  return kept.flatMap((line) => {
    if (line.startsWith('a=ice-ufrag:')) return [`a=ice-ufrag:${value('ice-ufrag')}`];
    if (!line.startsWith('a=ice-pwd:')) return [line];
    const added = isFirst ? candidates : [];
    isFirst = false;
    return [`a=ice-pwd:${value('ice-pwd')}`, ...added];
  }).join('\r\n');
}
