// The real server as a child process on ports of its own.

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createWriteStream, mkdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { eventually } from './eventually.mjs';
import { root, target } from './paths.mjs';

/** The binary under test. */
export const serverPath = resolve(root, process.env.TRAMLINE_BIN ?? join(target, 'debug/tramline'));

const HEALTHY_MS = 20_000;
const STOP_MS = 12_000; // a graceful stop may take 10 s
const logs = join(target, 'browser-logs');

// A test that is cut short must not leave its server behind.
const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

export class Server {
  #child = null;
  #name;
  #settings;

  /** Starts a server; `name` names its log file in target/browser-logs, `settings` are more of its variables. */
  static async start(name, settings = {}) {
    const server = new Server();
    server.#name = name;
    server.#settings = settings;
    server.httpPort = await freeTcpPort();
    server.mediaPort = await freeUdpPort();
    await server.again();
    return server;
  }

  /** An address on this server. */
  url(path = '/') {
    return `http://127.0.0.1:${this.httpPort}${path}`;
  }

  /** Starts the server on the same ports as before. */
  async again() {
    mkdirSync(logs, { recursive: true });
    const log = createWriteStream(join(logs, `${this.#name}.log`), { flags: 'a' });
    const child = spawn(serverPath, [], {
      cwd: logs, // away from a developer's .env
      env: {
        PATH: process.env.PATH,
        SFU_PORT: String(this.httpPort),
        ICE_UDP_MUX_PORT: String(this.mediaPort),
        ICE_ADVERTISE_IP: '127.0.0.1',
        LOG_LEVEL: process.env.LOG_LEVEL ?? 'info',
        ...this.#settings,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    this.#child = child;
    running.add(child);
    child.once('exit', () => running.delete(child));
    await eventually('the server is healthy', async () => {
      if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}; see ${this.#name}.log`);
      const response = await fetch(this.url('/health')).catch(() => null);
      return response?.status === 200;
    }, HEALTHY_MS);
  }

  /** Ends it as a power cut would. */
  async kill() {
    await this.#end('SIGKILL');
  }

  /** Asks it to stop; returns its exit code, null if it had to be killed. */
  async stop() {
    const timer = setTimeout(() => this.#child?.kill('SIGKILL'), STOP_MS);
    const code = await this.#end('SIGTERM');
    clearTimeout(timer);
    return code;
  }

  // Only ever our own child.
  async #end(signal) {
    const child = this.#child;
    this.#child = null;
    if (!child || child.exitCode !== null) return child?.exitCode ?? null;
    const exit = once(child, 'exit');
    child.kill(signal);
    const [code] = await exit;
    return code;
  }
}

async function freeTcpPort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}

async function freeUdpPort() {
  const probe = createSocket('udp4').bind(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  return port;
}
