/**
 * Answers that nobody takes hold slabs that the tail cache has already given up. That memory is bounded: beyond the
 * limit the connections that have taken nothing for the longest time are ended. Their clients come back and read what
 * they were sent from the files. Whoever takes anything at all is left alone.
 */
import { MillraceError } from '../../protocol/errors.ts';
import type { KafkaConnection } from './connection.ts';

/** A peer that takes nothing for so long is stalled. */
const STALLED_MS = 1000;

export interface PinnedMemory {
  /** Held now. */
  readonly pinnedBytes: () => number;
  readonly bytesMax: number;
  readonly nowMs: number;
}

export function endStalled(
  connections: Iterable<Pick<KafkaConnection, 'stalledSinceMs' | 'fail'>>,
  { pinnedBytes, bytesMax, nowMs }: PinnedMemory,
): void {
  if (pinnedBytes() <= bytesMax) return;
  const stalled = [...connections]
    .filter(({ stalledSinceMs }) => nowMs - stalledSinceMs >= STALLED_MS)
    .sort((a, b) => a.stalledSinceMs - b.stalledSinceMs);
  for (const connection of stalled) {
    if (pinnedBytes() <= bytesMax) return;
    const message = `unread answers hold ${pinnedBytes()} bytes beyond log.tail.cache.bytes, ${bytesMax} are allowed`;
    connection.fail(new MillraceError('POLICY_VIOLATION', message));
  }
}
