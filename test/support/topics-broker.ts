/** A broker without doors, disk and groups: topics on the engine in memory, under a clock that stands still. */
import type { Broker } from '../../broker/broker.ts';
import { resolveOptions } from '../../broker/config.ts';
import type { Access } from '../../broker/access.ts';
import { TopicRegistry } from '../../broker/topics.ts';
import { ManualClock } from './manual-clock.ts';
import { MemoryEngine } from './memory-engine.ts';
import { SimRandom } from './sim-random.ts';

export interface TopicsBroker extends Broker {
  readonly clock: ManualClock;
  readonly engine: MemoryEngine;
  /** Topics that the groups were told are gone. */
  readonly forgotten: readonly string[];
}

export interface TopicsBrokerOptions {
  engine?: MemoryEngine;
  options?: Readonly<Record<string, string | number | boolean>>;
  seed?: number;
}

const allowed: Access = { authorize: () => true, authorizeTopic: () => true };

export async function openTopicsBroker(init: TopicsBrokerOptions = {}): Promise<TopicsBroker> {
  const clock = new ManualClock();
  const engine = init.engine ?? new MemoryEngine({ clock });
  const random = new SimRandom(init.seed ?? 1);
  const options = resolveOptions(init.options);
  const topics = new TopicRegistry({ engine, clock, random, options });
  await topics.load();
  await engine.discardUnopened();
  const forgotten: string[] = [];
  const parts = {
    forgotten,
    groups: { topicDeleted: ({ name }: { name: string }) => forgotten.push(name) },
    clock,
    random,
    options,
    clusterId: 'memory-cluster',
    dataDir: '/memory',
    engine,
    topics,
    access: allowed,
    advertised: ({ localHost, localPort }: { localHost: string; localPort: number }) => ({
      host: localHost,
      port: localPort,
    }),
  };
  // Groups and producer ids are missing: handlers that need more of them are tested with brokers of their own.
  return parts as unknown as TopicsBroker;
}
