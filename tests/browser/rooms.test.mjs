// Three tabs in one room, through the page people use.

import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { launch, received, screenshot, srtpSuite } from './lib/browser.mjs';
import { eventually, sleep } from './lib/eventually.mjs';
import { Server } from './lib/server.mjs';
import { step } from './lib/step.mjs';

const WIDTH = 320;
const HEIGHT = 180;
const WATCH_MS = 10_000;

let server;
let browser;
const tabs = {}; // name -> page

before(async () => {
  server = await Server.start('rooms');
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.kill();
});

step('two people meet', async () => {
  await enter('Ana');
  await enter('Bo');
  await meet('Ana', 'Bo');
});

step('a late third one sees and hears the others', async () => {
  await sleep(3000); // the others are well past their first keyframes
  await enter('Carmen');
  await eventually('Carmen sees a first picture', async () => (await videos('Carmen')).some(({ frames }) => frames > 0));
  await meet('Ana', 'Bo', 'Carmen');
});

step('everybody decodes pictures of the right size and hears sound for ten seconds', async () => {
  const names = Object.keys(tabs);
  let earlier = await lookAround(names);
  const first = earlier;
  for (let passed = 0; passed < WATCH_MS; passed += 2000) {
    await sleep(2000);
    const now = await lookAround(names);
    for (const [key, flow] of now) {
      if (flow.kind === 'video') assert.ok(flow.frames > earlier.get(key).frames, `${key}: the picture stands still`);
    }
    earlier = now;
  }
  for (const [key, flow] of earlier) {
    if (flow.kind === 'video') assert.deepEqual([flow.width, flow.height], [WIDTH, HEIGHT], key);
    if (flow.kind === 'audio') assert.ok(flow.energy > first.get(key).energy, `${key}: silence`);
  }
  assert.equal(earlier.size, names.length * (names.length - 1) * 2, 'each has a picture and a sound of each other');
  for (const [key, flow] of earlier) {
    const was = first.get(key);
    if (flow.kind === 'video') console.log(`    ${key}: ${((flow.frames - was.frames) / (WATCH_MS / 1000)).toFixed(1)} frames per s`);
  }
  await tabs.Ana.bringToFront();
  await screenshot(tabs.Ana, 'grid');
});

step('the media is encrypted with AES-GCM', async () => {
  for (const [name, page] of Object.entries(tabs)) {
    const suite = await srtpSuite(page, 'tramline.pc');
    console.log(`    ${name}: ${suite}`);
    assert.match(suite, /AES_(128|256)_GCM/);
  }
});

step('a shared screen arrives as one more track and goes again', async () => {
  await tabs.Bo.click('#screen');
  for (const name of ['Ana', 'Carmen']) {
    await eventually(`${name} sees Bo's screen`, async () => {
      const screen = (await flows(name)).get('Bo/screen');
      const camera = (await flows(name)).get('Bo/camera');
      return screen?.frames > 0 && camera?.frames > 0 && screen.width > WIDTH;
    });
  }
  await eventually('the screen has a large tile', () => tabs.Ana.evaluate(() => document.querySelectorAll('.tile.screen.has-video').length === 1));
  await screenshot(tabs.Ana, 'screen');
  await tabs.Bo.click('#screen');
  for (const name of ['Ana', 'Carmen']) {
    await eventually(`Bo's screen is gone for ${name}`, async () => !(await flows(name)).has('Bo/screen')
      && tabs[name].evaluate(() => document.querySelectorAll('.tile.screen').length === 0));
  }
  await meet('Ana', 'Bo', 'Carmen');
});

step('switching the microphone and camera off is shown to the others and can be undone', async () => {
  const seen = () => tabs.Ana.evaluate(() => window.tramline.peers.find(({ name }) => name === 'Bo'));
  await tabs.Bo.click('#camera');
  await tabs.Bo.click('#mic');
  await eventually('Ana sees that Bo is muted and dark', async () => {
    const bo = await seen();
    return bo.audioMuted && bo.videoMuted;
  });
  await screenshot(tabs.Ana, 'muted');
  await tabs.Bo.click('#camera');
  await tabs.Bo.click('#mic');
  await eventually('Ana sees that Bo is back', async () => {
    const bo = await seen();
    return !bo.audioMuted && !bo.videoMuted;
  });
  await meet('Ana', 'Bo');
});

step('who leaves is gone everywhere and may come back', async () => {
  const gone = await tabs.Carmen.evaluate(() => window.tramline.userId);
  await tabs.Carmen.click('#leave');
  for (const name of ['Ana', 'Bo']) {
    await eventually(`Carmen is gone for ${name}`, () => tabs[name].evaluate(
      (id) => window.tramline.peers.length === 1 && !document.querySelector(`[data-user="${id}"]`),
      gone,
    ));
  }
  await tabs.Carmen.click('#join');
  await meet('Ana', 'Bo', 'Carmen');
  await tabs.Carmen.close(); // a closed tab says nothing, and is gone all the same
  delete tabs.Carmen;
  for (const name of ['Ana', 'Bo']) {
    await eventually(`Carmen's closed tab is gone for ${name}`, () => tabs[name].evaluate(() => window.tramline.peers.length === 1));
  }
});

step('the page comes back by itself when the server was killed and restarted', async () => {
  await enter('Carmen');
  await meet('Ana', 'Bo', 'Carmen');
  await server.kill();
  for (const [name, page] of Object.entries(tabs)) {
    await eventually(`${name} is told that the server is away`, () => page.evaluate(() => window.tramline.state === 'away'));
  }
  await sleep(1500);
  await screenshot(tabs.Ana, 'away');
  await server.again();
  await meet('Ana', 'Bo', 'Carmen');
});

step('a stopping server ends in peace', async () => {
  assert.equal(await server.stop(), 0);
});

async function enter(name) {
  const settings = new URLSearchParams({ room: 'r1', name, autojoin: '1', width: WIDTH, height: HEIGHT, fps: '15' });
  tabs[name] = await browser.open(name, server.url(`/#${settings}`));
  await eventually(`${name} is connected`, () => tabs[name].evaluate(() => window.tramline?.state === 'joined' && window.tramline.media === 'connected'));
}

// Everybody decodes a moving picture of everybody else, and gets their sound.
async function meet(...names) {
  const firsts = new Map();
  let missing = [];
  await eventually(`${names.join(', ')} see and hear each other`, async () => {
    missing = [];
    for (const name of names) {
      const now = await flows(name);
      for (const other of names.filter((one) => one !== name)) {
        for (const source of ['camera', 'microphone']) {
          const flow = now.get(`${other}/${source}`);
          if (!flow || !moves(firsts, `${name} ${other} ${source}`, flow)) missing.push([name, 'lacks', other, source, JSON.stringify(flow)].join(' '));
        }
      }
    }
    return missing.length === 0;
  }).catch((error) => {
    throw new Error([error.message, ...missing].join('; '));
  });
}

// Whether a flow goes on since it was first looked at; a new connection counts from zero again.
function moves(firsts, key, flow) {
  const progress = flow.kind === 'video' ? flow.frames : flow.energy;
  const first = firsts.get(key);
  if (first === undefined || progress < first) firsts.set(key, progress);
  return progress > (first ?? Infinity);
}

async function lookAround(names) {
  const all = new Map();
  for (const name of names) {
    for (const [key, flow] of await flows(name)) all.set(`${name} from ${key}`, flow);
  }
  return all;
}

async function videos(name) {
  return [...(await flows(name)).values()].filter(({ kind }) => kind === 'video');
}

// What arrives in a tab, as the page sorted it: 'Bo/camera' -> numbers.
async function flows(name) {
  const page = tabs[name];
  const byTrack = await received(page, 'tramline.pc');
  const peers = await page.evaluate(() => window.tramline.peers);
  const sorted = new Map();
  for (const peer of peers) {
    for (const [source, track] of Object.entries(peer.sources)) {
      if (byTrack.has(track)) sorted.set(`${peer.name}/${source}`, byTrack.get(track));
    }
  }
  return sorted;
}
