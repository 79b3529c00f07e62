import test from 'ava';
import { openMemoryBroker } from '../../support/memory-broker.ts';
import { frameOf } from '../../support/raw-client.ts';

async function errorFor(version: number, request: Parameters<typeof frameOf<'ApiVersions'>>[2]): Promise<number> {
  const { connect, clock } = await openMemoryBroker({ 'node.id': 3 });
  const client = connect();
  client.send(frameOf('ApiVersions', version, { clientSoftwareName: 'a', clientSoftwareVersion: '1', ...request }));
  await clock.advance(1);
  return client.answer(0, 'ApiVersions', version).errorCode;
}

test('software names are checked as KIP-511 has them', async (t) => {
  t.is(await errorFor(3, { clientSoftwareName: 'librdkafka', clientSoftwareVersion: '2.11.0' }), 0);
  t.is(await errorFor(3, { clientSoftwareName: '' }), 42);
  t.is(await errorFor(3, { clientSoftwareVersion: 'a b' }), 42);
});

test('a client that meant another node or cluster is sent back to its bootstrap servers', async (t) => {
  t.is(await errorFor(5, {}), 0);
  t.is(await errorFor(5, { clusterId: 'memory', nodeId: 3 }), 0);
  t.is(await errorFor(5, { clusterId: 'other', nodeId: 3 }), 129);
  t.is(await errorFor(5, { clusterId: 'memory', nodeId: 4 }), 129);
  // Both or none.
  t.is(await errorFor(5, { clusterId: 'memory' }), 42);
  t.is(await errorFor(5, { nodeId: 3 }), 42);
});
