import { readFileSync } from 'node:fs';
import test from 'ava';
import type { Directory } from '../../../broker/directory.ts';
import { startTestBroker } from '../../support/broker.ts';
import { type Administer, outcomes } from './access-cases.ts';

test('who may come in and what it may do is what RabbitMQ 4.0.5 says', async (t) => {
  const expected = readFileSync('test/adapters/amqp/access-4.0.5.txt', 'utf8').trimEnd().split('\n');
  const broker = await startTestBroker();
  try {
    const address = new URL(broker.amqp).host;
    t.deepEqual(await outcomes({ address, administer: on(broker.running.broker.directory) }), expected);
  } finally {
    await broker.stop();
  }
});

/** What RabbitMQ's HTTP API does, on the directory itself. */
function on({ users, vhosts }: Directory): Administer {
  return async (method, path, body = {}) => {
    const [what, ...names] = path.split('/');
    const [first, second, third] = names.map((name) => decodeURIComponent(name));
    const text = (name: string): string => String(body[name]);
    const limit = method === 'PUT' ? Number(body['value']) : undefined;
    switch (`${method} ${what}`) {
      case 'PUT vhosts':
        return void (await vhosts.put(first));
      case 'DELETE vhosts':
        return void (await vhosts.delete(first));
      case 'PUT users':
        return void (await users.put(
          first,
          'password' in body ? { password: text('password') } : { passwordHash: text('password_hash') },
        ));
      case 'DELETE users':
        return void (await users.delete(first));
      case 'PUT permissions': {
        const rights = { configure: text('configure'), write: text('write'), read: text('read') };
        return void (await users.permit({ vhost: first, user: second, ...rights }));
      }
      case 'DELETE permissions':
        return void (await users.forbid(second, first));
      case 'PUT topic-permissions': {
        const rights = { exchange: text('exchange'), write: text('write'), read: text('read') };
        return void (await users.permitTopic({ vhost: first, user: second, ...rights }));
      }
      case 'PUT vhost-limits':
      case 'DELETE vhost-limits':
        return vhosts.setLimit(first, second, limit);
      case 'PUT user-limits':
      case 'DELETE user-limits':
        return users.setLimit(first, second, limit);
      default:
        throw new Error(`${method} ${path} ${third}`);
    }
  };
}
