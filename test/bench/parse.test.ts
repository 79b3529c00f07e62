import test from 'ava';
import { checkoutRoot, parseCpuSeconds, parseMemory } from '../../bench/machine.ts';
import { parseMetrics } from '../../bench/millrace.ts';
import {
  parseConsumerPerformance,
  parseEndToEndLatency,
  parseProducerPerformance,
  parseShareConsumerPerformance,
} from '../../bench/peers/kafka/tools.ts';
import { parsePerfTest } from '../../bench/peers/rabbitmq/perf-test.ts';

test('CPU time is user and system time, whatever the command is called', (t) => {
  const fields = 'S 1 2 3 4 5 6 7 8 9 10 1234 66 0 0 20 0 11 0 5 0 0';
  t.is(parseCpuSeconds(`42 (node (odd) name) ${fields}`), 13);
});

test('memory is read in MiB', (t) => {
  t.deepEqual(parseMemory('Name:\tnode\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n'), { rssMib: 100, peakMib: 200 });
});

test('of the lines of ProducerPerformance the summary counts', (t) => {
  const text = [
    '50001 records sent, 9999.8 records/sec (9.54 MB/sec), 2.1 ms avg latency, 301.0 ms max latency.',
    '100000 records sent, 12345.6 records/sec (11.77 MB/sec), 1.50 ms avg latency, 301.00 ms max latency, 1 ms 50th, 4 ms 95th, 9 ms 99th, 50 ms 99.9th.',
  ].join('\n');
  t.deepEqual(parseProducerPerformance(text), { recordsPerSecond: 12346, mbPerSecond: 11.77, p50Ms: 1, p99Ms: 9 });
});

test('the rate of ConsumerPerformance leaves out joining the group', (t) => {
  const text = [
    'start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec',
    '2026-01-02 03:04:05:678, 2026-01-02 03:04:07:678, 95.3674, 47.6, 100000, 50000.0, 1000, 1000, 95.3674, 100000.0',
  ].join('\n');
  t.deepEqual(parseConsumerPerformance(text), { recordsPerSecond: 100_000, mbPerSecond: 95.3674 });
});

test('percentiles of EndToEndLatency are whole milliseconds', (t) => {
  const text = 'Avg latency: 0.5210 ms\n\nPercentiles: 50th = 0, 99th = 2, 99.9th = 5\n';
  t.deepEqual(parseEndToEndLatency(text), { p50Ms: 0, p99Ms: 2 });
});

test('a tool that printed no figures is an error that shows what it printed', (t) => {
  t.throws(() => parseProducerPerformance('no such topic'), { message: /no such topic/ });
  t.throws(() => parseConsumerPerformance('no such topic'), { message: /no such topic/ });
  t.throws(() => parseEndToEndLatency('no such topic'), { message: /no such topic/ });
});

test('metrics are read by name and labels', (t) => {
  const page = '# HELP a b\n# TYPE a counter\na 5\nb_bucket{le="+Inf"} 7\n';
  t.deepEqual(
    [...parseMetrics(page)],
    [
      ['a', 5],
      ['b_bucket{le="+Inf"}', 7],
    ],
  );
});

test('the checkout is found from wherever the build lies', (t) => {
  t.true(checkoutRoot().endsWith('/'));
});

test('ShareConsumerPerformance: the row under the heading', (t) => {
  const text = [
    'start.time, end.time, data.consumed.in.MB, MB.sec, nMsg.sec, data.consumed.in.nMsg, fetch.time.ms',
    '2026-03-01 12:51:41:017, 2026-03-01 12:51:43:829, 286.1023, 101.7433, 106685.6330, 300000, 2812',
  ].join('\n');
  t.deepEqual(parseShareConsumerPerformance(text), { recordsPerSecond: 106_686, mbPerSecond: 101.7433 });
  t.throws(() => parseShareConsumerPerformance('nothing'), { message: /no figures/ });
});

test('PerfTest: the averages at its end, not the lines of its seconds', (t) => {
  const text = [
    'id: bench, time 1.000 s, sent: 900 msg/s, received: 800 msg/s, min/median/75th/95th/99th consumer latency: 1/2/3/4/5 µs',
    'id: bench, sending rate avg: 12625 msg/s',
    'id: bench, receiving rate avg: 12609 msg/s',
    'id: bench, consumer latency min/median/75th/95th/99th 12453/129390/350909/729924/1106139 µs',
    'id: bench, confirm latency min/median/75th/95th/99th 1/18/33/126/262 ms',
  ].join('\n');
  t.deepEqual(parsePerfTest(text), {
    sent: 12_625,
    received: 12_609,
    confirmP50Us: 18_000,
    confirmP99Us: 262_000,
    endP50Us: 129_390,
    endP99Us: 1_106_139,
  });
});
