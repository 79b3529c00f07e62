import test from 'ava';
import fc from 'fast-check';
import { CHANGE, ChangeWriter, readChanges } from '../../broker/queue-changes.ts';
import { MillraceError } from '../../protocol/errors.ts';

function read(bytes: Buffer): unknown[] {
  const changes: unknown[] = [];
  readChanges(bytes, ({ kind, offset, endOffset, detail, atMs }) => {
    const hasTime = kind === CHANGE.acquired || kind === CHANGE.renewed || kind === CHANGE.returnedUntil;
    const hasDetail = kind === CHANGE.acquired || kind === CHANGE.leaving;
    changes.push([kind, offset, endOffset, hasDetail ? detail : 0, hasTime ? atMs : 0]);
  });
  return changes;
}

test('neighbours that are alike become one run, upwards and downwards', (t) => {
  const writer = new ChangeWriter();
  writer.note(CHANGE.done, 10, 1, 0, 0);
  writer.note(CHANGE.done, 11, 2, 0, 0);
  writer.note(CHANGE.done, 9, 1, 0, 0);
  writer.note(CHANGE.done, 14, 1, 0, 0);
  writer.note(CHANGE.acquired, 15, 1, 2, 500);
  writer.note(CHANGE.acquired, 16, 1, 2, 501);
  const bytes = writer.take() ?? Buffer.alloc(0);
  t.deepEqual(read(bytes), [
    [CHANGE.done, 9, 13, 0, 0],
    [CHANGE.done, 14, 15, 0, 0],
    [CHANGE.acquired, 15, 16, 2, 500],
    [CHANGE.acquired, 16, 17, 2, 501],
  ]);
  t.true(bytes.length < 25);
  t.is(writer.take(), undefined);
});

test('what was noted is read back, whatever the order', (t) => {
  const kinds = [CHANGE.done, CHANGE.acquired, CHANGE.renewed, CHANGE.returnedUntil, CHANGE.leaving, CHANGE.undone];
  const note = fc.record({
    kind: fc.constantFrom(...kinds),
    offset: fc.oneof(
      fc.nat(50),
      fc.nat(2 ** 31),
      fc.maxSafeNat().map((offset) => Math.floor(offset / 4)),
    ),
    count: fc.oneof(
      fc.constant(1),
      fc.nat(100).map((count) => count + 1),
    ),
    detail: fc.nat(31),
    atMs: fc.oneof(fc.constant(Number.POSITIVE_INFINITY), fc.nat(1000), fc.constant(1_790_000_000_000)),
  });
  fc.assert(
    fc.property(fc.array(note, { maxLength: 40 }), (notes) => {
      const writer = new ChangeWriter();
      const expected: string[] = [];
      for (const { kind, offset, count, detail, atMs } of notes) {
        const hasDetail = kind === CHANGE.acquired || kind === CHANGE.leaving;
        const hasTime = kind === CHANGE.acquired || kind === CHANGE.renewed || kind === CHANGE.returnedUntil;
        const used: [number, number] = [hasDetail ? detail : 0, hasTime ? atMs : 0];
        writer.note(kind, offset, count, ...used);
        for (let at = offset; at < offset + count; at++) expected.push([kind, at, ...used].join());
      }
      const bytes = writer.take();
      const found: string[] = [];
      for (const change of bytes === undefined ? [] : read(bytes)) {
        const [kind, offset, endOffset, detail, atMs] = change as number[];
        for (let at = offset; at < endOffset; at++) found.push([kind, at, detail, atMs].join());
      }
      // Within a run the order is free.
      return found.sort().join('\n') === expected.sort().join('\n');
    }),
    { numRuns: 200 },
  );
  t.pass();
});

test('any bytes are read or refused, in bounded time', (t) => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.uint8Array({ maxLength: 200 }).map((rest) => Uint8Array.from([1, ...rest])),
    fc
      .array(fc.constantFrom(1, 2, 3, 5, 12, 13, 15, 16, 0xff, 0x80), { maxLength: 60 })
      .map((rest) => Uint8Array.from([1, ...rest])),
  );
  fc.assert(
    fc.property(bytes, (input) => {
      try {
        readChanges(Buffer.from(input), ({ offset, endOffset }) => {
          if (offset < 0 || endOffset <= offset || !Number.isSafeInteger(endOffset)) throw new Error('not a range');
        });
      } catch (error) {
        return error instanceof MillraceError && error.code === 'CORRUPT_MESSAGE';
      }
      return true;
    }),
    { numRuns: 3000 },
  );
  t.pass();
});

test('a long run of what is kept message by message is cut into pieces that are accepted', (t) => {
  const writer = new ChangeWriter();
  writer.note(CHANGE.acquiredBound, 0, 2_500_000, 0, 0);
  const changes = read(writer.take() ?? Buffer.alloc(0));
  t.deepEqual(changes, [
    [CHANGE.acquiredBound, 0, 1_000_000, 0, 0],
    [CHANGE.acquiredBound, 1_000_000, 2_000_000, 0, 0],
    [CHANGE.acquiredBound, 2_000_000, 2_500_000, 0, 0],
  ]);
});
