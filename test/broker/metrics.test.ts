import test from 'ava';
import { answer } from '../../broker/admin.ts';
import { resolveOptions } from '../../broker/config.ts';
import { openBroker } from '../../broker/main.ts';
import { Metrics } from '../../broker/metrics.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';

test('metrics are written in the text format, labels escaped', (t) => {
  const metrics = new Metrics();
  metrics.counter('a_total', 'An a.').add(3);
  metrics.observed('gauge', 'b', 'A b.', () => [[{ topic: 'x"y\\z' }, 1.5]]);
  const histogram = metrics.histogram('c_seconds', 'A c.', [0.1, 1]);
  for (const value of [0.05, 0.1, 0.5, 7]) histogram.observe(value);
  t.is(
    metrics.render(),
    [
      '# HELP a_total An a.',
      '# TYPE a_total counter',
      'a_total 3',
      '# HELP b A b.',
      '# TYPE b gauge',
      'b{topic="x\\"y\\\\z"} 1.5',
      '# HELP c_seconds A c.',
      '# TYPE c_seconds histogram',
      'c_seconds_bucket{le="0.1"} 2',
      'c_seconds_bucket{le="1"} 3',
      'c_seconds_bucket{le="+Inf"} 4',
      'c_seconds_sum 7.65',
      'c_seconds_count 4',
      '',
    ].join('\n'),
  );
});

test('readiness says why the broker is not ready', (t) => {
  let reason: string | undefined = 'the disk is full';
  const state = { metrics: new Metrics(), notReady: () => reason };
  t.like(answer(state, 'GET', '/health/ready'), { status: 503, body: 'not ready: the disk is full\n' });
  reason = undefined;
  t.is(answer(state, 'GET', '/health/ready').status, 200);
  t.is(answer(state, 'GET', '/health/live').status, 200);
  t.is(answer(state, 'POST', '/metrics').status, 405);
  t.is(answer(state, 'GET', '/nothing').status, 404);
});

test('the page of a broker is valid: every line is a sample of a family declared before, no series twice', async (t) => {
  const clock = new SimClock();
  const { broker, metrics, close } = await openBroker({
    disk: new SimDisk({ clock }),
    clock,
    random: new SimRandom(1),
    dataDir: '/data',
    options: resolveOptions({ 'num.partitions': 3, 'journal.file.bytes': 1024 * 1024 }),
    log: () => {},
  });
  for (const name of ['a', 'b.c_d-e']) broker.topics.autoCreate(name);
  const families = new Set<string>();
  const series = new Set<string>();
  for (const line of metrics.render().trimEnd().split('\n')) {
    const type = /^# TYPE (\w+) (?:counter|gauge|histogram)$/.exec(line);
    if (type) {
      t.false(families.has(type[1]), line);
      families.add(type[1]);
      continue;
    }
    if (/^# HELP \w+ [^\\]+$/.test(line)) continue;
    const sample = /^((\w+?)(?:_bucket|_sum|_count)?(?:\{(?:\w+="(?:[^"\\]|\\.)*",?)+\})?) -?[0-9.e+-]+$/.exec(line);
    t.truthy(sample, line);
    if (!sample) continue;
    t.false(series.has(sample[1]), line);
    series.add(sample[1]);
    t.true(families.has(sample[2]) || families.has(/^\w+/.exec(line)?.[0] ?? ''), line);
  }
  t.true(series.has('millrace_partition_end_offset{topic="b.c_d-e",partition="2"}'));
  await Promise.all([close(), clock.advance(1000)]);
});
