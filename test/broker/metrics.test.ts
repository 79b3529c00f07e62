import test from 'ava';
import { answer } from '../../broker/admin.ts';
import { Metrics } from '../../broker/metrics.ts';

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
