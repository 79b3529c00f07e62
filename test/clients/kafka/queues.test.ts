/** Queue commands where the other side is not what was hoped for. */
import test from 'ava';
import type { KafkaCluster } from '../../../clients/kafka/cluster.ts';
import { runBrokerCommand } from '../../../clients/kafka/queues.ts';

/** A cluster of one server with this feature and this answer. */
function clusterOf(feature: { minVersion: number; maxVersion: number } | undefined, answer?: string | null) {
  let sent = 0;
  const connection = {
    address: { host: 'h', port: 1 },
    feature: () => feature,
    send: async () => {
      sent++;
      return { errorCode: 0, errorMessage: null, queueAnswer: typeof answer === 'string' ? Buffer.from(answer) : null };
    },
  };
  // Only what the function asks of a cluster.
  const cluster = {
    any: async () => connection,
    retry: (work: () => Promise<unknown>) => work(),
  } as unknown as KafkaCluster;
  return { cluster, sent: () => sent };
}

test('a server without queues is told by name, and is sent nothing', async (t) => {
  for (const feature of [undefined, { minVersion: 2, maxVersion: 3 }]) {
    const { cluster, sent } = clusterOf(feature);
    const error = await t.throwsAsync(runBrokerCommand(cluster, { command: 'list' }), { code: 'UNSUPPORTED_VERSION' });
    t.regex(
      error?.message ?? '',
      /^h:1 has no queues for this client: it (does not offer it|has versions 2 to 3) \(feature millrace\.queues 1\)/,
    );
    t.is(sent(), 0);
  }
});

test('errors have the code and the words of the broker, known or not', async (t) => {
  const one = { minVersion: 1, maxVersion: 1 };
  const failing = async (code: string) => {
    const { cluster } = clusterOf(one, JSON.stringify({ error: { code, message: 'words' } }));
    return t.throwsAsync(runBrokerCommand(cluster, { command: 'purge' }), { message: 'words' });
  };
  t.like(await failing('QUEUE_NOT_FOUND'), { code: 'QUEUE_NOT_FOUND' });
  t.like(await failing('OF_THE_FUTURE'), { code: 'UNKNOWN_SERVER_ERROR' });
  const { cluster } = clusterOf(one, null);
  await t.throwsAsync(runBrokerCommand(cluster, { command: 'list' }), { code: 'UNSUPPORTED_VERSION' });
});
