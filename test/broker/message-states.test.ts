import test from 'ava';
import fc from 'fast-check';
import { CHUNK_MESSAGES, DONE, FRESH, type MessageState, MessageStates, TRACKED } from '../../broker/message-states.ts';

const STATES: readonly MessageState[] = [0, 1, 2, 3];

test('it agrees with an array', (t) => {
  const span = 3 * CHUNK_MESSAGES;
  const near = fc.oneof(
    fc.nat(span - 1),
    fc.constantFrom(0, 15, 16, 17, CHUNK_MESSAGES - 1, CHUNK_MESSAGES, 2 * CHUNK_MESSAGES, span - 1),
  );
  const step = fc.tuple(near, near, fc.constantFrom(...STATES), fc.boolean());
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25 }), fc.constantFrom(0, 5, 2 ** 40 + 3), (steps, start) => {
      const base = start - (start % CHUNK_MESSAGES);
      const states = new MessageStates(start);
      const array = new Uint8Array(span).fill(FRESH);
      array.fill(DONE, 0, start - base);
      for (const [a, b, state, isRange] of steps) {
        const [first, end] = a <= b ? [a, b] : [b, a];
        if (isRange) {
          states.setRange(base + first, base + end, state);
          array.fill(state, first, end);
        } else {
          states.set(base + first, state);
          array[first] = state;
        }
        for (const wanted of STATES) {
          const from = array.subarray(first);
          const next = from.indexOf(wanted);
          const nextNot = from.findIndex((other) => other !== wanted);
          const found = states.next(wanted, base + first, base + span);
          if (found - base !== (next < 0 ? span : first + next)) return false;
          const foundNot = states.nextNot(wanted, base + first, base + span);
          if (foundNot - base !== (nextNot < 0 ? span : first + nextNot)) return false;
        }
        const done = array.subarray(first, end).reduce((sum, one) => sum + (one === DONE ? 1 : 0), 0);
        if (states.countDone(base + first, base + end) !== done) return false;
        if (states.get(base + a) !== array[a]) return false;
      }
      return true;
    }),
    { numRuns: 60 },
  );
  t.pass();
});

test('what is all alike takes no memory, and what is all done vanishes', (t) => {
  const states = new MessageStates(0);
  for (let offset = 0; offset < 4 * CHUNK_MESSAGES; offset++) states.set(offset, TRACKED);
  t.is(states.sizeBytes, CHUNK_MESSAGES);
  for (let offset = 0; offset < 4 * CHUNK_MESSAGES; offset += 2) states.set(offset, DONE);
  for (let offset = 1; offset < 4 * CHUNK_MESSAGES; offset += 2) states.set(offset, DONE);
  t.is(states.sizeBytes, 0);
  states.dropBelow(2 * CHUNK_MESSAGES + 9);
  t.is(states.floorOffset, 2 * CHUNK_MESSAGES);
  t.is(states.get(5), DONE);
  states.dropBelow(1e12);
  t.is(states.get(1e12 - 1), DONE);
  t.is(states.get(1e12), FRESH);
});

test('chunks that vanished come back all done', (t) => {
  const states = new MessageStates(5 * CHUNK_MESSAGES + 1);
  states.lowerFloor(CHUNK_MESSAGES + 7);
  t.is(states.floorOffset, CHUNK_MESSAGES);
  t.is(states.countDone(CHUNK_MESSAGES, 6 * CHUNK_MESSAGES), 4 * CHUNK_MESSAGES + 1);
  states.set(CHUNK_MESSAGES + 7, FRESH);
  t.is(states.next(FRESH, 0, 6 * CHUNK_MESSAGES), CHUNK_MESSAGES + 7);
  const bits = states.doneBits(CHUNK_MESSAGES);
  t.true(typeof bits !== 'string' && bits[0] === 0x7f);
  t.is(states.doneBits(2 * CHUNK_MESSAGES), 'all');
  t.is(states.doneBits(7 * CHUNK_MESSAGES), 'none');
});
