// Who is speaking: a level for every microphone, several times a second.

const INTERVAL_MS = 150;
const THRESHOLD = 0.02; // linear level; room noise stays below
const HOLD_MS = 600; // pauses between words do not make the mark flicker

export class Speaking {
  #context = null;
  #analyser = null;
  #source = null;
  #track = null;
  #lastLoud = new Map(); // id -> time
  #lastHeard = new WeakMap(); // receiver -> time of the sound that was measured last
  #samples = new Float32Array(1024);

  /** `listen()` gives [{ id, receiver, dominant }] of remote microphones; `onMarks(set of ids, own level)`. */
  constructor(listen, onMarks) {
    this.timer = setInterval(() => {
      const now = performance.now();
      const own = this.#ownLevel();
      this.#note('self', own, now);
      for (const { id, receiver, dominant } of listen()) {
        // Where the browser gives no level, the server's word on who speaks stands in.
        this.#note(id, this.#remoteLevel(receiver) ?? (dominant ? 1 : 0), now);
      }
      onMarks(this.#marks(now), own);
    }, INTERVAL_MS);
  }

  /** Follows our own microphone; null when it is off. */
  follow(track) {
    if (track === this.#track) return;
    this.#track = track;
    this.#source?.disconnect();
    this.#source = null;
    if (!track) return;
    this.#context ??= new AudioContext();
    this.#analyser ??= new AnalyserNode(this.#context, { fftSize: this.#samples.length });
    this.#source = this.#context.createMediaStreamSource(new MediaStream([track]));
    this.#source.connect(this.#analyser);
    this.resume();
  }

  /** Browsers start audio only after a click: call from one. */
  resume() {
    if (this.#context?.state === 'suspended') this.#context.resume().catch(() => {});
  }

  #ownLevel() {
    if (!this.#source || !this.#track.enabled) return 0;
    this.#analyser.getFloatTimeDomainData(this.#samples);
    let sum = 0;
    for (const sample of this.#samples) sum += sample * sample;
    return Math.sqrt(sum / this.#samples.length);
  }

  // Who is not among the loudest is not sent on: what the browser measured last is no level of now.
  #remoteLevel(receiver) {
    const [latest] = receiver.getSynchronizationSources?.() ?? [];
    if (latest?.audioLevel === undefined) return undefined;
    const isNew = this.#lastHeard.get(receiver) !== latest.timestamp;
    this.#lastHeard.set(receiver, latest.timestamp);
    return isNew ? latest.audioLevel : 0;
  }

  #note(id, level, now) {
    if (level > THRESHOLD) this.#lastLoud.set(id, now);
  }

  #marks(now) {
    const marks = new Set();
    for (const [id, at] of this.#lastLoud) {
      if (now - at < HOLD_MS) marks.add(id);
      else this.#lastLoud.delete(id);
    }
    return marks;
  }
}
