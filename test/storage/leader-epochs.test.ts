import test from 'ava';
import { LeaderEpochs } from '../../storage/leader-epochs.ts';

const three = (): LeaderEpochs =>
  new LeaderEpochs([
    { epoch: 2, startOffset: 10 },
    { epoch: 4, startOffset: 20 },
    { epoch: 5, startOffset: 30 },
  ]);

test('an epoch ends where the next begins, the latest at the end of the log', (t) => {
  const epochs = three();
  const end = (epoch: number): number[] => Object.values(epochs.endOffsetFor(epoch, 99));
  t.deepEqual(end(5), [5, 99]);
  t.deepEqual(end(4), [4, 30]);
  t.deepEqual(end(3), [2, 20]);
  t.deepEqual(end(2), [2, 20]);
  t.deepEqual(end(1), [1, 10], 'below all: as asked, up to where the first known one starts');
  t.deepEqual(end(6), [-1, -1]);
  t.deepEqual(end(-1), [-1, -1]);
  t.deepEqual(Object.values(new LeaderEpochs().endOffsetFor(0, 0)), [-1, -1]);
});

test('the epoch at an offset is that of the last start at or before it', (t) => {
  const epochs = three();
  t.deepEqual(
    [9, 10, 19, 20, 31].map((offset) => epochs.epochFor(offset)),
    [-1, 2, 2, 4, 5],
  );
  t.is(epochs.latest, 5);
  t.is(new LeaderEpochs().latest, -1);
});

test('only a higher epoch is news, and one that began at the same offset is forgotten', (t) => {
  const epochs = three();
  t.false(epochs.assign(5, 40));
  t.false(epochs.assign(3, 40));
  t.true(epochs.assign(7, 30));
  t.deepEqual(
    epochs.entries.map(({ epoch }) => epoch),
    [2, 4, 7],
  );
});

test('a cut at the end forgets later epochs, one at the start keeps the epoch in force', (t) => {
  const cut = three();
  t.false(cut.truncateFromEnd(31));
  t.true(cut.truncateFromEnd(30));
  t.is(cut.latest, 4);
  const risen = three();
  t.false(risen.truncateFromStart(5));
  t.false(risen.truncateFromStart(10));
  t.true(risen.truncateFromStart(25));
  t.deepEqual(risen.entries, [
    { epoch: 4, startOffset: 25 },
    { epoch: 5, startOffset: 30 },
  ]);
  t.true(risen.truncateFromStart(100));
  t.deepEqual(risen.entries, [{ epoch: 5, startOffset: 100 }]);
  t.false(risen.truncateFromStart(100));
});

test("the file is Kafka's own format", (t) => {
  t.is(three().encode().toString(), '0\n3\n2 10\n4 20\n5 30\n');
  t.is(new LeaderEpochs().encode().toString(), '0\n0\n');
  // As a 4.4 broker wrote it.
  t.deepEqual(LeaderEpochs.decode(Buffer.from('0\n1\n0 0\n'), 'x').entries, [{ epoch: 0, startOffset: 0 }]);
  t.deepEqual(LeaderEpochs.decode(three().encode(), 'x').entries, three().entries);
});

test('a file that contradicts itself is refused', (t) => {
  for (const text of [
    '',
    '1\n0\n',
    '0\n2\n1 1\n',
    '0\n1\n1\n',
    '0\n1\na b\n',
    '0\n2\n2 1\n1 2\n',
    '0\n2\n1 5\n2 5\n',
    '0\n1\n1 1 1\n',
  ]) {
    t.throws(() => LeaderEpochs.decode(Buffer.from(text), 'a-0/f'), {
      code: 'DATA_DIR_CORRUPT',
      message: /^a-0\/f: expected/,
    });
  }
});
