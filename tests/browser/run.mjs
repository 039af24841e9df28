// Runs the browser tests one file after the other against the built server; the exit code says how it went.
//
//   node run.mjs                 all of them
//   node run.mjs rooms gryt      some
//   TRAMLINE_BIN=path            the server to test (default: target/debug/tramline)

import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { browserPath } from './lib/browser.mjs';
import { here } from './lib/paths.mjs';
import { serverPath } from './lib/server.mjs';

const FILE_TIMEOUT_MS = 4 * 60_000;

for (const [what, path] of [['server', serverPath], ['browser', browserPath]]) {
  if (existsSync(path)) continue;
  console.error(`The ${what} is not at ${path}.`);
  process.exit(2);
}

const wanted = process.argv.slice(2);
const files = readdirSync(here)
  .filter((name) => name.endsWith('.test.mjs'))
  .filter((name) => wanted.length === 0 || wanted.includes(basename(name, '.test.mjs')))
  .sort();
if (files.length === 0) {
  console.error(`No test is called ${wanted.join(' or ')}.`);
  process.exit(2);
}

// One at a time: three encoders already fill two cores.
const results = run({ files: files.map((name) => join(here, name)), concurrency: 1, timeout: FILE_TIMEOUT_MS });
results.on('test:fail', () => {
  process.exitCode = 1;
});
results.compose(new spec()).pipe(process.stdout);
