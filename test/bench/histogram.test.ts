import test from 'ava';
import fc from 'fast-check';
import { LatencyHistogram } from '../../bench/histogram.ts';

test('small latencies are exact', (t) => {
  const histogram = new LatencyHistogram();
  for (let us = 1; us <= 100; us++) histogram.record(us);
  t.is(histogram.percentileUs(50), 50);
  t.is(histogram.percentileUs(99), 99);
  t.is(histogram.percentileUs(100), 100);
  t.is(histogram.count, 100);
});

test('an empty histogram has zeros', (t) => {
  t.is(new LatencyHistogram().percentileUs(99), 0);
});

test('every percentile is the true one or at most one percent above it', (t) => {
  const latencies = fc.array(fc.integer({ min: 0, max: 100_000_000 }), { minLength: 1, maxLength: 200 });
  fc.assert(
    fc.property(latencies, fc.integer({ min: 1, max: 100 }), (values, percent) => {
      const histogram = new LatencyHistogram();
      for (const value of values) histogram.record(value);
      const sorted = [...values].sort((a, b) => a - b);
      const exact = sorted[Math.ceil((sorted.length * percent) / 100) - 1];
      const found = histogram.percentileUs(percent);
      return found >= exact && found <= exact * 1.01;
    }),
  );
  t.pass();
});

test('latencies beyond the range count as the highest seen', (t) => {
  const histogram = new LatencyHistogram();
  histogram.record(1e12);
  t.is(histogram.percentileUs(50), 1e12);
  t.is(histogram.maxUs, 1e12);
});
