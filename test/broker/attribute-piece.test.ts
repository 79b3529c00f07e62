import test from 'ava';
import fc from 'fast-check';
import { ArrivalTimes } from '../../broker/arrival-times.ts';
import { AttributeIndex } from '../../broker/attribute-index.ts';
import { AttributePiece, encodePiece } from '../../broker/attribute-piece.ts';

const NEVER = Number.POSITIVE_INFINITY;
const BASE = 2 ** 33;

const record = fc.record({
  gap: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 500 })),
  priority: fc.constantFrom(0, 0, 1, 255),
  notBeforeMs: fc.constantFrom(0, 0, 1_790_000_000_123, 1_790_000_500_000),
  expiresAtMs: fc.constantFrom(NEVER, NEVER, 1_790_000_000_001, 1_795_000_000_000),
  group: fc.constantFrom(undefined, 'a', 'b', '\0ÿ', 'ü'.repeat(128)),
});

test('a piece gives back what the index said of its range, in whatever slices', (t) => {
  t.notThrows(() =>
    fc.assert(
      fc.property(
        fc.array(record, { maxLength: 150 }),
        fc.nat(60),
        fc.integer({ min: 1, max: 3000 }),
        (records, skip, slice) => {
          const index = new AttributeIndex();
          const times = new ArrivalTimes();
          let end = BASE;
          for (const [number, { gap, ...attributes }] of records.entries()) {
            times.add(end, 1_790_000_000_000 + Math.floor(number / 7) * 5);
            end += gap;
            index.append(end - 1, { ...attributes, dedupId: undefined });
          }
          const from = BASE + skip;
          if (from >= end) return true;
          const piece = AttributePiece.decode(encodePiece(index, { from, endOffset: end, hasGroups: true, times }));
          if (piece === undefined || piece.from !== from || piece.endOffset !== end || !piece.hasTimes) return false;
          const again = new AttributeIndex();
          const arrivals = new ArrivalTimes();
          for (let at = from; at < end; at += slice) {
            const sliceEnd = Math.min(end, at + slice);
            piece.addTo(again, at, sliceEnd);
            for (const { offset, endOffset, atMs } of piece.arrivals(at, sliceEnd)) {
              if (offset < at || endOffset > sliceEnd || offset >= endOffset) return false;
              arrivals.add(offset, atMs);
            }
          }
          for (let offset = from; offset < end; offset++) {
            if (JSON.stringify(again.get(offset)) !== JSON.stringify(index.get(offset))) return false;
            if (arrivals.at(offset) !== times.at(offset)) return false;
          }
          return true;
        },
      ),
      { numRuns: 150 },
    ),
  );
});

test('without times it says so, and bytes that were damaged are no piece', (t) => {
  const index = new AttributeIndex();
  index.append(7, { priority: 0, notBeforeMs: 1_790_000_000_000, expiresAtMs: NEVER, group: 'g', dedupId: undefined });
  const bytes = encodePiece(index, { from: 5, endOffset: 9, hasGroups: false, times: undefined });
  const piece = AttributePiece.decode(bytes);
  t.false(piece?.hasTimes);
  t.false(piece?.hasGroups);
  t.deepEqual([...(piece?.arrivals(5, 9) ?? [])], []);
  for (let at = 0; at < bytes.length; at++) {
    const damaged = Buffer.from(bytes);
    damaged[at] ^= 0x10;
    t.is(AttributePiece.decode(damaged), undefined, `byte ${at}`);
    t.is(AttributePiece.decode(bytes.subarray(0, at)), undefined);
  }
  t.deepEqual(AttributePiece.decode(Buffer.concat([Buffer.alloc(1), bytes]).subarray(1))?.endOffset, 9);
});
