// Gryt's real client protocol: a control socket registers the room, the server offers, four fixed slots.

import assert from 'node:assert/strict';
import { createHmac, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { launch, received, srtpSuite } from './lib/browser.mjs';
import { eventually, sleep } from './lib/eventually.mjs';
import { here } from './lib/paths.mjs';
import { Server } from './lib/server.mjs';
import { step } from './lib/step.mjs';

const SERVER_ID = 'acme';
const PASSWORD = 'correct horse';
const ROOM = 'acme_general';
const CLIENT = readFileSync(join(here, 'clients/gryt.js'), 'utf8');

let server;
let browser;
const tabs = {};

before(async () => {
  server = await Server.start('gryt');
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.kill();
});

step('the control socket registers the room', async () => {
  tabs.control = await browser.open('control', server.url('/healthz'));
  const reply = await tabs.control.evaluate(([id, password, room]) => new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://${location.host}/server`);
    window.control = socket;
    window.notices = [];
    socket.onopen = () => socket.send(JSON.stringify({
      event: 'server_register',
      data: JSON.stringify({ server_id: id, server_password: password, room_id: room }),
    }));
    socket.onmessage = ({ data }) => {
      window.notices.push(JSON.parse(data));
      resolve(JSON.parse(data));
    };
    socket.onclose = ({ code }) => reject(new Error(`closed with ${code}`));
  }), [SERVER_ID, PASSWORD, ROOM]);
  assert.equal(reply.event, 'room_joined');
});

step('a client without a valid token is refused in a sentence', async () => {
  const page = await browser.open('stranger', server.url('/healthz'));
  await page.evaluate(CLIENT);
  await page.evaluate(([id, room]) => {
    window.client = new window.GrytClient();
    window.client.connect(`ws://${location.host}/client`, { room_id: room, server_id: id, user_token: 'v2.bm8.bm8', user_id: 'u-0' });
  }, [SERVER_ID, ROOM]);
  await eventually('the stranger is refused', () => page.evaluate(() => window.client.events.includes('room_error')));
  assert.equal(await page.evaluate(() => window.client.joined), false);
  await page.close();
});

step('two clients see and hear each other through the slots', async () => {
  for (const user of ['u-1', 'u-2']) await enter(user);
  for (const [user, other] of [['u-1', 'u-2'], ['u-2', 'u-1']]) {
    await eventually(`${user} sees and hears ${other}`, async () => grows(user));
  }
  for (const user of ['u-1', 'u-2']) assert.match(await srtpSuite(tabs[user], 'client.pc'), /AES_(128|256)_GCM/);
});

step('the stream ids are the publishers\' own', async () => {
  const published = async (user) => tabs[user].evaluate(() => ({
    audio: window.client.microphone.id,
    video: window.camera.id,
  }));
  const got = (user) => tabs[user].evaluate(() => window.client.tracks);
  for (const [user, other] of [['u-1', 'u-2'], ['u-2', 'u-1']]) {
    const streams = await published(other);
    const tracks = await got(user);
    for (const kind of ['audio', 'video']) {
      const ids = tracks.filter((track) => track.kind === kind).map((track) => track.streamId);
      assert.ok(ids.includes(streams[kind]), `${user} got ${kind} streams ${ids}, not ${streams[kind]}`);
    }
  }
});

step('the control socket hears of the peers', async () => {
  await eventually('both peers were told of', async () => {
    const notices = await tabs.control.evaluate(() => window.notices);
    const joined = notices.filter(({ event }) => event === 'peer_joined').map(({ data }) => JSON.parse(data).user_id);
    return joined.includes('u-1') && joined.includes('u-2');
  });
});

step('the same user joining again takes the place of the older connection', async () => {
  const older = tabs['u-2'];
  await enter('u-2', 'u-2 again');
  await eventually('the older connection is closed', () => older.evaluate(() => window.client.events.some((event) => event.startsWith('close'))));
  await eventually('u-2 sees and hears again', () => grows('u-2'));
});

async function enter(user, name = user) {
  const page = await browser.open(name, server.url('/healthz'));
  tabs[user] = page;
  await page.evaluate(CLIENT);
  await page.evaluate(async (join) => {
    const constraints = { video: { width: 320, height: 180, frameRate: 15 }, audio: true };
    const all = await navigator.mediaDevices.getUserMedia(constraints);
    window.camera = new MediaStream(all.getVideoTracks());
    window.client = new window.GrytClient();
    window.client.microphone = new MediaStream(all.getAudioTracks());
    window.client.connect(`ws://${location.host}/client`, join);
  }, { room_id: ROOM, server_id: SERVER_ID, user_token: token(user), user_id: user });
  await eventually(`${name} is connected`, () => page.evaluate(() => window.client.joined && window.client.pc.connectionState === 'connected'));
  const kinds = await page.evaluate(() => window.client.slots.map((line) => `${line.mid} ${line.receiver.track.kind}`));
  assert.deepEqual(kinds.map((slot) => slot.split(' ')[1]), ['audio', 'video', 'video', 'audio']);
  await page.evaluate(() => window.client.publishLater('camera', window.camera));
}

// Decodes a picture and hears a sound, both growing.
async function grows(user) {
  const before = await sums(user);
  await sleep(1500); // the fake microphone beeps once a second
  const now = await sums(user);
  return now.frames > before.frames && now.energy > before.energy;
}

async function sums(user) {
  const all = [...(await received(tabs[user], 'client.pc')).values()];
  const sum = (key) => all.reduce((total, flow) => total + flow[key], 0);
  return { frames: sum('frames'), energy: sum('energy') };
}

// v2.<payload>.<mac>: userId|roomId|expiryUnixMs|nonce|capabilities under the server's password.
function token(user) {
  const payload = [user, ROOM, Date.now() + 600_000, randomUUID(), 'speak,share_video,share_screen'].join('|');
  const mac = createHmac('sha256', PASSWORD).update(payload).digest('base64url');
  return `v2.${Buffer.from(payload).toString('base64url')}.${mac}`;
}
