import test from 'ava';
import { AmqpDoor } from '../../../adapters/amqp/door.ts';
import { Directory } from '../../../broker/directory.ts';
import { openCoordinators } from '../../../broker/main.ts';
import { openMemoryAmqp } from '../../support/amqp-client.ts';

test('what a crash left of a deleted vhost is gone after the next start, and does not come back with its name', async (t) => {
  const { door, engine, broker, clock } = await openMemoryAmqp();
  const { random, options } = broker;
  await broker.directory.vhosts.put('gone');
  const vhost = door.vhosts.get('gone');
  if (vhost === undefined) return t.fail('the vhost was not made');
  const flags = { isDurable: true, isExclusive: false, isAutoDelete: false };
  const queue = vhost.declareQueue({ name: 'q', ...flags, arguments: [] }, {});
  vhost.declareExchange({ name: 'x', type: 'fanout', ...flags, isInternal: false, arguments: [] });
  const binding = { destination: 'q', destinationKind: 'queue', routingKey: '', arguments: [] } as const;
  vhost.bind({ source: 'x', ...binding });
  vhost.bind({ source: 'amq.fanout', ...binding });
  t.is(queue.queue.name, 'amq.escaped.gone.q');

  // The crash: the directory has lost the vhost, and nobody was told.
  const second = engine.restart();
  const directory = new Directory({ engine: second, clock, random, options });
  await directory.load();
  await directory.vhosts.delete('gone');

  const third = second.restart();
  const report = (message: string): void => t.fail(message);
  const parts = { engine: third, clock, random, options, report };
  const coordinators = await openCoordinators(parts);
  const { topics, queues, queueReader: reader } = coordinators;
  const later = new AmqpDoor({ ...parts, ...coordinators, reader, memoryBytes: () => 0 });
  await later.load();
  t.deepEqual([...later.vhosts.keys()], ['/']);
  t.deepEqual(
    queues.all().map(({ name }) => name),
    [],
  );
  t.is(topics.get('amq.escaped.gone.q'), undefined);
  await coordinators.directory.vhosts.put('gone');
  const again = later.vhosts.get('gone');
  t.is(again?.find('q'), undefined);
  t.is(again?.exchanges.get('x'), undefined);
  t.deepEqual([...(again?.exchanges.bindings() ?? [])], []);
});
