// Waiting for things that come true: generous in time, exact in what is reported.

const PAUSE_MS = 250;

/** The longest a person would wait; far above what is expected. */
export const PATIENCE_MS = 20_000;

/** Waits until `probe` gives something truthy, prints how long it took, returns what it gave. */
export async function eventually(what, probe, timeoutMs = PATIENCE_MS) {
  const start = performance.now();
  let last;
  for (;;) {
    last = await probe();
    const elapsedMs = performance.now() - start;
    if (last) {
      console.log(`    ${what}: after ${(elapsedMs / 1000).toFixed(2)} s`);
      return last;
    }
    if (elapsedMs > timeoutMs) throw new Error(`not within ${timeoutMs / 1000} s: ${what}`);
    await sleep(PAUSE_MS);
  }
}

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
