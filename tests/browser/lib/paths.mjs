// Where things are in the source tree.

import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder of the tests. */
export const here = resolve(dirname(fileURLToPath(import.meta.url)), '..');

/** The root of the source tree. */
export const root = resolve(here, '../..');

/** Cargo's output folder. */
export const target = resolve(root, process.env.CARGO_TARGET_DIR ?? 'target');
