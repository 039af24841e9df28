// One stay in a room: signalling, call and the people in it, kept together through every interruption.
//
// Owns who is here and what they send. Draws nothing; fires 'change' when something is to be drawn anew,
// 'notice' ({ text, tone }) for what people should be told, and 'ended' ({ text }) when it is over.

import { Call } from './call.js';
import { CLOSE_FULL, Signaling } from './signaling.js';

/** What a track may show, and its name for people. */
export const SOURCES = { microphone: 'microphone', camera: 'camera', screen: 'screen', 'screen-audio': 'screen sound' };

export class Session extends EventTarget {
  #media;
  #signaling;
  #pending = Promise.resolve();
  #published = {}; // the local tracks the call knows
  #retry = null; // { at, full } while the server is away

  /** `who`: { roomId, userId, displayName, token }; `media`: LocalMedia. */
  constructor(url, who, media) {
    super();
    this.who = who;
    this.#media = media;
    this.call = null;
    this.state = 'connecting'; // connecting | joined | away | ended
    this.mediaState = 'connecting'; // connecting | connected | interrupted
    this.people = new Map(); // userId -> Person
    this.speaker = null;
    this.quality = new Map(); // mid -> { state, reason, sentence } of a remote picture
    this.#signaling = new Signaling(url, {
      onUp: () => this.#signaling.send('join', this.who),
      onEvent: (event, data) => this.#take(event, data),
      onDown: (loss) => this.#lost(loss),
    });
  }

  start() {
    this.#media.addEventListener('change', this.#followMedia);
    this.#signaling.start();
  }

  leave() {
    this.#signaling.send('leave');
    this.#end();
  }

  /** Asks the server for so much of remote pictures: [{ trackId, width, height, fps }], 0 × 0 for nothing. */
  demand(wishes) {
    this.#signaling.send('video_demand', { tracks: wishes });
  }

  retryNow() {
    this.#signaling.retryNow();
  }

  /** The connection in words: { text, tone: 'good' | 'busy' | 'bad', canRetry }. */
  get status() {
    if (this.state === 'ended') return { text: 'Left', tone: 'bad' };
    if (this.state === 'connecting') return { text: 'Connecting…', tone: 'busy' };
    if (this.state === 'away') {
      const seconds = Math.max(0, Math.ceil((this.#retry.at - Date.now()) / 1000));
      const why = this.#retry.full ? 'The server is full' : 'The server cannot be reached';
      return { text: seconds ? `${why}. Next try in ${seconds} s` : `${why}. Trying again…`, tone: 'bad', canRetry: seconds > 1 };
    }
    if (this.mediaState === 'interrupted') return { text: 'Picture and sound are interrupted. Restoring…', tone: 'bad' };
    if (this.mediaState === 'connecting') return { text: 'Setting up picture and sound…', tone: 'busy' };
    return { text: 'Connected', tone: 'good' };
  }

  #take(event, data) {
    if (this.call?.handle(event, data)) return;
    switch (event) {
      case 'joined':
        return this.#joined(data);
      case 'user-joined':
        this.people.set(data.userId, person(data));
        this.#notice(`${nameOf(data)} joined`, 'quiet');
        return this.#changed();
      case 'user-left': {
        const gone = this.people.get(data.userId);
        if (gone && this.people.delete(data.userId)) this.#notice(`${gone.name} left`, 'quiet');
        return this.#changed();
      }
      case 'user-updated': {
        const known = this.people.get(data.userId);
        if (known) Object.assign(known, described(data));
        return this.#changed();
      }
      case 'speaker':
        this.speaker = data.userId ?? null;
        return this.#changed();
      case 'quality':
        this.quality = new Map((data.tracks ?? []).map((track) => [track.mid, track]));
        return undefined;
      case 'media':
        // The server lost us before the browser noticed: ask for a fresh path.
        if (data.state === 'disconnected' && this.mediaState === 'connected') this.#signaling.send('renegotiate');
        return undefined;
      case 'error':
        return this.#refused(data);
      case 'closed':
        return this.#closed(String(data.reason ?? ''));
      default:
        return undefined; // newer servers may say more
    }
  }

  #joined({ peers = [], iceServers = [] }) {
    this.#signaling.settled();
    const returned = this.#retry !== null;
    this.#retry = null;
    this.state = 'joined';
    this.mediaState = 'connecting';
    this.people = new Map(peers.map((peer) => [peer.userId, person(peer)]));
    this.call?.close();
    this.call = new Call({
      send: (event, data) => this.#signaling.send(event, data),
      onTracks: (tracks) => this.#assign(tracks),
      onMedia: (state) => {
        this.mediaState = state;
        this.#changed();
      },
      onBroken: () => this.#signaling.restart(),
    }, iceServers);
    this.#published = { camera: this.#media.camera, microphone: this.#media.microphone, screen: this.#media.screen };
    this.call.setMuted(this.#muted());
    this.call.start(this.#published);
    this.quality = new Map();
    this.#signaling.send('quality', { on: true });
    if (returned) this.#notice('You are back in the room', 'quiet');
    this.#changed();
  }

  // The server says which line carries whose track now; msid is not read, since the track behind a line may change.
  #assign(tracks) {
    for (const one of this.people.values()) one.tracks = {};
    // A track of unknown purpose (a client that does not tell) takes the place that nothing else has.
    const known = ({ source }) => source in SOURCES;
    for (const entry of [...tracks.filter(known), ...tracks.filter((one) => !known(one))]) {
      const one = this.people.get(entry.userId);
      const source = known(entry) ? entry.source : entry.kind === 'audio' ? 'microphone' : 'camera';
      if (one && !one.tracks[source]) one.tracks[source] = { track: entry.track, receiver: entry.receiver, mid: entry.mid, trackId: entry.trackId };
    }
    this.#changed();
  }

  // Local tracks changed: bring the call in line with them, one change at a time.
  #followMedia = () => {
    this.#pending = this.#pending.then(async () => {
      const { camera, microphone, screen } = this.#media;
      const call = this.call;
      if (!call || this.state === 'ended') return;
      if (camera !== this.#published.camera) await call.setTrack('camera', camera);
      if (microphone !== this.#published.microphone) await call.setTrack('microphone', microphone);
      if (screen !== this.#published.screen) {
        if (this.#published.screen) call.removeScreen();
        if (screen) call.addScreen(screen);
      }
      this.#published = { camera, microphone, screen };
      call.setMuted(this.#muted());
    }).catch((error) => this.#notice(`That change did not work: ${error.message}`, 'bad'));
    this.#changed();
  };

  #muted() {
    const { camera, microphone } = this.#media;
    return { audioMuted: !microphone?.enabled, videoMuted: !camera };
  }

  #refused({ code, message }) {
    if (this.call?.pc.signalingState === 'have-local-offer') this.call.rollback();
    // Asking again with the same token changes nothing.
    if (this.state !== 'joined' && (code === 'unauthorized' || code === 'forbidden')) return this.#end(sentence(message));
    const full = this.state !== 'joined' && /seat|full/i.test(`${code} ${message}`);
    if (full && this.#retry) this.#retry.full = true;
    this.#notice(full ? `${sentence(message)} This page keeps trying.` : `The server said: ${sentence(message ?? code)}`, 'bad');
  }

  #closed(reason) {
    if (/evict|another|replaced/i.test(reason)) {
      this.#end('You entered this room from another window, so this one has left it.');
    } else if (/kick|removed/i.test(reason)) {
      this.#end('You were taken out of the room.');
    }
    // Any other reason passes: the socket closes next and we come back by ourselves.
  }

  #lost({ code, delayMs }) {
    this.call?.close();
    this.call = null;
    this.state = 'away';
    this.speaker = null;
    for (const one of this.people.values()) one.tracks = {};
    this.#retry = { at: Date.now() + delayMs, full: code === CLOSE_FULL };
    this.#changed();
  }

  #end(text) {
    this.state = 'ended';
    this.#media.removeEventListener('change', this.#followMedia);
    this.call?.close();
    this.call = null;
    this.#signaling.stop();
    this.people.clear();
    this.dispatchEvent(new CustomEvent('ended', { detail: { text } }));
  }

  #changed() {
    this.dispatchEvent(new Event('change'));
  }

  #notice(text, tone) {
    this.dispatchEvent(new CustomEvent('notice', { detail: { text, tone } }));
  }
}

function person(data) {
  return { userId: data.userId, name: '', audioMuted: false, videoMuted: false, tracks: {}, ...described(data) };
}

function described(data) {
  const known = { name: nameOf(data) };
  if ('audioMuted' in data) known.audioMuted = data.audioMuted === true;
  if ('videoMuted' in data) known.videoMuted = data.videoMuted === true;
  return known;
}

function nameOf({ displayName, userId }) {
  return displayName || `Guest ${String(userId).slice(0, 4)}`;
}

function sentence(text) {
  const clean = String(text).trim();
  return /[.!?]$/.test(clean) ? clean : `${clean}.`;
}
