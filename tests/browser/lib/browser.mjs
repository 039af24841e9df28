// Chromium with a fake camera and microphone, and what its getStats tell.

import { chromium } from 'playwright-core';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { target } from './paths.mjs';

/** Debian's Chromium, unless told otherwise. */
export const browserPath = process.env.CHROMIUM ?? '/usr/bin/chromium';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--no-proxy-server',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  '--allow-loopback-in-peer-connection',
  '--autoplay-policy=no-user-gesture-required',
];

/** A browser with a profile of its own, thrown away at the end; `without` some of the usual flags. */
export async function launch({ without = [] } = {}) {
  const args = FLAGS.filter((flag) => !without.includes(flag));
  const browser = await chromium.launch({ executablePath: browserPath, headless: true, args });
  // The test clients of the other protocols are put into pages by evaluation.
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, bypassCSP: true });
  return {
    /** A tab at `url`; what goes wrong inside is printed. */
    async open(name, url) {
      const page = await context.newPage();
      page.on('pageerror', (error) => console.log(`    [${name}] ${error.message}`));
      page.on('console', (message) => message.type() === 'error' && console.log(`    [${name}] ${message.text()}`));
      await page.goto(url);
      return page;
    },
    close: () => browser.close(),
  };
}

/** Saves what a tab shows as target/screenshots/<name>.png. */
export async function screenshot(page, name) {
  const folder = join(target, 'screenshots');
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`) });
}

/** inbound-rtp of a PeerConnection, by track id: { kind, frames, width, height, packets, energy }. */
export async function received(page, pc) {
  const list = await page.evaluate(async (expression) => {
    const connection = (0, eval)(expression);
    if (!connection) return [];
    return [...(await connection.getStats()).values()].filter((stat) => stat.type === 'inbound-rtp').map((stat) => [
      stat.trackIdentifier,
      {
        kind: stat.kind,
        frames: stat.framesDecoded ?? 0,
        width: stat.frameWidth ?? 0,
        height: stat.frameHeight ?? 0,
        packets: stat.packetsReceived ?? 0,
        energy: stat.totalAudioEnergy ?? 0,
      },
    ]);
  }, pc);
  return new Map(list);
}

/** The SRTP suite in use. */
export function srtpSuite(page, pc) {
  return page.evaluate(async (expression) => {
    const report = await (0, eval)(expression).getStats();
    return [...report.values()].find((stat) => stat.type === 'transport')?.srtpCipher ?? '';
  }, pc);
}
