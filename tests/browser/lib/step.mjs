// Tests of one file that build on each other: after the first failure the rest is skipped, not waited for.

import { test } from 'node:test';

let broken = false;

/** A test that runs only if all before it in this file passed. */
export function step(name, body) {
  test(name, async (context) => {
    if (broken) return context.skip('an earlier step failed');
    try {
      return await body(context);
    } catch (error) {
      broken = true;
      throw error;
    }
  });
}
