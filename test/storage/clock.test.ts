import { execFile } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { promisify } from 'node:util';
import test from 'ava';
import { systemClock } from '../../storage/clock.ts';

test('what is asked for at the end of a turn runs in the same turn, and what that asks for, too', async (t) => {
  const seen: string[] = [];
  const ended = new Promise<void>((resolve) => {
    systemClock.endOfTurn(() => {
      seen.push('written');
      systemClock.endOfTurn(() => {
        seen.push('answered');
        systemClock.endOfTurn(() => seen.push('confirmed'));
      });
      // The first chance of anybody else.
      setImmediate(() => {
        seen.push('next turn');
        resolve();
      });
    });
  });
  t.deepEqual(seen, []);
  await ended;
  t.deepEqual(seen, ['written', 'answered', 'confirmed', 'next turn']);
});

test('work that goes on at the end of every turn does not keep others from being read', async (t) => {
  const server = net.createServer((socket) => socket.end('served'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  let isServed = false;
  const again = (): void => {
    if (!isServed) systemClock.endOfTurn(again);
  };
  again();
  // A server on the same loop would never answer if those turns did not end.
  const { port } = server.address() as net.AddressInfo; // It listens on TCP.
  const socket = net.connect(port, '127.0.0.1');
  const [bytes] = (await once(socket, 'data')) as [Buffer]; // What 'data' events carry.
  isServed = true;
  t.is(bytes.toString(), 'served');
  server.close();
});

test('one that fails does not take the others with it', async (t) => {
  const script = `
    import { systemClock } from ${JSON.stringify(import.meta.resolve('../../storage/clock.js'))};
    process.once('uncaughtException', () => {});
    systemClock.endOfTurn(() => { throw new Error('of one of them'); });
    systemClock.endOfTurn(() => console.log('the other'));`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script]);
  t.is(stdout, 'the other\n');
});
