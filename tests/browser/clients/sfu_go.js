// A client of the SFU-Go protocol, evaluated in a page: it offers, and again when it is asked to; peers are streams.
//
// Frame {"type", "data", "timestamp"}; what goes out has its data encoded a second time, as the original's has.

window.SfuGoClient = class {
  constructor(stream, encodings) {
    this.stream = stream;
    this.encodings = encodings;
    this.messages = []; // { type, data }: all that came
    this.tracks = []; // { kind, streamId, trackId }: what ontrack told
    this.layers = {}; // trackId -> rids
    this.peers = new Map();
  }

  connect(base, roomId, userId, name) {
    this.address = { base, roomId, userId, name };
    this.chain = Promise.resolve();
    this.ws = new WebSocket(`${base}/ws?${new URLSearchParams({ userId, name })}`);
    this.ws.onopen = () => this.send('join', { roomId, userId, name, ...this.pass });
    this.ws.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      this.messages.push(message);
      this.chain = this.chain.then(() => this.take(message)).catch((error) => console.error('sfu-go client', error.message));
    };
    this.ws.onclose = ({ code }) => this.messages.push({ type: `close ${code}` });
  }

  // The socket is gone; with `media` the connection, too, as when a page comes back from a dead network.
  async comeBack({ media }) {
    this.ws.onmessage = null;
    this.ws.close();
    if (media) {
      this.pc.close();
      this.pc = null;
      document.querySelectorAll('audio, video').forEach((element) => element.remove());
    }
    const { base, roomId, userId, name } = this.address;
    this.connect(base, roomId, userId, name);
  }

  send(type, data) {
    if (this.ws.readyState !== WebSocket.OPEN) return;
    this.ws.send(JSON.stringify({ type, data: JSON.stringify(data ?? {}), timestamp: new Date().toISOString() }));
  }

  async take({ type, data, timestamp }) {
    if (Number.isNaN(Date.parse(timestamp))) throw new Error(`${type} has no timestamp`);
    const takers = {
      ping: () => this.send('pong'),
      error: () => console.error(`error ${data.code}: ${data.message}`),
      join: () => this.joined(data),
      'room-state': () => data.peers.forEach((peer) => this.peers.set(peer.peerId, peer)),
      'peer-joined': () => this.peers.set(data.peerId, data),
      'peer-left': () => this.peers.delete(data.peerId),
      answer: () => this.pc.setRemoteDescription({ type: 'answer', sdp: data.sdp }),
      'ice-candidate': () => this.pc.remoteDescription && this.pc.addIceCandidate(data),
      renegotiate: () => this.renegotiate(data.trackCount),
      offer: () => this.answer(data.sdp),
      'ice-restart-offer': () => this.answer(data.sdp),
      'layer-available': () => { this.layers[data.trackId] = data.layers; },
    };
    await takers[type]?.();
  }

  async joined({ success, peerId, resumed, sessionId, sessionToken }) {
    if (!success) throw new Error('not joined');
    Object.assign(this, { peerId, resumed, pass: { sessionId, sessionToken } });
    if (this.pc) return;
    this.pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    this.pc.ontrack = ({ track, streams }) => {
      this.tracks.push({ kind: track.kind, streamId: streams[0]?.id, trackId: track.id });
      const element = Object.assign(document.createElement(track.kind), { autoplay: true, srcObject: new MediaStream([track]) });
      element.muted = track.kind === 'video';
      document.body.append(element);
    };
    this.pc.onicecandidate = ({ candidate }) => {
      if (candidate) this.send('ice-candidate', { ...candidate.toJSON(), peerId: this.peerId });
    };
    for (const track of this.stream.getTracks()) {
      const sendEncodings = track.kind === 'video' ? this.encodings : undefined;
      this.pc.addTransceiver(track, { direction: 'sendonly', streams: [this.stream], sendEncodings });
    }
    await this.offer();
  }

  async renegotiate(trackCount) {
    const lines = this.pc.getTransceivers().filter(({ direction }) => direction === 'recvonly');
    for (const kind of ['audio', 'video']) {
      const have = lines.filter(({ receiver }) => receiver.track.kind === kind).length;
      for (let more = have; more < Math.ceil(trackCount / 2); more += 1) this.pc.addTransceiver(kind, { direction: 'recvonly' });
    }
    await this.offer();
  }

  async offer() {
    await this.pc.setLocalDescription(await this.pc.createOffer());
    this.send('offer', { sdp: this.pc.localDescription.sdp, type: 'offer', peerId: this.peerId });
  }

  async answer(sdp) {
    if (this.pc.signalingState !== 'stable') await this.pc.setLocalDescription({ type: 'rollback' });
    await this.pc.setRemoteDescription({ type: 'offer', sdp });
    await this.pc.setLocalDescription(await this.pc.createAnswer());
    this.send('answer', { sdp: this.pc.localDescription.sdp, type: 'answer', peerId: this.peerId });
  }
};
