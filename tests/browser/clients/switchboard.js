// A client of the Switchboard protocol, evaluated in a page: it offers once, camera and microphone both ways.

window.SwitchboardClient = class {
  constructor() {
    this.pc = new RTCPeerConnection();
    this.messages = [];
    this.peers = new Set();
    this.pc.ontrack = ({ track }) => {
      const element = Object.assign(document.createElement(track.kind), { autoplay: true, srcObject: new MediaStream([track]) });
      element.muted = track.kind === 'video';
      document.body.append(element);
    };
    this.pc.onicecandidate = ({ candidate }) => {
      if (!candidate) return;
      const { candidate: text, sdpMid, sdpMLineIndex } = candidate;
      this.send({ type: 'iceCandidate', candidate: text, sdpMid, sdpMLineIndex });
    };
  }

  connect(url, roomId, stream) {
    this.ws = new WebSocket(url);
    this.ws.onopen = () => this.send({ type: 'join', roomId });
    this.ws.onmessage = async ({ data }) => {
      const message = JSON.parse(data);
      this.messages.push(message.type);
      if (message.type === 'error') console.error(`error: ${message.message}`);
      if (message.type === 'welcome') {
        this.peerId = message.peerId;
        message.peers.forEach((peer) => this.peers.add(peer));
        await this.offer(stream);
      }
      if (message.type === 'answer') await this.pc.setRemoteDescription({ type: 'answer', sdp: message.sdp });
      if (message.type === 'iceCandidate') await this.pc.addIceCandidate(message);
      if (message.type === 'peerJoined') this.peers.add(message.peerId);
      if (message.type === 'peerLeft') this.peers.delete(message.peerId);
    };
  }

  async offer(stream) {
    for (const track of stream.getTracks()) this.pc.addTransceiver(track, { direction: 'sendrecv', streams: [stream] });
    await this.pc.setLocalDescription();
    this.send({ type: 'offer', sdp: this.pc.localDescription.sdp });
  }

  send(message) {
    this.ws.send(JSON.stringify(message));
  }
};
