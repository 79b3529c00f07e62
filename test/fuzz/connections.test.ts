/** Many connections that do nothing, or stop half-way, against a broker in a process of its own, whose memory is read. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { frameOf, RawClient } from '../support/raw-client.ts';

const IDLE = 5_000;
const HALF_OPEN = 1_000;
const IDLE_BYTES_MAX = 32 * 1024;

/** File descriptors this process may have; undefined where /proc does not say. */
async function filesMax(): Promise<number | undefined> {
  const limits = await readFile('/proc/self/limits', 'utf8').catch(() => '');
  const line = /^Max open files\s+(\d+)/m.exec(limits);
  return line ? Number(line[1]) : undefined;
}

async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
}

async function startBroker(dataDir: string): Promise<{ child: ChildProcess; pid: number; bootstrap: string }> {
  const script = fileURLToPath(new URL('../crash/serve.js', import.meta.url));
  const config = { dataDir, doors: { kafka: { host: '127.0.0.1', port: 0 } } };
  const child = spawn(process.execPath, [script, JSON.stringify(config)], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = await once(createInterface(child.stdout), 'line');
  return { child, pid: child.pid ?? 0, bootstrap: `127.0.0.1:${String(line).slice(6)}` };
}

/** Opens `count` connections, sends `bytes` on each and, if asked, waits for one answer on each. */
async function open(bootstrap: string, count: number, bytes: Buffer, waits: boolean): Promise<net.Socket[]> {
  const sockets: net.Socket[] = [];
  const port = Number(bootstrap.split(':')[1]);
  for (let made = 0; made < count; made += 100) {
    await Promise.all(
      Array.from({ length: Math.min(100, count - made) }, async () => {
        const socket = net.connect({ host: '127.0.0.1', port });
        await once(socket, 'connect');
        socket.write(bytes);
        if (waits) await once(socket, 'data');
        // The broker is ended while they are open.
        socket.on('error', () => {});
        sockets.push(socket);
      }),
    );
  }
  return sockets;
}

test('idle and half-open connections cost little and harm nobody', async (t) => {
  const limit = await filesMax();
  if (limit === undefined || limit < IDLE + HALF_OPEN + 500) {
    t.log(`not run: needs /proc and ${IDLE + HALF_OPEN + 500} open files, ${limit ?? 'unknown'} are allowed`);
    t.pass();
    return;
  }
  const dataDir = await mkdtemp(join(tmpdir(), 'millrace-connections-'));
  const { child, pid, bootstrap } = await startBroker(dataDir);
  t.teardown(async () => {
    child.kill('SIGKILL');
    await rm(dataDir, { recursive: true, force: true });
  });
  const before = await residentBytes(pid);
  const idle = await open(bootstrap, IDLE, frameOf('ApiVersions', 0, {}), true);
  const each = ((await residentBytes(pid)) - before) / IDLE;
  t.log(`an idle connection costs ${(each / 1024).toFixed(1)} KiB`);
  t.true(each <= IDLE_BYTES_MAX);
  // Half a frame that claims to be large.
  const half = Buffer.alloc(20);
  half.writeInt32BE(50 * 1024 * 1024, 0);
  const halfOpen = await open(bootstrap, HALF_OPEN, half, false);
  const client = await RawClient.connect(bootstrap);
  t.is((await client.ask('ApiVersions', 0, {})).errorCode, 0);
  t.true((await residentBytes(pid)) - before <= (IDLE + HALF_OPEN) * IDLE_BYTES_MAX);
  client.close();
  for (const socket of [...idle, ...halfOpen]) socket.destroy();
});
