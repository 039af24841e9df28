// The connection view: what every line carries, once a second, from getStats.

const INTERVAL_MS = 1000;

export class StatsView {
  #panel;
  #source;
  #before = new Map(); // stats id -> { bytes, lost, packets, at }
  #timer = 0;

  /** `source()` gives { pc, lines: [{ mid, label, direction }] } or null. */
  constructor(panel, source) {
    this.#panel = panel;
    this.#source = source;
  }

  get open() {
    return !this.#panel.hidden;
  }

  toggle(open = !this.open) {
    this.#panel.hidden = !open;
    clearInterval(this.#timer);
    if (!open) return;
    this.#timer = setInterval(() => this.#refresh(), INTERVAL_MS);
    this.#refresh();
  }

  async #refresh() {
    const source = this.#source();
    if (!source) return this.#draw([['State', 'not connected']], []);
    const report = await source.pc.getStats();
    const tracks = source.lines.flatMap((line) => this.#tracks(report, line));
    return this.#draw(summary(report), tracks);
  }

  #tracks(report, { mid, label, direction }) {
    const type = direction === 'send' ? 'outbound-rtp' : 'inbound-rtp';
    return [...report.values()]
      .filter((stat) => stat.type === type && stat.mid === mid)
      .map((stat) => ({ label: stat.rid ? `${label}, ${stat.rid}` : label, direction, facts: this.#facts(report, stat) }));
  }

  #facts(report, stat) {
    const sent = stat.type === 'outbound-rtp';
    const bytes = sent ? stat.bytesSent : stat.bytesReceived;
    const packets = (sent ? stat.packetsSent : stat.packetsReceived) ?? 0;
    const remote = report.get(stat.remoteId);
    const lost = (sent ? remote?.packetsLost : stat.packetsLost) ?? 0;
    const before = this.#before.get(stat.id) ?? { bytes, lost, packets, at: stat.timestamp };
    this.#before.set(stat.id, { bytes, lost, packets, at: stat.timestamp });
    const seconds = (stat.timestamp - before.at) / 1000;
    const rate = seconds > 0 ? ((bytes - before.bytes) * 8) / seconds : 0;
    const lostNow = Math.max(0, lost - before.lost);
    const seen = packets - before.packets + (sent ? 0 : lostNow);
    // What we receive has no round trip of its own without RTCP XR: the path's stands in.
    const rtt = remote?.roundTripTime ?? selectedPair(report)?.currentRoundTripTime;
    return [
      ['Bitrate', bits(rate)],
      ['Picture', stat.frameWidth ? `${stat.frameWidth} × ${stat.frameHeight}` : null],
      ['Frames', stat.kind === 'video' ? `${Math.round(stat.framesPerSecond ?? 0)} per s` : null],
      ['Loss', seen > 0 ? `${((lostNow / seen) * 100).toFixed(1)} %` : '–'],
      ['Round trip', rtt === undefined ? null : milliseconds(rtt)],
      ['Codec', report.get(stat.codecId)?.mimeType.split('/')[1] ?? '–'],
    ].filter(([, value]) => value !== null);
  }

  #draw(summaryFacts, tracks) {
    this.#panel.querySelector('dl').replaceChildren(...terms(summaryFacts));
    const list = this.#panel.lastElementChild;
    list.replaceChildren(...['send', 'receive'].flatMap((direction) => {
      const group = tracks.filter((track) => track.direction === direction);
      if (group.length === 0) return [];
      return [make('h3', direction === 'send' ? 'You send' : 'You receive'), ...group.map(card)];
    }));
  }
}

function summary(report) {
  const all = [...report.values()];
  const transport = all.find((stat) => stat.type === 'transport');
  const pair = selectedPair(report);
  const local = report.get(pair?.localCandidateId);
  return [
    ['Round trip', pair?.currentRoundTripTime === undefined ? '–' : milliseconds(pair.currentRoundTripTime)],
    ['Room to send', pair?.availableOutgoingBitrate ? bits(pair.availableOutgoingBitrate) : '–'],
    ['Path', local ? `${local.protocol.toUpperCase()}, ${local.networkType ?? local.candidateType}` : '–'],
    ['Encryption', transport?.srtpCipher?.replaceAll('_', ' ') ?? '–'],
  ];
}

function selectedPair(report) {
  const transport = [...report.values()].find((stat) => stat.type === 'transport');
  return report.get(transport?.selectedCandidatePairId);
}

function card({ label, facts }) {
  const element = make('section');
  const list = make('dl');
  list.append(...terms(facts));
  element.append(make('h4', label), list);
  return element;
}

function terms(facts) {
  return facts.map(([term, value]) => {
    const row = make('div');
    row.append(make('dt', term), make('dd', value));
    return row;
  });
}

function make(name, text = '') {
  return Object.assign(document.createElement(name), { textContent: text });
}

/** A bitrate for people. */
export function bits(rate) {
  return rate >= 1e6 ? `${(rate / 1e6).toFixed(1)} Mbit/s` : `${Math.round(rate / 1000)} kbit/s`;
}

function milliseconds(seconds) {
  return `${Math.round(seconds * 1000)} ms`;
}
