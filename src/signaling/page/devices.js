// Camera, microphone and screen of this computer.
//
// Owns the local tracks. Says in a sentence why something is missing and what helps.

const STORE = 'tramline.devices';

export class LocalMedia extends EventTarget {
  #size;
  #chosen = load();

  /** `size`: { width, height, fps } wished of the camera. Fires 'change', and 'trouble' with `detail` as a sentence. */
  constructor(size) {
    super();
    this.#size = size;
    this.camera = null;
    this.microphone = null;
    this.screen = null; // MediaStream
    navigator.mediaDevices?.addEventListener?.('devicechange', () => this.#changed());
  }

  /** Starts what is wanted; what fails is reported and left out. */
  async open({ camera, microphone }) {
    if (camera && microphone && !this.camera && !this.microphone && navigator.mediaDevices) {
      // One question to the person instead of two, where both are there.
      try {
        const constraints = { video: this.#cameraConstraints(true), audio: this.#microphoneConstraints(true) };
        this.#adopt(await navigator.mediaDevices.getUserMedia(constraints));
        return;
      } catch {
        // One of them is missing or refused: ask one by one, so that the other still works.
      }
    }
    const errors = new Map();
    if (camera) errors.set('camera', await this.#start('camera'));
    if (microphone) errors.set('microphone', await this.#start('microphone'));
    const failed = [...errors].filter(([, error]) => error);
    const same = failed.length === 2 && failed[0][1].name === failed[1][1].name;
    if (same) this.#trouble(sentence('camera and microphone', failed[0][1]));
    else if (failed.length) this.#trouble(failed.map(([source, error]) => sentence(source, error)).join(' '));
  }

  /** Starts the camera or the microphone. */
  async start(source) {
    const error = await this.#start(source);
    if (error) this.#trouble(sentence(source, error));
  }

  stop(source) {
    const media = this[source];
    this[source] = null;
    if (media instanceof MediaStream) media.getTracks().forEach(end);
    else if (media) end(media);
    if (media) this.#changed();
  }

  /** Asks for a screen, window or tab; null when the person thought better of it. */
  async startScreen() {
    try {
      const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { max: 30 } }, audio: true });
      this.useScreen(stream);
      return stream;
    } catch (error) {
      if (error.name !== 'NotAllowedError') this.#trouble(`The screen could not be shared: ${error.message}`);
      return null;
    }
  }

  /** Publishes any stream as the screen. */
  useScreen(stream) {
    this.screen = stream;
    stream.getVideoTracks()[0].onended = () => this.stop('screen');
    this.#changed();
  }

  /** Changes the camera or microphone; a running one is replaced. */
  async choose(source, deviceId) {
    this.#chosen[source] = deviceId;
    localStorage.setItem(STORE, JSON.stringify(this.#chosen));
    if (!this[source]) return;
    this.stop(source);
    await this.start(source);
  }

  chosen(source) {
    return this[source]?.getSettings().deviceId ?? this.#chosen[source] ?? '';
  }

  /** Devices of a kind: [{ id, label }]. */
  async list(source) {
    const kind = source === 'camera' ? 'videoinput' : 'audioinput';
    const all = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
    return all
      .filter((device) => device.kind === kind)
      .map((device, index) => ({ id: device.deviceId, label: device.label || `${titleOf(source)} ${index + 1}` }));
  }

  // Gives the error back instead of throwing it: a missing device is no reason to stop.
  async #start(source) {
    if (this[source]) return null;
    if (!navigator.mediaDevices) return { name: 'InsecurePage' };
    try {
      this.#adopt(await this.#ask(source));
      return null;
    } catch (error) {
      return error;
    }
  }

  async #ask(source) {
    const constraints = (exact) =>
      source === 'camera' ? { video: this.#cameraConstraints(exact) } : { audio: this.#microphoneConstraints(exact) };
    try {
      return await navigator.mediaDevices.getUserMedia(constraints(true));
    } catch (error) {
      // The remembered device is gone: any other will do.
      if (error.name !== 'OverconstrainedError') throw error;
      return navigator.mediaDevices.getUserMedia(constraints(false));
    }
  }

  #adopt(stream) {
    for (const track of stream.getTracks()) {
      const source = track.kind === 'video' ? 'camera' : 'microphone';
      this[source] = track;
      track.onended = () => {
        if (this[source] !== track) return;
        this.stop(source);
        this.#trouble(`The ${source} was unplugged or taken away. Choose another one under “Camera and microphone”.`);
      };
    }
    this.#changed();
  }

  #cameraConstraints(exact) {
    const { width = 1280, height = 720, fps = 30 } = this.#size;
    return { width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: fps, max: fps }, ...this.#device('camera', exact) };
  }

  #microphoneConstraints(exact) {
    return { echoCancellation: true, noiseSuppression: true, autoGainControl: true, ...this.#device('microphone', exact) };
  }

  #device(source, exact) {
    const id = this.#chosen[source];
    return id && exact ? { deviceId: { exact: id } } : {};
  }

  #changed() {
    this.dispatchEvent(new Event('change'));
  }

  #trouble(detail) {
    this.dispatchEvent(new CustomEvent('trouble', { detail }));
  }
}

function end(track) {
  track.onended = null;
  track.stop();
}

function titleOf(source) {
  return source === 'camera' ? 'Camera' : 'Microphone';
}

function sentence(source, error) {
  const both = source.includes(' and ');
  const [is, button, one] = both ? ['are', 'buttons', 'them'] : ['is', `${source} button`, 'one'];
  switch (error.name) {
    case 'InsecurePage':
      return 'Browsers give camera and microphone only to pages served over HTTPS or from localhost. You can still join, see and hear.';
    case 'NotAllowedError':
      return `The ${source} ${is} blocked for this page. Allow ${both ? 'them' : 'it'} beside the address, then press the ${button}. You can also join without.`;
    case 'NotFoundError':
      return `No ${both ? 'camera and no microphone were' : `${source} was`} found. Plug ${one} in and press the ${button}, or join without.`;
    case 'NotReadableError':
      return `The ${source} ${is} used by another program. Close that one and press the ${button}.`;
    default:
      return `The ${source} ${both ? 'do' : 'does'} not start (${error.message || error.name}). You can join without.`;
  }
}

function load() {
  try {
    return JSON.parse(localStorage.getItem(STORE)) ?? {};
  } catch {
    return {};
  }
}
