// A call over the page with a camera whose pictures can be read: published in one codec, with layers or without, and
// through a cipher where that is wanted.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from './eventually.mjs';
import { here } from './paths.mjs';

const PATTERN = readFileSync(join(here, 'clients/pattern.js'), 'utf8');

/**
 * A page in a room; what it publishes follows `way`: { mimeType, scalabilityMode?, encrypted? }. Without a mode the page
 * asks for simulcast; with one there is one stream with layers in it. `size`: { width, height, fps } of the camera.
 */
export async function enter(browser, server, { room, name, way, size, settings }) {
  const address = new URLSearchParams({ room, name, autojoin: '1', ...settings });
  const page = await browser.open(name, 'about:blank');
  await page.addInitScript(PATTERN);
  await page.addInitScript(publishBy, { way, size });
  await page.goto(server.url(`/#${address}`));
  await eventually(`${name} is connected`, () => page.evaluate(() => window.tramline?.media === 'connected'));
  return page;
}

/** Statistics of one type and kind, of all streams. */
export function statistics(page, type, kind) {
  return page.evaluate(async ([wantedType, wantedKind]) => {
    const stats = [...(await window.tramline.pc.getStats()).values()];
    return stats.filter((stat) => stat.type === wantedType && stat.kind === wantedKind);
  }, [type, kind]);
}

/** In the page. */
function publishBy({ way, size }) {
  const devices = window.MediaDevices?.prototype;
  if (!devices) return; // not at about:blank
  const { getUserMedia } = devices;
  devices.getUserMedia = async function of(constraints) {
    if (!constraints.video) return getUserMedia.call(this, constraints);
    const sound = constraints.audio ? await getUserMedia.call(this, { audio: constraints.audio }) : null;
    return new MediaStream([window.pattern.camera(size), ...(sound?.getAudioTracks() ?? [])]);
  };

  const cipher = () => {
    const all = (bytes) => bytes.map((byte) => byte ^ 0x5a);
    // H.264 travels unit by unit, so their borders and heads stay as they are, and nothing becomes a border.
    const slices = (bytes) => {
      const out = bytes.slice();
      const [SLICE, IDR, HEAD] = [1, 5, 4];
      let clear = bytes.length;
      for (let at = 0; at < bytes.length; at += 1) {
        if (bytes[at] === 1 && bytes[at - 1] === 0 && bytes[at - 2] === 0) {
          const kind = bytes[at + 1] & 0x1f;
          clear = kind === SLICE || kind === IDR ? at + 1 + HEAD : bytes.length;
        }
        if (at >= clear && bytes[at] > 3) out[at] = 259 - bytes[at];
      }
      return out;
    };
    onrtctransform = ({ transformer: { readable, writable, options } }) => {
      const transform = (frame, controller) => {
        const bytes = new Uint8Array(frame.data);
        frame.data = (options.hasUnits ? slices(bytes) : all(bytes)).buffer;
        controller.enqueue(frame);
      };
      readable.pipeThrough(new TransformStream({ transform })).pipeTo(writable);
    };
  };
  const worker = way.encrypted ? new Worker(URL.createObjectURL(new Blob([`(${cipher})()`]))) : null;
  const encrypt = (end) => {
    if (worker) end.transform = new RTCRtpScriptTransform(worker, { hasUnits: way.mimeType === 'video/H264' });
  };

  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    constructor(...settings) {
      super(...settings);
      this.addEventListener('track', ({ track, receiver }) => track.kind === 'video' && encrypt(receiver));
    }

    addTransceiver(source, init) {
      const { scalabilityMode } = way;
      const sendEncodings = scalabilityMode ? [{ scalabilityMode }] : init.sendEncodings;
      const line = super.addTransceiver(source, init.sendEncodings ? { ...init, sendEncodings } : init);
      if (!init.sendEncodings) return line;
      const { codecs } = RTCRtpSender.getCapabilities('video');
      const wanted = codecs.filter(({ mimeType }) => mimeType === way.mimeType || mimeType === 'video/rtx');
      if (wanted.some(({ mimeType }) => mimeType === way.mimeType)) line.setCodecPreferences(wanted);
      encrypt(line.sender);
      return line;
    }
  };
}
