/** Configs of groups: what is refused, in Apache Kafka 4.4's words, and what coordinators are told. */
import test from 'ava';
import { resolveOptions } from '../../broker/config.ts';
import { checkGroupConfigs, GroupConfigs, groupConfigs, groupConfigValue } from '../../broker/group-configs.ts';
import { TopicRegistry } from '../../broker/topics.ts';
import { MillraceError } from '../../protocol/errors.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { MemoryEngine } from '../support/memory-engine.ts';
import { SimRandom } from '../support/sim-random.ts';

const options = resolveOptions();

function told(values: Record<string, string>): string {
  try {
    return JSON.stringify(Object.fromEntries(checkGroupConfigs(new Map(Object.entries(values)), options)));
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'INVALID_CONFIG') return error.message;
    throw error;
  }
}

const RESET = 'share.auto.offset.reset';
const resetProblem = (value: string): string =>
  `Invalid value ${value} for configuration ${RESET}: Invalid value \`${value}\` for configuration ${RESET}. The value must be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'.`;

// Each line was asked of Apache Kafka 4.4.
const answers: [Record<string, string>, string][] = [
  [{ nope: '1' }, 'Unknown group config name: nope'],
  [
    { 'consumer.session.timeout.ms': 'abc' },
    'Invalid value abc for configuration consumer.session.timeout.ms: Not a number of type INT',
  ],
  [
    { 'consumer.session.timeout.ms': '0' },
    'Invalid value 0 for configuration consumer.session.timeout.ms: Value must be at least 1',
  ],
  [
    { 'consumer.session.timeout.ms': '70000' },
    'consumer.session.timeout.ms must be in the range 45000 to 60000 inclusive.',
  ],
  [{ 'consumer.session.timeout.ms': ' 50000 ' }, '{"consumer.session.timeout.ms":"50000"}'],
  [
    { 'consumer.heartbeat.interval.ms': '20000' },
    'consumer.heartbeat.interval.ms must be in the range 5000 to 15000 inclusive.',
  ],
  [
    { 'consumer.assignment.interval.ms': '99999999' },
    'consumer.assignment.interval.ms must be in the range 0 to 15000 inclusive.',
  ],
  [
    { 'share.record.lock.duration.ms': '999' },
    'Invalid value 999 for configuration share.record.lock.duration.ms: Value must be at least 1000',
  ],
  [
    { 'share.record.lock.duration.ms': '1000' },
    'share.record.lock.duration.ms must be in the range 15000 to 60000 inclusive.',
  ],
  [
    { 'share.delivery.count.limit': '1' },
    'Invalid value 1 for configuration share.delivery.count.limit: Value must be at least 2',
  ],
  [{ 'share.delivery.count.limit': '100' }, 'share.delivery.count.limit must be in the range 2 to 10 inclusive.'],
  [
    { 'share.partition.max.record.locks': '99' },
    'Invalid value 99 for configuration share.partition.max.record.locks: Value must be at least 100',
  ],
  [
    { 'share.assignment.interval.ms': '-1' },
    'Invalid value -1 for configuration share.assignment.interval.ms: Value must be at least 0',
  ],
  [{ [RESET]: 'foo' }, resetProblem('foo')],
  [{ [RESET]: 'EARLIEST' }, resetProblem('EARLIEST')],
  [{ [RESET]: 'by_duration:' }, resetProblem('by_duration:')],
  [{ [RESET]: 'by_duration:P' }, resetProblem('by_duration:P')],
  [{ [RESET]: 'by_duration:PT' }, resetProblem('by_duration:PT')],
  [{ [RESET]: 'by_duration:-PT1H' }, resetProblem('by_duration:-PT1H')],
  [{ [RESET]: 'by_duration:P1DT2H3M4.5S' }, '{"share.auto.offset.reset":"by_duration:P1DT2H3M4.5S"}'],
  [
    { 'share.isolation.level': 'READ_COMMITTED' },
    'Invalid value READ_COMMITTED for configuration share.isolation.level: String must be one of: read_committed, read_uncommitted',
  ],
  [
    { 'share.renew.acknowledge.enable': 'maybe' },
    'Invalid value maybe for configuration share.renew.acknowledge.enable: Expected value to be either true or false',
  ],
  [
    { 'errors.deadletterqueue.topic.name': '__x' },
    "errors.deadletterqueue.topic.name: DLQ topic name must not start with '__'",
  ],
  [{ 'errors.deadletterqueue.topic.name': 'dead' }, '{"errors.deadletterqueue.topic.name":"dead"}'],
];

test('values are refused as Apache Kafka refuses them', (t) => {
  for (const [values, answer] of answers) t.is(told(values), answer);
});

test('a session must outlast a heartbeat, whichever of the two is set', (t) => {
  const close = resolveOptions({ 'group.consumer.session.timeout.ms': 6_000 });
  const check = (values: [string, string][]) => () => checkGroupConfigs(new Map(values), close);
  const message = 'consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms';
  t.throws(check([['consumer.heartbeat.interval.ms', '6000']]), { message });
  t.notThrows(check([['share.heartbeat.interval.ms', '15000']]));
});

test('typed values come from the group, else from the options, and are cut to the range of now', (t) => {
  const now = resolveOptions({ 'group.share.delivery.count.limit': 7 });
  const configs = new GroupConfigs(now);
  t.is(configs.get('g').shareDeliveryCountLimit, 7);
  t.is(configs.get('g').shareAutoOffsetReset, 'latest');
  t.is(configs.get('g').deadLetterTopic, null);
  configs.set(
    'g',
    new Map([
      ['share.delivery.count.limit', '10'],
      [RESET, 'by_duration:P1DT2H3M4.5S'],
      ['share.isolation.level', 'read_committed'],
      ['errors.deadletterqueue.topic.name', 'dead'],
    ]),
  );
  t.is(configs.get('g').shareDeliveryCountLimit, 10);
  t.deepEqual(configs.get('g').shareAutoOffsetReset, { beforeMs: 93_784_500 });
  t.is(configs.get('g').shareIsolationLevel, 'read_committed');
  t.is(configs.get('g').deadLetterTopic, 'dead');
  t.is(configs.get('other').shareDeliveryCountLimit, 7);
  now['group.share.max.delivery.count.limit'] = 9;
  configs.optionsChanged();
  t.is(configs.get('g').shareDeliveryCountLimit, 9);
  for (const name of Object.keys(groupConfigs)) t.is(typeof groupConfigValue(name, new Map(), now), 'string');
});

test('whoever listens is told of a change, of one group or of all', (t) => {
  const configs = new GroupConfigs(resolveOptions());
  const changes: (string | undefined)[] = [];
  configs.onChange((groupId) => changes.push(groupId));
  configs.set('g', new Map([['share.isolation.level', 'read_committed']]));
  configs.set('g', new Map());
  configs.optionsChanged();
  t.deepEqual(changes, ['g', 'g', undefined]);
  t.is(configs.size, 0);
});

test('what was set outlives a restart; as many groups have configs as there may be groups', async (t) => {
  const open = async (engine: MemoryEngine): Promise<TopicRegistry> => {
    const parts = { clock: new ManualClock(), random: new SimRandom(1), options: resolveOptions({ 'groups.max': 2 }) };
    const topics = new TopicRegistry({ engine, ...parts });
    await topics.load();
    return topics;
  };
  const engine = new MemoryEngine({ clock: new ManualClock() });
  const topics = await open(engine);
  const values = new Map([['consumer.session.timeout.ms', '50000']]);
  topics.configureGroup('a', values);
  topics.configureGroup('b', values);
  t.throws(() => topics.configureGroup('c', values), { message: /As many groups/ });
  topics.configureGroup('c', new Map());
  topics.configureGroup('b', new Map());
  const again = await open(engine.restart());
  t.deepEqual([...again.groupConfigs.groupIds()], ['a']);
  t.is(again.groupConfigs.get('a').consumerSessionTimeoutMs, 50_000);
});
