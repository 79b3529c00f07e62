import test from 'ava';
import { resolveOptions } from '../../broker/config.ts';
import { openBroker } from '../../broker/main.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';
import { buildBatch } from '../../protocol/record-batch.ts';

test('metrics tell how much is in each declared queue, how old it is, and what happened', async (t) => {
  const clock = new SimClock();
  const opened = await clock.settle(
    openBroker({
      disk: new SimDisk({ clock }),
      clock,
      random: new SimRandom(1),
      dataDir: 'data',
      options: resolveOptions(),
      log: () => {},
    }),
  );
  const { queues, engine } = opened.broker;
  const queue = queues.declare({ name: 'orders', kind: 'owned', family: 'millrace' });
  const [log] = queue.topic.partitions;
  await log.prepare();
  const records = ['a', 'b', 'c'].map((value) => ({ key: null, value: Buffer.from(value), timestamp: clock.now() }));
  const { position } = log.append(buildBatch(records), { origin: 'client', urgency: 'waited' });
  await clock.settle(new Promise<void>((resolve) => engine.whenDurable(position, resolve)));
  const consumer = queues.consumer({
    door: 'sqs',
    lockMs: 30_000,
    onAcquired: (_queue, { runs: [{ firstOffset }] }) =>
      queue.settle('any', 0, [{ firstOffset, lastOffset: firstOffset, kind: 'accept' }]),
  });
  consumer.join(queue);
  consumer.want({ messages: 2 });
  await clock.advance(5000);
  opened.metrics.render();
  await clock.advance(1000);
  const page = opened.metrics.render();
  for (const line of [
    'millrace_queues 1',
    'millrace_queue_consumers 1',
    'millrace_queue_messages{queue="orders",state="ready"} 1',
    'millrace_queue_messages{queue="orders",state="in_flight"} 1',
    'millrace_queue_messages{queue="orders",state="delayed"} 0',
    'millrace_queue_events_total{queue="orders",event="delivered"} 2',
    'millrace_queue_events_total{queue="orders",event="settled"} 1',
    'millrace_queue_delivered_total 2',
    'millrace_queue_oldest_seconds{queue="orders"} 6',
  ]) {
    t.true(page.split('\n').includes(line), `${line}\n${page.match(/.*_queue_?.*/g)?.join('\n')}`);
  }
  await clock.settle(opened.close());
});
