// What each remote picture is: asks the server for as much of it as its tile shows, and writes on the tile what comes
// and, in the server's words, why it is not better.
//
// A tile that is scrolled away, or in a tab nobody looks at, asks for nothing.

import { bits } from './stats.js';

const ASK_AFTER_MS = 250; // a window that is dragged larger changes its tiles with every frame
const LOOK_MS = 1000;
const AWAY_MS = 3000; // a short look at another tab is not worth a keyframe
const STEP_PX = 16; // sizes that differ by less are the same wish
const TINY_PX = 240; // in a tile so narrow nobody sees more than TINY_FPS
const TINY_FPS = 15;
const FULL_FPS = 60;
/** What is said without being asked, by reason. What people chose themselves or passes soon needs no sign. */
const BRIEF = {
  bandwidth: 'Smaller, to fit the connection',
  codec_not_negotiated: 'This browser cannot show it',
  no_keyframe_yet: 'Waits for a first picture',
  overload: 'The server is busy',
  publisher_silent: 'No picture comes',
};

export class Pictures {
  #source;
  #grid;
  #tiles = new Map(); // element -> is it in view
  #asked = new Map(); // trackId -> the wish that was sent
  #before = new Map(); // mid -> { bytes, packets, lost, at }
  #call = null;
  #askTimer = 0;
  #awayTimer = 0;
  #isAway = false;
  #sizes = new ResizeObserver(() => this.#askSoon());
  #views = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) if (this.#tiles.has(target)) this.#tiles.set(target, isIntersecting);
    this.#askSoon();
  });

  /** `source()` gives { call, quality, demand(wishes), pictures: [{ key, mid, trackId, receiver }] } or null. */
  constructor(grid, source) {
    this.#grid = grid;
    this.#source = source;
    document.addEventListener('visibilitychange', () => this.#lookedAt(document.visibilityState !== 'hidden'));
    setInterval(() => this.#look(), LOOK_MS);
  }

  /** The tiles were drawn anew. */
  follow() {
    const elements = new Set((this.#source()?.pictures ?? []).map(({ key }) => this.#grid.tile(key)?.element).filter(Boolean));
    for (const element of this.#tiles.keys()) {
      if (elements.has(element)) continue;
      this.#sizes.unobserve(element);
      this.#views.unobserve(element);
      this.#tiles.delete(element);
    }
    for (const element of elements) {
      if (this.#tiles.has(element)) continue;
      this.#tiles.set(element, true);
      this.#sizes.observe(element);
      this.#views.observe(element);
    }
    this.#askSoon();
  }

  #lookedAt(is) {
    clearTimeout(this.#awayTimer);
    const change = () => {
      this.#isAway = !is;
      this.#ask();
    };
    if (is) change();
    else this.#awayTimer = setTimeout(change, AWAY_MS);
  }

  #askSoon() {
    this.#askTimer ||= setTimeout(() => this.#ask(), ASK_AFTER_MS);
  }

  #ask() {
    clearTimeout(this.#askTimer);
    this.#askTimer = 0;
    const source = this.#source();
    if (!source) return;
    // Another call is another stay: the server knows nothing of what was asked before.
    if (this.#call !== source.call) this.#asked.clear();
    this.#call = source.call;
    const wishes = [];
    for (const { key, trackId } of source.pictures) {
      const wish = this.#wish(this.#grid.tile(key)?.element);
      const words = JSON.stringify(wish);
      if (this.#asked.get(trackId) === words) continue;
      this.#asked.set(trackId, words);
      wishes.push({ trackId, ...wish });
    }
    if (wishes.length > 0) source.demand(wishes);
  }

  #wish(element) {
    const isSeen = element && !this.#isAway && this.#tiles.get(element);
    if (!isSeen) return { width: 0, height: 0, fps: 0 };
    const { width, height } = element.getBoundingClientRect();
    const pixels = (length) => Math.ceil((length * devicePixelRatio) / STEP_PX) * STEP_PX;
    return { width: pixels(width), height: pixels(height), fps: width < TINY_PX ? TINY_FPS : FULL_FPS };
  }

  async #look() {
    const source = this.#source();
    if (!source) return this.#before.clear();
    await Promise.all(source.pictures.map(async ({ key, mid, receiver }) => {
      const report = [...(await receiver.getStats()).values()].find(({ type }) => type === 'inbound-rtp');
      const quality = source.quality.get(mid);
      const facts = report ? [...this.#facts(mid, report), layerName(quality?.layer)].filter(Boolean) : [];
      const isLess = quality !== undefined && quality.state !== 'flowing';
      this.#grid.tile(key)?.tell({ facts: facts.join(' · '), reason: isLess ? quality.sentence : '', brief: (isLess && BRIEF[quality.reason]) || '' });
    }));
    return undefined;
  }

  #facts(mid, stat) {
    const now = { bytes: stat.bytesReceived, packets: stat.packetsReceived, lost: stat.packetsLost, at: stat.timestamp };
    const before = this.#before.get(mid) ?? now;
    this.#before.set(mid, now);
    const seconds = (now.at - before.at) / 1000;
    const lost = Math.max(0, now.lost - before.lost);
    const all = now.packets - before.packets + lost;
    return [
      stat.frameWidth ? `${stat.frameWidth} × ${stat.frameHeight}` : null,
      stat.framesPerSecond ? `${Math.round(stat.framesPerSecond)} fps` : null,
      seconds > 0 ? bits(((now.bytes - before.bytes) * 8) / seconds) : null,
      all > 0 ? `${((lost / all) * 100).toFixed(1)} % lost` : null,
    ];
  }
}

/** A layer in few words: which of the streams, and in it which size and rate where these can be chosen. */
function layerName(layer) {
  if (!layer) return null;
  const bounds = [[layer.spatial, 'S'], [layer.temporal, 'T']].filter(([bound]) => bound > 0).map(([bound, letter]) => letter + bound);
  return ['layer', layer.encoding + 1, ...bounds].join(' ');
}
