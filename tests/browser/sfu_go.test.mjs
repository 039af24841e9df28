// The SFU-Go protocol: beside a peer of another dialect, choosing layers, restarting ICE, and coming back.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { launch, received } from './lib/browser.mjs';
import { eventually, sleep } from './lib/eventually.mjs';
import { here } from './lib/paths.mjs';
import { Server } from './lib/server.mjs';
import { step } from './lib/step.mjs';

const CLIENTS = ['sfu_go', 'switchboard'].map((name) => readFileSync(join(here, `clients/${name}.js`), 'utf8'));
const ROOM = 'room-9';
const ENCODINGS = [{ rid: 'l', scaleResolutionDownBy: 2 }, { rid: 'h' }];
const [SMALL, LARGE] = [320, 640];

let server;
let browser;
const tabs = {};

before(async () => {
  server = await Server.start('sfu_go', { SFU_STATS_INTERVAL_MS: '500' });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.kill();
});

step('a peer of SFU-Go and one of Switchboard see and hear each other', async () => {
  await enter('ana', ENCODINGS);
  await enterSwitchboard('bo');
  for (const name of ['ana', 'bo']) await eventually(`${name} sees and hears the other`, () => grows(name));
});

step('streams are named by their peers, and tracks by who gets them', async () => {
  const bo = await tabs.bo.evaluate(() => window.client.peerId);
  const { me, streams, names, peers } = await tabs.ana.evaluate(() => ({
    me: window.client.peerId,
    streams: window.client.tracks.map(({ streamId }) => streamId),
    // Lines that the page made have tracks with ids of their own: the names are in the description.
    names: [...window.client.pc.remoteDescription.sdp.matchAll(/a=msid:(\S+) (\S+)/g)].map(([, stream, track]) => ({ stream, track })),
    peers: [...window.client.peers.keys()],
  }));
  assert.deepEqual(peers, [bo]);
  assert.deepEqual(streams, [bo, bo]);
  assert.equal(names.length, 2);
  for (const { stream, track } of names) {
    assert.equal(stream, bo);
    assert.ok(track.endsWith(`_to_${me}`), track);
  }
});

step('a third one is asked for anew, and everybody sees everybody', async () => {
  await enter('cy');
  await eventually('ana sees both', () => sees('ana', 2));
  await eventually('cy sees both', () => sees('cy', 2));
});

step('a layer is chosen by its name', async () => {
  const track = await eventually('cy was told of layers', () => tabs.cy.evaluate(() => Object.keys(window.client.layers)[0]));
  assert.deepEqual(await tabs.cy.evaluate((id) => window.client.layers[id], track), ['l', 'h']);
  for (const [rid, wide] of [['l', SMALL], ['h', LARGE], ['l', SMALL], ['auto', LARGE]]) {
    await tabs.cy.evaluate(([trackId, targetRid]) => window.client.send('layer-switch', { trackId, targetRid }), [track, rid]);
    await eventually(`${rid} is ${wide} wide`, async () => (await width('cy', track)) === wide);
  }
});

step('a limit of the line brings the smaller layer', async () => {
  const track = await tabs.cy.evaluate(() => Object.keys(window.client.layers)[0]);
  const limit = (bandwidth) => tabs.cy.evaluate((value) => window.client.send('set-bandwidth-limit', { bandwidth: value }), bandwidth);
  await limit(60_000);
  await eventually('the limit is confirmed', () => told('cy', 'set-bandwidth-limit', ({ success }) => success));
  await eventually('the picture is small', async () => (await width('cy', track)) === SMALL);
  await limit(0);
  await eventually('the picture is large again', async () => (await width('cy', track)) === LARGE);
});

step('it is told how well everybody is connected', async () => {
  const me = await tabs.ana.evaluate(() => window.client.peerId);
  await eventually('ana is well connected', () => told('ana', 'quality-stats', ({ peerId, level }, own) => peerId === own && level === 'excellent', me));
});

step('ICE is restarted', async () => {
  const ufrag = () => tabs.ana.evaluate(() => /a=ice-ufrag:(\S+)/.exec(window.client.pc.remoteDescription.sdp)[1]);
  const before = await ufrag();
  await tabs.ana.evaluate(() => window.client.send('ice-restart-request'));
  await eventually('the server offers', () => told('ana', 'ice-restart-offer', () => true));
  await eventually('the credentials are new', async () => (await ufrag()) !== before);
  await eventually('ana still sees and hears', () => grows('ana'));
  await eventually('bo still sees and hears', () => grows('bo'));
});

step('who comes back was never away', async () => {
  for (const media of [false, true]) {
    const before = await tabs.ana.evaluate(() => window.client.peerId);
    await tabs.ana.evaluate((renewed) => window.client.comeBack({ media: renewed }), media);
    await eventually(`ana is back with ${media ? 'a new' : 'the same'} connection`, () => tabs.ana.evaluate(
      () => window.client.resumed && window.client.pc?.connectionState === 'connected',
    ));
    assert.equal(await tabs.ana.evaluate(() => window.client.peerId), before);
    // Switchboard's client has lines for one other.
    for (const [name, people] of [['ana', 2], ['bo', 1], ['cy', 2]]) {
      await eventually(`${name} sees and hears ${people}`, () => grows(name, people));
    }
    assert.equal(await told('cy', 'peer-left', () => true), false);
  }
});

step('a leaver is announced', async () => {
  await tabs.ana.evaluate(() => window.client.send('leave'));
  await eventually('cy knows', () => told('cy', 'peer-left', ({ userId }) => userId === 'ana'));
  await eventually('bo knows', () => tabs.bo.evaluate(() => window.client.peers.size === 1));
});

async function open(name) {
  const page = await browser.open(name, server.url('/healthz'));
  tabs[name] = page;
  for (const client of CLIENTS) await page.evaluate(client);
  return page;
}

async function enter(name, encodings) {
  const page = await open(name);
  await page.evaluate(async ([roomId, userId, sendEncodings]) => {
    const constraints = { audio: true, video: { width: 640, height: 360, frameRate: 15 } };
    const stream = await navigator.mediaDevices.getUserMedia(constraints);
    window.client = new window.SfuGoClient(stream, sendEncodings);
    window.client.connect(`ws://${location.host}`, roomId, userId, userId.toUpperCase());
  }, [ROOM, name, encodings]);
  await eventually(`${name} is connected`, () => page.evaluate(() => window.client.pc?.connectionState === 'connected'));
}

async function enterSwitchboard(name) {
  const page = await open(name);
  await page.evaluate(async (room) => {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 320, height: 180, frameRate: 15 } });
    window.client = new window.SwitchboardClient();
    window.client.connect(`ws://${location.host}/ws`, room, stream);
  }, ROOM);
  await eventually(`${name} is connected`, () => page.evaluate(() => window.client.pc.connectionState === 'connected'));
}

/** Whether a message of that kind came that fits. */
function told(name, type, fits, more) {
  return tabs[name].evaluate(([kind, test, extra]) => {
    const is = (0, eval)(test);
    return window.client.messages.some((message) => message.type === kind && is(message.data, extra));
  }, [type, `(${fits})`, more]).then(Boolean);
}

/** Of a track, by the id that messages have for it. */
async function width(name, trackId) {
  const identifier = await tabs[name].evaluate((id) => {
    const { mid } = window.client.messages.findLast(({ type, data }) => type === 'track-added' && data.trackId === id).data;
    return window.client.pc.getTransceivers().find((line) => line.mid === mid).receiver.track.id;
  }, trackId);
  return (await received(tabs[name], 'client.pc')).get(identifier)?.width;
}

async function sees(name, people) {
  const flows = [...(await received(tabs[name], 'client.pc')).values()];
  return flows.filter(({ kind, frames }) => kind === 'video' && frames > 0).length >= people;
}

// Decodes pictures and hears sounds of so many people, all growing.
async function grows(name, people = 1) {
  const before = await received(tabs[name], 'client.pc');
  await sleep(1500); // the fake microphone beeps once a second
  const now = [...await received(tabs[name], 'client.pc')];
  const growing = (key) => now.filter(([id, flow]) => flow[key] > (before.get(id)?.[key] ?? 0)).length;
  return growing('frames') >= people && growing('energy') >= people;
}
