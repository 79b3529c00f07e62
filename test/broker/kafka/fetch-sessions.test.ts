import test from 'ava';
import { FetchSessions, type FetchTarget, nextEpoch } from '../../../broker/kafka/fetch-sessions.ts';
import { SimClock } from '../../support/sim-clock.ts';
import { SimRandom } from '../../support/sim-random.ts';

function targets(count: number): Map<string, FetchTarget> {
  return new Map(
    Array.from({ length: count }, (_, partition) => [
      `${partition} t`,
      {
        topic: 't',
        partition,
        fetchOffset: 0,
        partitionMaxBytes: 1,
        currentLeaderEpoch: -1,
        lastFetchedEpoch: -1,
        sentHighWatermark: -1,
        sentStartOffset: -1,
        isAnswered: false,
      },
    ]),
  );
}

test('without a free slot no session is opened', (t) => {
  const sessions = new FetchSessions(new SimClock(), new SimRandom(1), 2);
  t.truthy(sessions.open(targets(1), true));
  t.truthy(sessions.open(targets(1), true));
  t.is(sessions.open(targets(1), true), undefined);
  t.is(sessions.size, 2);
});

test('a session idle for two minutes gives its slot away, the one used longest ago first', async (t) => {
  const clock = new SimClock();
  const sessions = new FetchSessions(clock, new SimRandom(1), 2);
  const first = sessions.open(targets(5), true);
  const second = sessions.open(targets(5), true);
  await clock.advance(120_001);
  t.truthy(sessions.use(first?.id ?? 0));
  t.truthy(sessions.open(targets(1), true));
  t.is(sessions.use(second?.id ?? 0), undefined);
  t.truthy(sessions.use(first?.id ?? 0));
  t.is(sessions.evictions, 1);
});

test('an old smaller session gives way to a larger one, a larger one does not', async (t) => {
  const clock = new SimClock();
  const sessions = new FetchSessions(clock, new SimRandom(1), 2);
  const small = sessions.open(targets(2), true);
  const large = sessions.open(targets(9), true);
  await clock.advance(120_001);
  sessions.use(small?.id ?? 0);
  sessions.use(large?.id ?? 0);
  t.is(sessions.open(targets(2), true), undefined);
  t.truthy(sessions.open(targets(3), true));
  t.is(sessions.use(small?.id ?? 0), undefined);
});

test('session ids are positive and epochs start again at 1', (t) => {
  const sessions = new FetchSessions(new SimClock(), new SimRandom(3), 100);
  for (let index = 0; index < 100; index++) t.true((sessions.open(targets(1), false)?.id ?? 0) > 0);
  t.is(nextEpoch(1), 2);
  t.is(nextEpoch(2_147_483_647), 1);
});

test('the partitions of all sessions together are limited', (t) => {
  const sessions = new FetchSessions(new SimClock(), new SimRandom(1), 10, 10);
  const first = sessions.open(targets(4), true);
  const second = sessions.open(targets(5), true);
  t.truthy(second);
  t.is(sessions.open(targets(2), true), undefined);
  // A session that grows beyond it is gone, and has given back what it held.
  if (first) {
    for (const [key, target] of targets(6)) first.targets.set(key, target);
    t.false(sessions.count(first));
    t.is(sessions.use(first.id), undefined);
  }
  t.truthy(sessions.open(targets(5), true));
  t.is(sessions.open(targets(1), true), undefined);
  sessions.remove(second?.id ?? 0);
  t.truthy(sessions.open(targets(5), true));
});
