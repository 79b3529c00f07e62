import test from 'ava';
import { HandOutMark } from '../../broker/hand-out-mark.ts';
import { CHANGE, ChangeWriter, readChanges } from '../../broker/queue-changes.ts';

/** Offsets of the marks that were noted since the last call. */
function noted(changes: ChangeWriter): number[] {
  const marks: number[] = [];
  const bytes = changes.take();
  if (bytes !== undefined) readChanges(bytes, ({ kind, offset }) => kind === CHANGE.mark && marks.push(offset));
  return marks;
}

test('nothing leaves before a mark above it is durable', (t) => {
  const changes = new ChangeWriter();
  const mark = new HandOutMark(changes, 100);
  t.false(mark.covers(100, 0));
  const [first] = noted(changes);
  t.true(first > 100);
  t.false(mark.covers(101, 0), 'it is not committed');
  mark.committed(5);
  t.false(mark.covers(102, 4), 'nor durable');
  t.true(mark.covers(103, 5));
  t.false(mark.covers(first, 5), 'nor above that');
});

test('it moves in good time, and further when it was too slow', (t) => {
  const changes = new ChangeWriter();
  const mark = new HandOutMark(changes, 0);
  let position = 0;
  let waited = 0;
  const marks: number[] = [];
  for (let offset = 0; offset < 20_000; offset++) {
    if (!mark.covers(offset, position - 1)) waited++;
    // A commit for each hundred messages, durable when the next one is made.
    if (offset % 100 > 0) continue;
    marks.push(...noted(changes));
    mark.committed(++position);
  }
  t.true(waited < 500, `${waited} have waited`);
  t.true(marks.length < 80, `${marks.length} marks`);
  t.deepEqual(
    marks,
    marks.toSorted((a, b) => a - b),
  );
});

test('after a crash what is below the mark and in the log may have been handed out', (t) => {
  const mark = new HandOutMark(new ChangeWriter(), 0);
  mark.recovered(500);
  mark.doubtBelow(120);
  t.true(mark.isRedelivery(119, 1));
  t.false(mark.isRedelivery(120, 1));
  t.true(mark.isRedelivery(120, 2));
  t.true(mark.covers(450, 0), 'the mark is durable since before');
});

test('an orderly end takes it back', (t) => {
  const changes = new ChangeWriter();
  const mark = new HandOutMark(changes, 0);
  t.false(mark.end(0), 'there is nothing to take back');
  mark.covers(10, 0);
  t.true(mark.end(7));
  t.is(noted(changes).at(-1), 7);
});

test('a state that begins anew below keeps it', (t) => {
  const changes = new ChangeWriter();
  const mark = new HandOutMark(changes, 0);
  mark.covers(10, 0);
  const [before] = noted(changes);
  mark.reset(3);
  t.deepEqual(noted(changes), [before]);
  mark.reset(before + 1000);
  t.is(mark.offset, before + 1000);
});
