// A client of Gryt's real protocol, evaluated in a page: the server offers, the client answers and fills the slots.
//
// Envelope both ways {"event": "...", "data": "<string>"}; data is JSON encoded a second time.

window.GrytClient = class {
  static SLOTS = { microphone: 0, camera: 1, screen: 2, screenAudio: 3 };

  constructor() {
    this.pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    this.tracks = []; // { kind, streamId, trackId }: what ontrack told
    this.events = [];
    this.offers = 0;
    this.joined = false;
    this.chain = Promise.resolve();
    this.pc.ontrack = ({ track, streams }) => {
      this.tracks.push({ kind: track.kind, streamId: streams[0]?.id, trackId: track.id });
      const element = Object.assign(document.createElement(track.kind), { autoplay: true, srcObject: new MediaStream([track]) });
      element.muted = track.kind === 'video';
      document.body.append(element);
    };
    this.pc.onicecandidate = ({ candidate }) => candidate && this.send('candidate', candidate.toJSON());
  }

  connect(url, join) {
    this.ws = new WebSocket(url);
    this.ws.onopen = () => this.send('client_join', join);
    this.ws.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      this.events.push(message.event);
      this.chain = this.chain.then(() => this.take(message)).catch((error) => console.error('gryt client', error.message));
    };
    this.ws.onclose = ({ code }) => this.events.push(`close ${code}`);
    setInterval(() => this.send('keep_alive', { timestamp: Date.now() }), 15_000);
  }

  send(event, data) {
    if (this.ws.readyState !== WebSocket.OPEN) return;
    this.ws.send(JSON.stringify({ event, data: typeof data === 'string' ? data : JSON.stringify(data) }));
  }

  async take({ event, data }) {
    if (typeof data !== 'string') throw new Error(`data of ${event} is not a string`);
    if (event === 'room_joined') this.joined = true;
    if (event === 'candidate') await this.pc.addIceCandidate(JSON.parse(data));
    if (event === 'room_error') console.error(`room_error: ${data}`);
    if (event !== 'offer') return;
    await this.pc.setRemoteDescription(JSON.parse(data));
    this.offers += 1;
    if (this.offers === 1) {
      this.slots = this.pc.getTransceivers().slice(0, 4);
      if (this.microphone) await this.fill('microphone', this.microphone);
    }
    await this.pc.setLocalDescription();
    const { type, sdp } = this.pc.localDescription;
    this.send('answer', { type, sdp });
  }

  // Puts the first track of a stream on a slot; takes effect with the next answer.
  async fill(slot, stream) {
    const line = this.slots[this.constructor.SLOTS[slot]];
    await line.sender.replaceTrack(stream.getTracks()[0]);
    line.sender.setStreams(stream);
    line.direction = 'sendonly';
  }

  async publishLater(slot, stream) {
    await this.fill(slot, stream);
    this.send('renegotiate', '');
  }
};
