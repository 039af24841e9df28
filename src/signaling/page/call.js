// The media connection of one stay in a room: an RTCPeerConnection and its negotiation.
//
// Both sides may offer. The client offers what it publishes, the server offers m-lines for what others publish.
// On glare the client's offer wins: we ignore an offer that meets our own, the server drops it and offers again.
// ICE candidates are not sent: the server is ICE-lite and learns our address from our checks.

const ANSWER_TIMEOUT_MS = 10_000;
const DISCONNECT_GRACE_MS = 1500;
const RECOVERY_TIMEOUT_MS = 12_000;
/** Said aloud, as some codecs would be sent in one stream else. */
const MODE = 'L1T3';
/** Streams of the camera in simulcast, smallest first, by the size it has at least. Of more streams than a size is good for, browsers leave out the largest. */
const CAMERA_ENCODINGS = [
  [960 * 540, [
    { rid: 'low', scalabilityMode: MODE, scaleResolutionDownBy: 4, maxBitrate: 150_000 },
    { rid: 'middle', scalabilityMode: MODE, scaleResolutionDownBy: 2, maxBitrate: 500_000 },
    { rid: 'high', scalabilityMode: MODE, maxBitrate: 2_500_000 },
  ]],
  [480 * 270, [
    { rid: 'low', scalabilityMode: MODE, scaleResolutionDownBy: 2, maxBitrate: 200_000 },
    { rid: 'high', scalabilityMode: MODE, maxBitrate: 1_000_000 },
  ]],
];

export class Call {
  #hooks;
  #chain = Promise.resolve();
  #senders = new Map(); // source -> transceiver
  #remote = []; // the server's last word on which m-line carries what
  #answerTimer = 0;
  #disconnectTimer = 0;
  #recoveryTimer = 0;
  #closed = false;
  #muted = { audioMuted: true, videoMuted: true };

  /**
   * `hooks`: send(event, data); onTracks([{ source, userId, kind, track, receiver }]);
   * onMedia('connected' | 'interrupted'); onBroken(why): this call cannot go on.
   */
  constructor(hooks, iceServers) {
    this.#hooks = hooks;
    this.pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle', iceServers });
    this.pc.onnegotiationneeded = () => this.#offer();
    this.pc.onconnectionstatechange = () => this.#watchConnection();
  }

  /** Publishes what is there. The microphone and camera lines exist from the start, so that later use needs no offer. */
  start({ microphone, camera, screen }) {
    const stream = new MediaStream(); // one stream, so that receivers keep lips and voice together
    this.#addLine('microphone', 'audio', microphone, stream);
    this.#addLine('camera', 'video', camera, stream);
    if (screen) this.addScreen(screen);
  }

  /** Changes the track behind the microphone or camera line; null sends nothing. */
  async setTrack(source, track) {
    await this.#senders.get(source)?.sender.replaceTrack(track);
  }

  /** Publishes a screen: one more video line, and one more audio line if it has sound. */
  addScreen(stream) {
    const [video] = stream.getVideoTracks();
    const [audio] = stream.getAudioTracks();
    if (video) this.#addLine('screen', 'video', video, stream);
    if (audio) this.#addLine('screen-audio', 'audio', audio, stream);
  }

  /** Takes the screen's lines away. */
  removeScreen() {
    for (const source of ['screen', 'screen-audio']) {
      this.#senders.get(source)?.stop();
      this.#senders.delete(source);
    }
  }

  /** Tells the server what is muted and what each line shows. */
  setMuted(muted) {
    this.#muted = muted;
    this.#sendMediaState();
  }

  /** Takes an event of the server; false if it is not about media. */
  handle(event, data) {
    switch (event) {
      case 'offer':
        this.#enqueue(() => this.#takeOffer(data));
        return true;
      case 'answer':
        this.#enqueue(() => this.#takeAnswer(data));
        return true;
      case 'tracks':
        this.#remote = Array.isArray(data) ? data : (data.tracks ?? []);
        this.#reportTracks();
        return true;
      default:
        return false;
    }
  }

  /** The server could not use our offer: go back to what both sides agreed on. */
  rollback() {
    this.#enqueue(async () => {
      clearTimeout(this.#answerTimer);
      if (this.pc.signalingState === 'have-local-offer') await this.pc.setLocalDescription({ type: 'rollback' });
    });
  }

  /** Lines that we send on: [source, RTCRtpTransceiver]. */
  get sending() {
    return [...this.#senders];
  }

  /** Lines that we receive on, as the server named them. */
  get receiving() {
    const byMid = new Map(this.pc.getTransceivers().map((line) => [line.mid, line]));
    return this.#remote.flatMap((entry) => {
      const line = byMid.get(entry.mid);
      if (!line || line.stopped) return [];
      return [{ ...entry, track: line.receiver.track, receiver: line.receiver }];
    });
  }

  close() {
    this.#closed = true;
    for (const timer of [this.#answerTimer, this.#disconnectTimer, this.#recoveryTimer]) clearTimeout(timer);
    this.pc.close();
  }

  #addLine(source, kind, track, stream) {
    if (track && kind === 'video') track.contentHint = source === 'screen' ? 'detail' : 'motion';
    const sendEncodings = source === 'camera' ? encodingsOf(track) : undefined;
    const line = this.pc.addTransceiver(track ?? kind, { direction: 'sendonly', streams: [stream], sendEncodings });
    this.#senders.set(source, line);
  }

  // One description at a time: each step sees the signalling state that the step before it left.
  #enqueue(step) {
    this.#chain = this.#chain
      .then(() => (this.#closed ? undefined : step()))
      .catch((error) => {
        if (!this.#closed) this.#hooks.onBroken(`negotiation failed: ${error.message}`);
      });
  }

  #offer() {
    this.#enqueue(async () => {
      if (this.pc.signalingState !== 'stable') return; // the event comes again when it is
      await this.pc.setLocalDescription();
      const { type, sdp } = this.pc.localDescription;
      this.#hooks.send('offer', { type, sdp });
      clearTimeout(this.#answerTimer);
      this.#answerTimer = setTimeout(() => this.#hooks.onBroken('the server did not answer'), ANSWER_TIMEOUT_MS);
    });
  }

  async #takeOffer({ sdp }) {
    if (this.pc.signalingState === 'have-local-offer') return;
    await this.pc.setRemoteDescription({ type: 'offer', sdp });
    await this.pc.setLocalDescription();
    this.#hooks.send('answer', { type: 'answer', sdp: this.pc.localDescription.sdp });
    this.#settled();
  }

  async #takeAnswer({ sdp }) {
    if (this.pc.signalingState !== 'have-local-offer') return;
    clearTimeout(this.#answerTimer);
    await this.pc.setRemoteDescription({ type: 'answer', sdp });
    this.#settled();
  }

  #settled() {
    this.#sendMediaState();
    this.#reportTracks();
  }

  #sendMediaState() {
    const sources = {};
    for (const [source, line] of this.#senders) if (line.mid !== null) sources[line.mid] = source;
    this.#hooks.send('media-state', { ...this.#muted, sources });
  }

  #reportTracks() {
    this.#hooks.onTracks(this.receiving);
  }

  #watchConnection() {
    const state = this.pc.connectionState;
    clearTimeout(this.#disconnectTimer);
    if (state === 'connected') {
      clearTimeout(this.#recoveryTimer);
      this.#recoveryTimer = 0;
      this.#hooks.onMedia('connected');
    } else if (state === 'disconnected') {
      this.#disconnectTimer = setTimeout(() => this.#askForRestart(), DISCONNECT_GRACE_MS);
    } else if (state === 'failed') {
      this.#askForRestart();
    }
  }

  // The server answers with an offer that restarts ICE. If that does not help, the room is entered anew.
  #askForRestart() {
    this.#hooks.onMedia('interrupted');
    this.#hooks.send('renegotiate', {});
    this.#recoveryTimer ||= setTimeout(() => this.#hooks.onBroken('the media path did not come back'), RECOVERY_TIMEOUT_MS);
  }
}

// A camera that comes later is taken to be a usual one.
function encodingsOf(track) {
  const { width = 1280, height = 720 } = track?.getSettings() ?? {};
  return CAMERA_ENCODINGS.find(([least]) => width * height >= least)?.[1];
}
