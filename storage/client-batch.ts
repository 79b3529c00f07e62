/** Limits of a topic that a client's batch must keep to. Its structure was checked before (`protocol/record-batch.ts`). */
import { MillraceError } from '../protocol/errors.ts';
import { batchBaseTimestamp, batchMaxTimestamp } from '../protocol/record-batch.ts';
import type { LogConfig } from './log.ts';

/** @throws MillraceError MESSAGE_TOO_LARGE, INVALID_TIMESTAMP */
export function checkClientBatch(batch: Buffer, config: LogConfig, nowMs: number, name: string): void {
  const { maxMessageBytes, timestampType, timestampBeforeMaxMs, timestampAfterMaxMs } = config;
  if (batch.length > maxMessageBytes) {
    throw new MillraceError(
      'MESSAGE_TOO_LARGE',
      `${name}: batch of ${batch.length} bytes, max.message.bytes is ${maxMessageBytes}`,
    );
  }
  if (timestampType !== 'CreateTime') return;
  const newest = batchMaxTimestamp(batch, 0);
  const oldest = batchBaseTimestamp(batch, 0);
  if (newest > nowMs + timestampAfterMaxMs || (oldest >= 0 && oldest < nowMs - timestampBeforeMaxMs)) {
    throw new MillraceError(
      'INVALID_TIMESTAMP',
      `${name}: timestamps ${oldest} to ${newest}, allowed from ${nowMs - timestampBeforeMaxMs} to ${nowMs + timestampAfterMaxMs}`,
    );
  }
}
