/**
 * How much all owned queues together keep of what they have finished, for replay (`queue.replay.total.bytes`). Each
 * keeps what its own settings say; beyond the total the largest histories give up their oldest part, so that
 * no small one does before. When the disk has no room left for messages, all give up most of theirs.
 */
import type { Engine, Partition, Position } from './engine.ts';
import type { Queue } from './queues.ts';

/** Of the history there is, this part stays when the disk is full. */
const PART_WHEN_FULL = 0.25;

export interface QueueHistoryParts {
  readonly engine: Engine;
  /** `queue.replay.total.bytes` */
  readonly bytesMax: number;
  /** Moves the start of a log up. */
  readonly trim: (log: Partition, offset: number) => Position;
}

interface History {
  readonly log: Partition;
  /** Where its queue begins: below it everything is finished. */
  readonly endOffset: number;
  readonly sizeBytes: number;
}

/** By the average size of what the log holds. */
function historyOf(log: Partition, startOffset: number): History {
  const endOffset = Math.min(startOffset, log.highWatermark);
  const held = Math.max(1, log.endOffset - log.startOffset);
  return { log, endOffset, sizeBytes: (log.sizeBytes * Math.max(0, endOffset - log.startOffset)) / held };
}

/** Cuts what is too much; resolves when that is decided. */
export async function limitHistory(queues: readonly Queue[], parts: QueueHistoryParts): Promise<void> {
  const histories: History[] = [];
  for (const queue of queues) {
    if (queue.kind !== 'owned' || queue.isInMemory) continue;
    for (const { log, state } of queue.partitions())
      if (!log.isFenced) histories.push(historyOf(log, state.startOffset));
  }
  const total = histories.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const allowed = parts.engine.isFull ? Math.min(parts.bytesMax, total * PART_WHEN_FULL) : parts.bytesMax;
  if (total <= allowed) return;
  const keptBytes = levelOf(
    histories.map(({ sizeBytes }) => sizeBytes),
    allowed,
  );
  for (const { log, endOffset, sizeBytes } of histories) {
    const excess = sizeBytes - keptBytes;
    // Files go as a whole: less than one frees nothing, and would be counted again.
    if (excess < log.config.segmentBytes) continue;
    try {
      await log.prepare();
    } catch {
      continue; // For want of descriptors or memory: the next run tries again.
    }
    const share = excess / sizeBytes;
    const offset = log.startOffset + Math.floor((endOffset - log.startOffset) * share);
    if (!log.isFenced && offset > log.startOffset && offset <= log.highWatermark) parts.trim(log, offset);
  }
}

/** What each may keep so that all together keep `allowed`: the larger ones as much as each other. */
export function levelOf(sizes: readonly number[], allowed: number): number {
  const rising = [...sizes].sort((a, b) => a - b);
  let left = allowed;
  for (const [index, size] of rising.entries()) {
    const share = left / (rising.length - index);
    if (size > share) return share;
    left -= size;
  }
  return Number.POSITIVE_INFINITY;
}
