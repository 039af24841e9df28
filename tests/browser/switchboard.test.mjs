// The Switchboard protocol: one offer from the client, and the lines of that offer carry the others.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { launch, received, srtpSuite } from './lib/browser.mjs';
import { eventually, sleep } from './lib/eventually.mjs';
import { here } from './lib/paths.mjs';
import { Server } from './lib/server.mjs';
import { step } from './lib/step.mjs';

const CLIENT = readFileSync(join(here, 'clients/switchboard.js'), 'utf8');
const UUID_V4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

let server;
let browser;
const tabs = {};

before(async () => {
  server = await Server.start('switchboard');
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.kill();
});

step('two clients that offer once see and hear each other', async () => {
  await enter('first');
  await enter('second');
  for (const name of ['first', 'second']) {
    await eventually(`${name} sees and hears the other`, () => grows(name));
    assert.match(await srtpSuite(tabs[name], 'client.pc'), /AES_(128|256)_GCM/);
  }
});

step('they know of each other by peer id', async () => {
  const [first, second] = await Promise.all(['first', 'second'].map((name) => tabs[name].evaluate(() => ({
    id: window.client.peerId,
    peers: [...window.client.peers],
  }))));
  assert.match(first.id, UUID_V4);
  assert.deepEqual(first.peers, [second.id]);
  assert.deepEqual(second.peers, [first.id]);
});

step('a leaver is announced', async () => {
  await tabs.second.close();
  await eventually('the first is alone', () => tabs.first.evaluate(() => window.client.peers.size === 0));
});

async function enter(name) {
  const page = await browser.open(name, server.url('/healthz'));
  tabs[name] = page;
  await page.evaluate(CLIENT);
  await page.evaluate(async () => {
    const constraints = { audio: true, video: { width: 320, height: 180, frameRate: 15 } };
    const stream = await navigator.mediaDevices.getUserMedia(constraints);
    window.client = new window.SwitchboardClient();
    window.client.connect(`ws://${location.host}/ws`, 'r1', stream);
  });
  await eventually(`${name} is connected`, () => page.evaluate(() => window.client.pc.connectionState === 'connected'));
}

// Decodes a picture and hears a sound, both growing.
async function grows(name) {
  const before = await sums(name);
  await sleep(1500); // the fake microphone beeps once a second
  const now = await sums(name);
  return now.frames > before.frames && now.energy > before.energy;
}

async function sums(name) {
  const all = [...(await received(tabs[name], 'client.pc')).values()];
  const sum = (key) => all.reduce((total, flow) => total + flow[key], 0);
  return { frames: sum('frames'), energy: sum('energy') };
}
